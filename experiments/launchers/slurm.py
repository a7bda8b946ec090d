"""Runs commands as jobs of a Slurm cluster.

All commands that are given at once become one job array, through submitit. It pickles what a job
is to do into a folder that the job's node sees, and loads it there; whoever can write to that
folder runs code as its owner. The directory of a sweep may be someone else's, or come from
elsewhere, so the folder never lies there, but in the user's own state directory, as home
directories are shared on clusters. Nothing is pickled on the way back: a job leaves its exit status
as text.

What a job does is known from `squeue` alone; accounting (`sacct`) is not needed.
"""

import contextlib
import importlib.util
import io
import math
import os
import re
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments import launchers
from experiments.launchers import Command, cuda, slurm_task
from experiments.launchers.slurm_queue import (
    ENDED,
    GONE,
    MIN_POLL_SECONDS,
    TAKEN,
    Queue,
    output_of,
)
from shufflenet_jax.errors import InputError

SAVE_SECONDS = 90
"""How long before its limit a job is asked to end; Slurm may do so up to a minute earlier."""

_LAG_SECONDS = 15.0
"""How long a file may take to be seen on another machine."""

_OUTAGE_SECONDS = 3600.0
"""How long Slurm's controller may be away, as for an upgrade, before nothing is submitted."""

_DAY = 24 * 3600.0

_AWAY = re.compile("Unable to contact slurm controller|Socket timed out")


@dataclass(frozen=True)
class Slurm:
    """Jobs of a Slurm cluster.

    What a cluster asks for beside these, such as an account, can be set as `sbatch` takes it from
    the environment: ``SBATCH_ACCOUNT``, ``SBATCH_QOS``.

    Attributes:
      partition: Where they are queued; empty for the cluster's default.
      minutes: Time limit of a job. When it is up, the job saves and is queued again.
      gpus: For each node of a job.
      cpus: Cores for each process.
      memory_gb: For each node of a job; 0 for the cluster's default.
      nodes: For each job.
      tasks: Processes that train one run together, over all its nodes.
      requeue: Whether Slurm may queue jobs again that were preempted, or whose time is up, under
        the same number. Otherwise they end, and whoever submitted them may submit them again.
    """

    partition: str = ""
    minutes: int = 240
    gpus: int = 0
    cpus: int = 1
    memory_gb: float = 0.0
    nodes: int = 1
    tasks: int = 1
    requeue: bool = True
    slots: None = field(default=None, init=False)
    _queue: Queue = field(default_factory=Queue, init=False, repr=False, compare=False)
    _cluster: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _folders: list[Path] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def distributed(self) -> bool:
        """See `Engine`."""
        return self.tasks > 1

    def __post_init__(self) -> None:
        """Checks what was asked for.

        Raises:
          InputError: It makes no sense, Slurm or submitit is not installed, or does not answer.
        """
        for name, least in {"minutes": 5, "gpus": 0, "cpus": 1, "nodes": 1, "tasks": 1}.items():
            if not least <= getattr(self, name) < math.inf:
                raise InputError(
                    f"slurm.{name} must be at least {least}, not {getattr(self, name)}"
                )
        if not 0 <= self.memory_gb < math.inf:
            raise InputError(f"slurm.memory_gb must be at least 0, not {self.memory_gb:g}")
        if self.tasks % self.nodes:
            raise InputError(f"{self.tasks} slurm.tasks do not divide among {self.nodes} nodes")
        if shutil.which("sbatch") is None:
            raise InputError(
                "no sbatch on the PATH: run this where jobs are submitted, or install slurm-client"
            )
        if importlib.util.find_spec("submitit") is None:
            raise InputError("Slurm needs submitit: pip install 'shufflenet-jax[slurm]'")
        self._cluster.update(_configuration())

    def submit(self, commands: Sequence[Command]) -> list["_Job"]:
        """See `Engine.submit`; all are one job array, or several if the cluster allows no such.

        Raises:
          InputError: Slurm refuses them.
        """
        own = _user_state() / "shufflenet_jax" / "slurm" / self._cluster["ClusterName"]
        root = _private(own)
        if not self._folders:
            self._sweep_up(root)
        most = max(1, int(self._cluster["MaxArraySize"]))
        jobs = []
        try:
            for begin in range(0, len(commands), most):
                jobs += self._submit_array(root, commands[begin : begin + most])
        except InputError:
            for job in jobs:
                job.kill()
            raise
        finally:
            self._queue.forget()
        return jobs

    def notes(self) -> list[str]:
        """See `Engine.notes`."""
        has_gpus = "gpu" in self._cluster.get("GresTypes", "") and cuda.is_wanted()
        if self.gpus or not (has_gpus or cuda.is_used_by_jax()):
            return []
        return ["slurm.gpus is 0: runs get no GPU; --config.slurm.gpus=1 gives each node one"]

    def close(self) -> None:
        """See `Engine.close`.

        Raises:
          InputError: Slurm does not answer, so that it could not be told to end jobs.
        """
        left = self._queue.flush()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
        self._folders.clear()
        if left:
            arrays = " ".join(sorted({number.partition("_")[0] for number in left}))
            raise InputError(f"Slurm does not answer, so jobs may go on: scancel {arrays}")

    def _submit_array(self, root: Path, commands: Sequence[Command]) -> list["_Job"]:
        import submitit

        folder = root / uuid.uuid4().hex
        folder.mkdir()
        self._folders.append(folder)
        statuses = [folder / f"{index}.status" for index in range(len(commands))]
        # Without -P a job would import from the folder that it was submitted in.
        executor = submitit.SlurmExecutor(folder, python=shlex.join([sys.executable, "-P"]))
        executor.update_parameters(**self._parameters(len(commands)))
        deadline = time.monotonic() + _OUTAGE_SECONDS
        while True:
            try:
                # The error has what is printed as well.
                with _by_value(), contextlib.redirect_stderr(io.StringIO()):
                    submitted = executor.map_array(slurm_task.run, commands, statuses)
                break
            except submitit.core.utils.FailedJobError as error:
                said = str(error).replace("sbatch: error: ", "").strip().replace("\n", "; ")
                if not _AWAY.search(said) or time.monotonic() > deadline:
                    raise InputError(f"Slurm refuses the jobs: {said}") from None
                time.sleep(MIN_POLL_SECONDS)
        return [
            _Job(self._queue, job.job_id, command, status, job.paths.stdout)
            for job, command, status in zip(submitted, commands, statuses, strict=True)
        ]

    def _parameters(self, count: int) -> dict[str, object]:
        """What submitit passes on to `sbatch`."""
        chosen: dict[str, object] = {
            "job_name": "shufflenet_jax",
            "time": self.minutes,
            "nodes": self.nodes,
            "ntasks_per_node": self.tasks // self.nodes,
            "cpus_per_task": self.cpus,
            # A step need not inherit what its job was given (srun(1)).
            "srun_args": [f"--cpus-per-task={self.cpus}"],
            "signal_delay_s": SAVE_SECONDS,
            "array_parallelism": count,
            "stderr_to_stdout": True,
            "additional_parameters": {"requeue" if self.requeue else "no-requeue": True},
        }
        if self.partition:
            chosen["partition"] = self.partition
        if self.gpus:
            chosen["gpus_per_node"] = self.gpus
        if self.memory_gb:
            chosen["mem"] = f"{round(self.memory_gb * 1024)}M"
        return chosen

    def _sweep_up(self, root: Path) -> None:
        """Removes what launchers left that were killed, once all jobs of a folder have ended."""
        live = self._queue.live_arrays()
        if live is None:
            return
        for folder in root.iterdir():
            arrays = {path.name.partition("_")[0] for path in folder.glob("*_submission.sh")}
            if time.time() - folder.stat().st_mtime > _DAY and not arrays & live:
                shutil.rmtree(folder, ignore_errors=True)


