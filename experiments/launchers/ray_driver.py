"""The two processes of Ray that `experiments.launchers.ray` needs: its driver, and a task.

Workers import this file to run a task, so it imports nothing of the project that takes long.
"""

import contextlib
import math
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from experiments.launchers.parent import ENDS_WITH_PARENT

POLL_SECONDS = 0.1

GRACE_SECONDS = 60.0
"""How long processes may take to save when the engine is gone."""

_STORE_BYTES = 100 * 2**20  # hardly more than the least that Ray takes; it only holds exit statuses


def main() -> None:
    """Connects to Ray, says so, and does what is asked until the engine closes the pipe or dies.

    Takes the number of the pipe, and an engine's address, CPUs and GPUs, from the command line.
    """
    number, address, cpus, gpus = sys.argv[1:]
    with Connection(int(number)) as pipe:
        try:
            tasks = _Tasks(address, float(cpus), float(gpus))
        except _Refused as refused:
            pipe.send(str(refused))
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the engine decides, and may die of it
        pipe.send("")
        try:
            while True:
                if pipe.poll(POLL_SECONDS):
                    what, *arguments = pipe.recv()
                    getattr(tasks, what)(*arguments)
                for ended in tasks.ended():
                    pipe.send(ended)
        except (EOFError, BrokenPipeError, ConnectionResetError):  # the engine is gone
            pass
        except Exception as error:
            pipe.send(_line(error))
        finally:
            tasks.close()


class _Refused(Exception):
    """The cluster cannot be used; the message is one line."""


