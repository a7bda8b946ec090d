"""Runs commands on this machine: a bounded number of processes, each on its share of the cores."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.launchers import PREEMPTED, Command, cuda
from experiments.launchers.parent import ENDS_WITH_PARENT


@dataclass(frozen=True)
class Slot:
    """The part of the machine that a process gets.

    Attributes:
      cores: Numbers of its cores.
      gpu: What CUDA calls its GPU; None without one.
      crowd: How many slots have that GPU.
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
      slots: How many at a time; each gets a share of the cores, and GPUs are dealt out. None: one a
        GPU, or without any one a core. Small networks gain less from a second core than from a
        second run beside them.
    """

    distributed = False

    def __init__(self, slots: int | None = None):
        cores = sorted(os.sched_getaffinity(0))
        self._gpus = cuda.visible() if cuda.is_used_by_jax() else []
        self.slots: int | None = slots or len(self._gpus) or len(cores)
        self._free = deal(cores, self._gpus, self.slots)

    def submit(self, commands: Sequence[Command]) -> list["_Process"]:
        """See `Engine.submit`; no more commands at a time than there are slots."""
        return [_Process(command, self._free) for command in commands]

    def notes(self) -> list[str]:
        """See `Engine.notes`."""
        if self._gpus or not cuda.is_wanted() or not cuda.visible():
            return []
        return [f"JAX is installed without CUDA and leaves the GPUs alone: {cuda.INSTALL}"]

    def close(self) -> None:
        """See `Engine.close`."""


class _Process:
    """A process in a slot, which it gives back when it has ended."""

    def __init__(self, command: Command, free: list[Slot]):
        slot = free.pop(0)
        self._free = free
        self._slot: Slot | None = slot
        environment = (
            dict(command.environment)
            | os.environ
            | slot.environment()
            | {ENDS_WITH_PARENT: str(os.getpid())}
        )
        with command.log.open("a") as log:
            # In a session of its own: Ctrl-C is for the launcher, which then asks it to end.
            self._process = subprocess.Popen(
                command.argv, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        # Set from outside before JAX counts the cores to size its thread pool.
        os.sched_setaffinity(self._process.pid, slot.cores)

    def poll(self) -> int | None:
        ended = self._process.poll()
        if ended is not None and self._slot is not None:
            self._free.append(self._slot)
            self._slot = None
            with contextlib.suppress(ProcessLookupError):  # what it started and could not end
                os.killpg(self._process.pid, signal.SIGKILL)
        # It was asked to end while it was still importing, and had nothing to save.
        return PREEMPTED if ended == -signal.SIGTERM else ended

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def deal(cores: Sequence[int], gpus: Sequence[str], slots: int) -> list[Slot]:
    """Deals cores and GPUs out; more slots than there are of either share them."""

    def own_cores(index: int) -> tuple[int, ...]:
        return tuple(cores[index::slots]) or (cores[index % len(cores)],)

    def own_gpu(index: int) -> tuple[str | None, int]:
        if not gpus:
            return None, 1
        mine = index % len(gpus)
        return gpus[mine], len(range(mine, slots, len(gpus)))

    return [Slot(own_cores(index), *own_gpu(index)) for index in range(slots)]
