"""Runs commands on this machine: a bounded number of processes, each on its share of the cores."""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.launchers import PREEMPTED, Command
from experiments.launchers.parent import ENDS_WITH_PARENT


@dataclass(frozen=True)
class Share:
    """The part of the machine that a process gets.

    Attributes:
      cores: Numbers of its cores.
      gpu: What CUDA calls its GPU; None without one.
      crowd: How many shares have that GPU.
    """

    cores: tuple[int, ...]
    gpu: str | None = None
    crowd: int = 1

    def environment(self) -> dict[str, str]:
        """What keeps a process to its GPU."""
        if self.gpu is None:
            return {}
        own = {"CUDA_VISIBLE_DEVICES": self.gpu}
        if self.crowd > 1:  # JAX takes three quarters of a GPU's memory unless it is told
            own["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / self.crowd:.3f}"
        return own


class Local:
    """Processes of this machine.

    Args:
      slots: How many at a time; each gets a share of the cores, and GPUs are dealt out.
    """

    distributed = False

    def __init__(self, slots: int):
        self.slots: int | None = slots
        self._free = shares(sorted(os.sched_getaffinity(0)), gpus(), slots)

    def submit(self, commands: Sequence[Command]) -> list["_Process"]:
        """See `Engine.submit`; no more commands at a time than there are slots."""
        return [_Process(command, self._free) for command in commands]

    def close(self) -> None:
        """See `Engine.close`."""


class _Process:
    """A process on a share of the machine, which it gives back when it has ended."""

    def __init__(self, command: Command, free: list[Share]):
        self._free, self._share = free, free.pop(0)
        environment = (
            dict(command.environment)
            | os.environ
            | self._share.environment()
            | {ENDS_WITH_PARENT: str(os.getpid())}
        )
        with command.log.open("a") as log:
            # In a session of its own: Ctrl-C is for the launcher, which then asks it to end.
            self._process = subprocess.Popen(
                command.argv, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        # Set from outside before JAX counts the cores to size its thread pool.
        os.sched_setaffinity(self._process.pid, self._share.cores)

    def poll(self) -> int | None:
        ended = self._process.poll()
        if ended is not None and self._share is not None:
            self._free.append(self._share)
            self._share = None
            with contextlib.suppress(ProcessLookupError):  # what it started and could not end
                os.killpg(self._process.pid, signal.SIGKILL)
        # It was asked to end while it was still importing, and had nothing to save.
        return PREEMPTED if ended == -signal.SIGTERM else ended

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def default_slots() -> int:
    """One a GPU; without any, one a core.

    Small networks gain less from a second core than from a second run beside them.
    """
    return len(gpus()) or len(os.sched_getaffinity(0))


def gpus() -> list[str]:
    """NVIDIA GPUs by the names that CUDA_VISIBLE_DEVICES takes, which limits them if it is set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    numbers = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in numbers if match), key=int)


def shares(cores: Sequence[int], gpus: Sequence[str], slots: int) -> list[Share]:
    """Deals cores and GPUs out; more slots than there are of either share them."""

    def own_cores(index: int) -> tuple[int, ...]:
        return tuple(cores[index::slots]) or (cores[index % len(cores)],)

    def own_gpu(index: int) -> tuple[str | None, int]:
        if not gpus:
            return None, 1
        mine = index % len(gpus)
        return gpus[mine], len(range(mine, slots, len(gpus)))

    return [Share(own_cores(index), *own_gpu(index)) for index in range(slots)]