class _Job:
    """A job, or an element of an array."""

    def __init__(self, queue: Queue, number: str, command: Command, status: Path, said: Path):
        self._queue, self._number = queue, number
        self._command, self._status, self._said = command, status, said
        self._ended: int | None = None
        self._asked, self._state = False, "PENDING"
        self._missed: float | None = None

    def poll(self) -> int | None:
        if self._ended is None:
            state = self._queue.state(self._number)
            if state in ENDED or state == GONE:
                self._ended = self._judge(state)
            elif state is not None:
                self._state, self._missed = state, None
        return self._ended

    def stop(self) -> None:
        self._asked = True
        self._queue.stop(self._number)

    def kill(self) -> None:
        self._asked = True
        self._queue.kill(self._number)

    def _judge(self, state: str) -> int | None:
        """What a job that has ended came to; None while that may not be visible yet."""
        status = self._read()
        if state == "CANCELLED":
            return 0 if status == 0 else -15
        if status is not None:
            return -9 if status < 0 and state in TAKEN else status
        # Of an element that is cancelled before it runs Slurm keeps no record.
        if self._asked or (state == GONE and self._state == "PENDING"):
            return -15
        now = time.monotonic()
        self._missed = self._missed or now
        if now - self._missed < _LAG_SECONDS:
            return None
        self._explain(state)
        return -9

    def _read(self) -> int | None:
        try:
            os.utime(self._status.parent)  # has network file systems look again
            return int(self._status.read_text())
        except OSError:
            return None

    def _explain(self, state: str) -> None:
        """Tells the command's log why there is nothing of the command."""
        said = self._said.read_text() if self._said.exists() else f"It left no {self._said}.\n"
        with self._command.log.open("a") as log:
            log.write(f"Slurm job {self._number} ended as {state}, without an exit status.\n{said}")


@contextlib.contextmanager
def _by_value() -> Iterator[None]:
    """Pickles what a job runs with its code: a job need not find this package to load it."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(launchers)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(launchers)


def _configuration() -> dict[str, str]:
    """How the cluster is configured.

    Raises:
      InputError: It does not answer.
    """
    shown = output_of("scontrol", "show", "config")
    if shown is None:
        raise InputError("Slurm does not answer: see what `scontrol ping` says")
    return dict(re.findall(r"^(\w+)\s*= (.*)$", shown, flags=re.MULTILINE))


def _user_state() -> Path:
    """Where this user's programs keep their state.

    Raises:
      InputError: The user has no home directory.
    """
    try:
        return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    except RuntimeError:
        raise InputError(
            "this user has no home directory: set XDG_STATE_HOME to one that the nodes see as well"
        ) from None


def _private(directory: Path) -> Path:
    """Makes a directory that none but this user can read or write.

    Raises:
      InputError: It cannot be made, is someone else's, or others can get in.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot keep jobs in {directory} ({error.strerror}): set XDG_STATE_HOME to a "
            f"directory of yours that the nodes see as well"
        ) from None
    status = directory.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise InputError(f"{directory} must be yours alone: chmod 700 {directory}")
    return directory
