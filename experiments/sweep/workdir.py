"""A sweep on disk. What is known of a sweep is what lies here; processes come and go.

DIR/sweep.json                      the manifest: the experiment, its budget and configuration, and
                                    every cell with its folder and how many seeds were asked for
DIR/stop                            the sweep was asked to end (`python -m experiments stop`)
DIR/cells/NAME-HASH/seedN/          one run: a cell trained with one seed
    config.json                     its configuration, of which HASH is made
    attempts/0001.json              one file a start: when, where, versions, git commit, how long
    lock                            its owner, while a process trains it (`experiments.sweep.lock`)
    progress.json                   where it stands
    metrics.jsonl  events/  checkpoints/    written by `shufflenet_jax.fit`
    result.json                     how it ended: done, diverged or failed
    output.log                      what its processes printed
    stall.txt                       where a process hung that was ended for it

The manifest is frozen: cells keep the configuration that they were planned with, whatever becomes
of the code. A sweep may come from someone else, so it is only ever read as JSON, and nothing in it
can name a place outside DIR.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import tables
from experiments.sweep import configuration as configs
from experiments.sweep.experiment import Cell, Experiment, matching
from experiments.sweep.run import Run
from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically


@dataclass(frozen=True)
class Planned:
    """A cell as the manifest has it.

    Attributes:
      cell: The cell.
      folder: Its directory's name.
      seeds: How many seeds were asked for; 0 if the cell was not.
    """

    cell: Cell
    folder: str
    seeds: int


@dataclass(frozen=True)
class Sweep:
    """An experiment under one configuration in one directory."""

    experiment: Experiment
    budget: str
    config: ConfigDict
    directory: Path
    planned: Mapping[str, Planned]

    @property
    def cells(self) -> list[Cell]:
        """Every cell, in the order of the table, as it was planned."""
        return [planned.cell for planned in self.planned.values()]

    def cell(self, name: str) -> Cell:
        """Returns a cell by name.

        Raises:
          InputError: There is none of that name.
        """
        return matching(self.cells, name)[0]

    def run(self, cell: Cell, seed: int) -> Run:
        """Returns a run, whether it was begun or not."""
        folder = self.planned[cell.name].folder
        return Run(cell, seed, self.directory / "cells" / folder / f"seed{seed}")

    def runs_of(self, cell: Cell) -> list[Run]:
        """Returns the runs of a cell that were asked for, by seed."""
        return [self.run(cell, seed) for seed in range(self.planned[cell.name].seeds)]

    def runs(self) -> list[Run]:
        """Returns all runs; a cell that was not asked for stands in with seed 0."""
        return [run for cell in self.cells for run in self.runs_of(cell) or [self.run(cell, 0)]]

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


def create(
    experiment: Experiment,
    budget: str,
    config: ConfigDict,
    directory: Path,
    *,
    cells: Sequence[Cell] | None = None,
    seeds: int = 1,
    dry: bool = False,
) -> Sweep:
    """Opens a directory for a sweep, new or begun before under the same configuration.

    Args:
      experiment: What is swept.
      budget: The setting that its configuration started from.
      config: The configuration.
      directory: The sweep's.
      cells: Those asked for now, beside what was asked for before; all if None.
      seeds: How many of each.
      dry: Write nothing.

    Raises:
      InputError: It cannot be written, or holds the results of another configuration.
    """
    wanted = {cell.name for cell in (experiment.cells if cells is None else cells)}
    manifest = {
        "experiment": experiment.name,
        "budget": budget,
        "config": (base := configs.identity(config)),
        "cells": {
            cell.name: {
                "row": cell.row,
                "column": cell.column,
                "paper_error": cell.paper_error,
                "folder": f"{cell.name}-{configs.digest(identity)}",
                "seeds": seeds if cell.name in wanted else 0,
                "config": configs.own(identity, base),
            }
            for cell, identity in configs.identities(config, experiment.cells)
        },
    }
    try:
        old = _manifest(directory)
        if old is not None and (directory / "cells").exists():
            _refuse_another(old, manifest, directory)
            _carry_over(old["cells"], manifest["cells"])
        if not dry:
            directory.mkdir(parents=True, exist_ok=True)
            if manifest != old:
                write_atomically(directory / "sweep.json", json.dumps(manifest, indent=1))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot write to workdir {directory}: {reason}") from None
    return Sweep(experiment, budget, config, directory, _planned(manifest, directory))


def open_sweep(directory: Path) -> Sweep:
    """Opens the directory of a sweep that was created.

    Raises:
      InputError: It holds none, or its manifest was changed.
    """
    manifest = _manifest(directory)
    if manifest is None:
        raise InputError(f"{directory} holds no sweep: start one with `run NAME --workdir`")
    experiment = tables.load(manifest["experiment"])
    config = experiment.get_config(manifest["budget"])
    configs.assign(config, _tuples(manifest["config"]))
    planned = _planned(manifest, directory)
    return Sweep(experiment, manifest["budget"], config, directory, planned)


def _planned(manifest: Mapping[str, Any], directory: Path) -> dict[str, Planned]:
    def planned(name: str, entry: Mapping[str, Any]) -> Planned:
        fields = {key: entry[key] for key in ("row", "column", "paper_error")}
        cell = Cell(name, overrides=_tuples(entry["config"]), **fields)
        path = directory / "sweep.json"
        if not re.fullmatch(r"\w[\w.+-]*", name):  # a place, and maybe from someone else
            raise InputError(f"{path}: {name!r} cannot be the name of a cell")
        identity = configs.whole(entry["config"], manifest["config"])
        if entry["folder"] != f"{name}-{configs.digest(identity)}":
            raise InputError(
                f"{path}: the configuration of {name} was changed after it was planned; "
                f"restore it, or choose another --workdir"
            )
        return Planned(cell, entry["folder"], int(entry["seeds"]))

    try:
        return {name: planned(name, entry) for name, entry in manifest["cells"].items()}
    except InputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _damaged(directory) from None


def _refuse_another(old: dict, new: dict, directory: Path) -> None:
    changes = configs.differences(old["config"], new["config"])
    if old["experiment"] != new["experiment"]:
        changes = [f"experiment: {old['experiment']!r}, now {new['experiment']!r}", *changes]
    else:
        for name in old["cells"].keys() & new["cells"].keys():
            pair = (each["cells"][name]["config"] for each in (old, new))
            changes += [f"{name}: {change}" for change in configs.differences(*pair)]
    if changes:
        raise InputError(
            f"{directory} holds results of another configuration ({'; '.join(changes)}): "
            f"choose another --workdir"
        )


def _carry_over(old: Mapping[str, dict], new: dict[str, dict]) -> None:
    """Keeps what was planned before, also cells that the experiment has no more."""
    for name, entry in old.items():
        new[name] = entry | {"seeds": max(entry["seeds"], new.get(name, entry)["seeds"])}


def _manifest(directory: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((directory / "sweep.json").read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        manifest = None
    expected = ("experiment", "budget", "config", "cells")
    if not isinstance(manifest, dict) or any(key not in manifest for key in expected):
        raise _damaged(directory)
    return manifest


def _damaged(directory: Path) -> InputError:
    path = directory / "sweep.json"
    return InputError(f"{path} is damaged or of another version: choose another --workdir")


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