class _Tasks:
    """Tasks that have not ended, by the numbers that the engine gave them."""

    def __init__(self, address: str, cpus: float, gpus: float):
        # In this process only; Ray reads them when it is imported.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # or `uv run` sends the directory along
        try:
            import ray
        except ImportError:
            raise _Refused("Ray is not installed: run pip install -e '.[ray]'") from None
        self._ray = ray
        self._tasks: dict[int, _Task] = {}
        self._environment = _environment(cpus, gpus)
        own = {"num_cpus": len(os.sched_getaffinity(0)), "object_store_memory": _STORE_BYTES}
        try:
            ray.init(
                address or "local",
                **({} if address else own),
                include_dashboard=False,
                log_to_driver=False,
            )
            self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(run)
        except Exception as error:
            where = f"the Ray cluster at {address}" if address else "a Ray cluster of this machine"
            raise _Refused(f"{where} cannot be used: {_line(error.__cause__ or error)}") from None
        self._gpus = gpus
        nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        here = ray.get_runtime_context()
        own_node = nodes[here.get_node_id()]
        self._needed = [
            (own_node["NodeManagerAddress"], own_node["NodeManagerPort"]),  # gives tasks away
            tuple(here.gcs_address.rsplit(":", 1)),  # knows the nodes
        ]
        self._refuse_impossible(cpus, gpus, [node["Resources"] for node in nodes.values()])

    def _refuse_impossible(
        self, cpus: float, gpus: float, sizes: Sequence[Mapping[str, float]]
    ) -> None:
        """Refuses what no node has, nor one that the cluster may add: it would wait for ever."""
        addable = self._ray._private.state.state.get_cluster_config()
        if addable is not None:
            sizes = [*sizes, *(group.resources for group in addable.node_group_configs)]
        found = sorted({(size.get("CPU", 0), size.get("GPU", 0)) for size in sizes})
        if not any(has_cpus >= cpus and has_gpus >= gpus for has_cpus, has_gpus in found):
            raise _Refused(
                f"a run takes {cpus:g} CPUs and {gpus:g} GPUs of a node (ray.cpus, ray.gpus), "
                f"and those of the Ray cluster have "
                + ", or ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in found)
            )

    def run(self, number: int, name: str, *arguments: Any) -> None:
        argv, environment, directory, log = arguments
        task = self._task.options(name=name)
        reference = task.remote(argv, self._environment | environment, directory, log, self._gpus)
        self._tasks[number] = _Task(reference, reference.future())

    def stop(self, number: int) -> None:
        if number in self._tasks:
            self._ray.cancel(self._tasks[number].reference)

    def kill(self, number: int) -> None:
        if number in self._tasks:
            self._tasks[number].is_killed = True
            self._ray.cancel(self._tasks[number].reference, force=True)

    def ended(self) -> Iterator[tuple[int, int, str]]:
        """Tasks that have ended since it was last asked: number, exit status, and what Ray says.

        Raises:
          RayError: The cluster is lost.
        """
        for number in [number for number, task in self._tasks.items() if task.future.done()]:
            yield number, *self._outcome(self._tasks.pop(number))

    def _outcome(self, task: "_Task") -> tuple[int, str]:
        errors = self._ray.exceptions
        try:
            return task.future.result(), ""
        except errors.TaskCancelledError:
            return -signal.SIGKILL if task.is_killed else -signal.SIGTERM, ""
        except errors.RayTaskError as error:  # the command could not be started
            return 127, _line(error.cause)
        except errors.RayError as error:
            if not self._is_whole():
                raise
            return -signal.SIGKILL, _line(error)

    def _is_whole(self) -> bool:
        """Whether the parts of Ray live without which no task can be given away."""
        try:
            for address in self._needed:
                socket.create_connection(address, timeout=5).close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Has what still runs save and end, and lets go of the cluster."""
        for number in self._tasks:
            self.stop(number)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline:
            if all(task.future.done() for task in self._tasks.values()):
                break
            time.sleep(POLL_SECONDS)
        self._ray.shutdown()


@dataclass
class _Task:
    reference: Any
    future: Future
    is_killed: bool = False


def _environment(cpus: float, gpus: float) -> dict[str, str]:
    """What keeps JAX to its share of a node, where the environment does not set it."""
    own = {"PJRT_NPROC": str(max(1, math.floor(cpus)))}  # or it starts a thread a core of the node
    if 0 < gpus < 1:  # it takes three quarters of a GPU's memory unless it is told
        own["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * gpus:.3f}"
    return own


def run(
    argv: Sequence[str], environment: Mapping[str, str], directory: str, log: str, gpus: float
) -> int:
    """The task: runs a command as a process of this machine and returns its exit status.

    Passes on when it is asked to end. When the node leaves the cluster, which is when its raylet
    dies, the process is asked to end too: nothing would look after it any more.

    Args:
      argv: Program and arguments.
      environment: What is added to the environment, where that does not set it.
      directory: To run it in.
      log: File to which its output is appended.
      gpus: That it may use; Ray has chosen which.
    """
    own = {ENDS_WITH_PARENT: str(os.getpid())}
    if not gpus:
        own["CUDA_VISIBLE_DEVICES"] = ""
    raylet = int(os.environ["RAY_RAYLET_PID"])
    if os.getppid() != raylet:  # Ray gives tasks to the workers that are left, even then
        os._exit(1)
    with _asked_to_end() as asked:
        try:
            with open(log, "a") as file:
                # In a session of its own: if this worker is killed, Ray kills its process group.
                child = subprocess.Popen(
                    argv,
                    cwd=directory,
                    stdout=file,
                    stderr=file,
                    env={**environment, **os.environ, **own},
                    start_new_session=True,
                )
        except OSError as error:
            raise RuntimeError(f"on {socket.gethostname()}: {error}") from None
        while child.poll() is None:
            if os.getppid() != raylet:
                raylet = os.getppid()
                asked.append(signal.SIGTERM)
            if asked:
                asked.clear()
                child.terminate()
            time.sleep(POLL_SECONDS)
        return child.returncode


@contextlib.contextmanager
def _asked_to_end() -> Iterator[list[int]]:
    """Collects signals inside the block instead of raising what Ray makes of them."""
    asked: list[int] = []
    handlers = {
        each: signal.signal(each, lambda number, _: asked.append(number))
        for each in (signal.SIGINT, signal.SIGTERM)  # Ray cancels a task with SIGINT
    }
    try:
        yield asked
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


def _line(error: BaseException) -> str:
    """What an error says, as one line, without the traceback that Ray puts into it."""
    said = re.sub(r"Traceback \(.*\n(  .*\n)*", "", str(error))
    return textwrap.shorten(f"{type(error).__name__}: {said}", 400)
