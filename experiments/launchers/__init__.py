"""What runs the commands of a sweep: processes of this machine, a Ray or a Slurm cluster.

An engine only runs commands. What came of each lies on disk (`experiments.sweep.workdir`), and what
is to be done about it is decided in one place for all engines (`experiments.sweep.launch`), so that
a sweep begun with one can be finished with another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PREEMPTED = 75
"""Exit status of a command that was asked to end and has saved (EX_TEMPFAIL)."""

HELD = 69
"""Exit status of a command whose run another live process trains (EX_UNAVAILABLE)."""


@dataclass(frozen=True)
class Command:
    """A process that trains one run.

    Attributes:
      name: Of the run, as a queue may list it: ``0.25x-g3-seed0``.
      argv: Program and arguments.
      environment: What is added to the environment, where that does not set it.
      log: File that receives what it prints; appended to. Its directory exists.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path


class Job(Protocol):
    """A command that was given to an engine."""

    def poll(self) -> int | None:
        """The exit status once it has ended; None while it waits or runs.

        It is -N if signal N ended it, -9 if its machine was lost, and -15 if someone cancelled it.
        """

    def stop(self) -> None:
        """Asks it to save and end (SIGTERM), or takes it out of the queue; does not wait."""

    def kill(self) -> None:
        """Ends it at once."""


class Engine(Protocol):
    """One way to run commands. It never tries one again.

    Attributes:
      slots: How many commands it takes at a time; None if it has a queue of its own.
      distributed: Whether several processes run each command together, as JAX finds by itself.
    """

    slots: int | None
    distributed: bool

    def submit(self, commands: Sequence[Command]) -> Sequence[Job]:
        """Starts commands, or queues them; returns a job for each."""

    def notes(self) -> list[str]:
        """What whoever starts a sweep with it may not expect, a line each."""

    def close(self) -> None:
        """Lets go of what it holds; no job is running any more."""
