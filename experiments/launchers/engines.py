"""The engines that there are: how each is made, and what a configuration can set of it."""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.launchers import Engine
from shufflenet_jax.errors import InputError


@dataclass(frozen=True)
class Kind:
    """One of them. Its code is imported when it is needed.

    Attributes:
      name: As the command line and the keys of a configuration have it.
      summary: What runs the commands, in a few words.
      place: Its class, as ``MODULE:CLASS``; it takes what can be set.
      takes_jobs: Whether it is told how many commands to take at a time (``slots``).
    """

    name: str
    summary: str
    place: str
    takes_jobs: bool = False

    @property
    def defaults(self) -> dict[str, Any]:
        """What a configuration can set of it, also where it is not installed."""
        taken = inspect.signature(self._class()).parameters.values()
        return {each.name: each.default for each in taken if each.name != "slots"}

    def make(self, values: Mapping[str, Any], jobs: int | None = None) -> Engine:
        """Makes an engine.

        Args:
          values: What is set of it; see `defaults`.
          jobs: Commands at a time, of an engine that can be told. None leaves it to the engine.

        Raises:
          InputError: It is not installed, or cannot do what is asked of it.
        """
        if self.takes_jobs:
            return self._class()(**values, slots=jobs)
        if jobs is not None:
            raise InputError(f"--jobs is for --launcher local: {self.name} has a queue of its own")
        return self._class()(**values)

    def _class(self) -> Any:
        module, _, name = self.place.partition(":")
        return getattr(importlib.import_module(module), name)


ENGINES = {
    each.name: each
    for each in (
        Kind("local", "processes of this machine", "experiments.launchers.local:Local", True),
        Kind("ray", "a Ray cluster", "experiments.launchers.ray:Ray"),
        Kind("slurm", "a Slurm cluster", "experiments.launchers.slurm:Slurm"),
    )
}
"""By name."""
