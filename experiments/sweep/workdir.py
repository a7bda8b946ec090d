"""A sweep on disk. What is known of a sweep is what lies here; processes come and go.

DIR/sweep.json                      the manifest (`experiments.sweep.manifest`)
DIR/stop                            the sweep was asked to end (`python -m experiments stop`)
DIR/data/FINGERPRINT                what was found in class folders, so that runs need not look
DIR/cells/NAME-HASH/seedN/          one run: a cell trained with one seed
    config.json  data.json          its configuration, of which HASH is made, and its data
    network.json                    what `shufflenet_jax.load_trained` has to know
    attempts/0001.json              one file a start: when, where, versions, git commit, how long
    lock                            its owner, while a process trains it (`experiments.sweep.lock`)
    progress.json                   where it stands
    metrics.jsonl  events/  checkpoints/    written by `shufflenet_jax.fit`
    result.json                     how it ended: done, diverged or failed
    output.log                      what its processes printed
    stall.txt                       where a process hung that was ended for it

A sweep may come from someone else, so it is only ever read as JSON, nothing in it is imported, and
nothing in it can name a place outside DIR that is written to.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.sweep import settings as changeable
from experiments.sweep.claim import Claim
from experiments.sweep.experiment import Cell, matching
from experiments.sweep.identity import Values
from experiments.sweep.run import Run
from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically


@dataclass(frozen=True)
class Entry:
    """A cell as the manifest has it.

    Attributes:
      cell: The cell.
      folder: Its directory's name.
      seeds: How many seeds were asked for; 0 if the cell was not.
      values: Its whole identity.
      network: What `build.measure` says of its network; None where that was not asked.
    """

    cell: Cell
    folder: str
    seeds: int
    values: Values
    network: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Sweep:
    """An experiment under one configuration in one directory.

    Attributes:
      experiment: Its name.
      title: What stands above its table.
      budget: The setting that its configuration started from.
      base: The identity that all cells start from.
      settings: What may be another each time; of a sweep that was opened, what it was begun with.
      data: The identity of each data set that cells are trained on, by its name in their
        configuration (`shufflenet_jax.data.Found`).
      entries: Every cell by name, in the order of the table.
      claims, remarks, difference: Those of the `Experiment`.
      caveat: What the table can and cannot say.
      directory: Where all of it lies.
    """

    experiment: str
    title: str
    budget: str
    base: Values
    settings: Values
    data: Mapping[str, Mapping[str, Any]]
    entries: Mapping[str, Entry]
    directory: Path
    claims: tuple[Claim, ...] = ()
    remarks: tuple[str, ...] = ()
    difference: tuple[str, str] | None = None
    caveat: str = ""

    @property
    def cells(self) -> list[Cell]:
        """Every cell, in the order of the table, as it was planned."""
        return [entry.cell for entry in self.entries.values()]

    def cell(self, name: str) -> Cell:
        """Returns a cell by name.

        Raises:
          InputError: There is none of that name.
        """
        return matching(self.cells, name)[0]

    def with_settings(self, assignments: Iterable[str]) -> "Sweep":
        """Returns the sweep with other settings, as ``KEY=VALUE``; the rest are the manifest's.

        Raises:
          InputError: No such key, or one that is frozen.
        """
        settings = dict(self.settings)
        changeable.override(settings, assignments)
        return replace(self, settings=settings)

    def values_of(self, cell: Cell) -> dict[str, Any]:
        """The whole configuration of a cell: its identity, and the settings."""
        return {**self.settings, **self.entries[cell.name].values}

    def data_of(self, cell: Cell) -> Mapping[str, Any]:
        """The identity of a cell's data; empty if it is not known."""
        return self.data.get(self.entries[cell.name].values["data.name"], {})

    def listing(self, name: str) -> Path | None:
        """Where what was found in the class folders of a data set is kept; None if it is not known.

        Args:
          name: Of the data set.
        """
        fingerprint = str(self.data.get(name, {}).get("fingerprint", ""))
        if not re.fullmatch(r"\w+", fingerprint):  # a place, and maybe from someone else
            return None
        return self.directory / "data" / fingerprint

    def run(self, cell: Cell, seed: int) -> Run:
        """Returns a run, whether it was begun or not."""
        folder = self.entries[cell.name].folder
        return Run(cell, seed, self.directory / "cells" / folder / f"seed{seed}")

    def planned_run(self, cell: Cell, seed: int) -> Run:
        """Returns a run that was asked for.

        Raises:
          InputError: It was not, so that no report would know of it.
        """
        seeds = self.entries[cell.name].seeds
        if seed >= seeds:
            raise InputError(
                f"seed {seed} of {cell.name} was not asked for, but {seeds} seeds: say so with "
                f"`run NAME --seeds N`"
            )
        return self.run(cell, seed)

    def runs_of(self, cell: Cell) -> list[Run]:
        """Returns the runs of a cell that were asked for, by seed."""
        return [self.run(cell, seed) for seed in range(self.entries[cell.name].seeds)]

    def runs(self) -> list[Run]:
        """Returns all runs that were asked for."""
        return [run for cell in self.cells for run in self.runs_of(cell)]

    @property
    def is_stopping(self) -> bool:
        """Whether the sweep was asked to end."""
        return (self.directory / "stop").exists()

    def request_stop(self) -> None:
        """Asks every process of the sweep to save and end."""
        write_atomically(self.directory / "stop", "")

    def withdraw_stop(self) -> None:
        """Lets the sweep go on."""
        (self.directory / "stop").unlink(missing_ok=True)
