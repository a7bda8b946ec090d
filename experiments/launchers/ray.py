"""Runs commands as tasks of a Ray cluster, which has a queue of its own.

What is connected to the cluster is a process of its own (`experiments.launchers.ray_driver`). Ray
ends a process whose cluster is lost, waits minutes for one that is not there, takes over SIGTERM,
and prints.
"""

import contextlib
import functools
import itertools
import math
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from experiments.launchers import Command, cuda
from experiments.launchers.ray_driver import GRACE_SECONDS
from shufflenet_jax.errors import InputError

CONNECT_SECONDS = 60.0
"""How long a cluster may take to answer, or to start."""

_ROOT = Path(__file__).absolute().parents[2]
"""Where a process imports this code from."""

# Not `-m`: Ray would let its workers import from the directory of this file, as if it were Ray.
_DRIVER = "from experiments.launchers.ray_driver import main; main()"


@dataclass(frozen=True)
class Ray:
    """Tasks of Ray's core, each of which runs a command as a process of the node it came to.

    A node has to see the directory of the sweep, and the project under the path it has here.

    Attributes:
      address: Of a cluster, as ``ray.init`` takes it; "auto" finds one that this machine is part
        of. Empty: one of this machine alone, which is there as long as the engine.
      cpus: What a run takes of a node.
      gpus: The same; a part of one is possible. A run that takes none sees none.
    """

    address: str = ""
    cpus: float = 1.0
    gpus: float = 0.0
    slots: ClassVar[int | None] = None
    distributed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.cpus < math.inf:
            raise InputError(f"ray.cpus must be above 0, not {self.cpus:g}")
        if not 0 <= self.gpus < math.inf:
            raise InputError(f"ray.gpus must be at least 0, not {self.gpus:g}")

    @functools.cached_property
    def _drivers(self) -> "list[_Driver]":
        return []

    def submit(self, commands: Sequence[Command]) -> "list[_Task]":
        """See `Engine.submit`. Connects at first, and again when the cluster was lost.

        Raises:
          InputError: Ray is missing, no cluster answers, or no node has what a run takes.
        """
        if not self._drivers or self._drivers[-1].is_lost:
            self.close()
            self._drivers.append(_Driver(self))
        return [self._drivers[-1].submit(command) for command in commands]

    def notes(self) -> list[str]:
        """See `Engine.notes`."""
        if self.gpus or not cuda.is_used_by_jax():
            return []
        return ["ray.gpus is 0: runs take no GPU and see none; --config.ray.gpus=1 gives each one"]

    def close(self) -> None:
        """See `Engine.close`. Ends the cluster if it was started here."""
        while self._drivers:
            self._drivers.pop().close()


class _Driver:
    """The process that is connected to the cluster, as the engine sees it."""

    def __init__(self, engine: Ray):
        self.is_lost = False
        self._lost = "the connection to the cluster was lost"
        self._ended: dict[int, tuple[int, str]] = {}
        self._numbers = itertools.count()
        self._pipe, there = multiprocessing.Pipe()
        arguments = [there.fileno(), engine.address, engine.cpus, engine.gpus]
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _DRIVER, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                cwd=_ROOT,  # and not where another `experiments` may lie
                start_new_session=True,  # Ctrl-C is for the engine's process
            )
        try:
            refusal = self._answer(engine.address)
        except BaseException:
            self._process.kill()
            self._process.wait()
            self._pipe.close()
            raise
        if refusal:
            self.close()
            raise InputError(refusal)

    def _answer(self, address: str) -> str:
        """Why the cluster cannot be used, in a line; empty if it can."""
        if not self._pipe.poll(CONNECT_SECONDS):
            what = f"at {address}" if address else "of this machine"
            raise InputError(f"no Ray cluster {what} answers within {CONNECT_SECONDS:g} seconds")
        try:
            return self._pipe.recv()
        except EOFError:
            return "the process that connects to Ray died"

    def submit(self, command: Command) -> "_Task":
        number = next(self._numbers)
        self.ask(
            "run",
            number,
            command.name,
            list(command.argv),
            dict(command.environment),
            os.getcwd(),
            os.fspath(command.log.absolute()),
        )
        return _Task(self, number, command.log)

    def ask(self, *request: object) -> None:
        try:
            self._pipe.send(request)
        except OSError:
            self.is_lost = True

    def ended(self, number: int) -> tuple[int, str] | None:
        """Exit status of a task that has ended, and what Ray says of it."""
        try:
            while not self.is_lost and self._pipe.poll():
                match self._pipe.recv():
                    case str(reason):
                        self._lost, self.is_lost = reason, True
                    case (ended, *outcome):
                        self._ended[ended] = tuple(outcome)
        except (EOFError, OSError):
            self.is_lost = True
        return self._ended.get(number, (-signal.SIGKILL, self._lost) if self.is_lost else None)

    def close(self) -> None:
        self._pipe.close()
        try:
            self._process.wait(2 * GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Task:
    """A command that was given to a driver."""

    def __init__(self, driver: _Driver, number: int, log: Path):
        self._driver, self._number, self._log = driver, number, log
        self._exit_status: int | None = None

    def poll(self) -> int | None:
        ended = self._driver.ended(self._number)
        if self._exit_status is None and ended is not None:
            self._exit_status, reason = ended
            if reason:
                with contextlib.suppress(OSError), self._log.open("a") as file:
                    file.write(f"Ray: {reason}\n")
        return self._exit_status

    def stop(self) -> None:
        self._driver.ask("stop", self._number)

    def kill(self) -> None:
        self._driver.ask("kill", self._number)
