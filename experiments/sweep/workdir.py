"""A sweep on disk. What is known of a sweep is what lies here; processes come and go.

DIR/sweep.json                      the manifest: what a report says around the table, and every
                                    cell with its folder, its frozen configuration, the size of its
                                    network, and how many seeds were asked for
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

The manifest is frozen: cells keep the configuration that they were planned with, whatever becomes
of the code. A sweep may come from someone else, so it is only ever read as JSON, nothing in it is
imported, and nothing in it can name a place outside DIR that is written to.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.sweep import configuration as configs
from experiments.sweep.budgets import default_settings
from experiments.sweep.claim import Claim
from experiments.sweep.experiment import Cell, matching
from experiments.sweep.identity import Values, delta, differences, digest, merged
from experiments.sweep.run import Run
from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically

NAME = re.compile(r"\w[\w.+=,-]*")
"""What a cell may be called: its name is a part of its folder's."""


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
        configs.override_settings(settings, assignments)
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


def entries(
    cells: Iterable[tuple[Cell, Values]],
    wanted: Iterable[str],
    seeds: int,
    networks: Mapping[str, Mapping[str, Any]],
) -> dict[str, Entry]:
    """Plans cells.

    Args:
      cells: Each with its identity.
      wanted: The names of those that are asked for.
      seeds: How many of each.
      networks: What is known of the networks of some, by name.

    Raises:
      InputError: A cell's name cannot be a folder's, or two cells have one.
    """
    wanted, planned = set(wanted), {}
    for cell, values in cells:
        if not NAME.fullmatch(cell.name):
            raise InputError(
                f"{cell.name!r} cannot be the name of a cell: letters, digits and _ . + = , -"
            )
        if cell.name in planned:
            raise InputError(f"two cells are called {cell.name}")
        planned[cell.name] = Entry(
            cell,
            folder=f"{cell.name}-{digest(values)}",
            seeds=seeds if cell.name in wanted else 0,
            values=values,
            network=networks.get(cell.name),
        )
    return planned


def begin(sweep: Sweep, *, dry: bool = False) -> Sweep:
    """Begins a sweep in its directory, or goes on with one of the same configuration.

    Args:
      sweep: As it is asked for now.
      dry: Write nothing.

    Returns:
      The sweep with what was asked for before, also cells that the experiment has no more.

    Raises:
      InputError: The directory cannot be written, or holds results of another configuration.
    """
    directory = sweep.directory
    try:
        before = begun(directory)
        if before is not None:
            _refuse_another(before, sweep)
            sweep = _with_earlier(before, sweep)
        new = _as_data(sweep)
        if not dry and new != _manifest(directory):
            directory.mkdir(parents=True, exist_ok=True)
            write_atomically(directory / "sweep.json", json.dumps(new, indent=1))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot write to workdir {directory}: {reason}") from None
    return sweep


def begun(directory: Path) -> Sweep | None:
    """The sweep of a directory if a run of it was begun, which freezes it; else None.

    Raises:
      InputError: Its manifest was changed.
    """
    manifest = _manifest(directory) if (directory / "cells").exists() else None
    return None if manifest is None else _parsed(manifest, directory)


def open_sweep(directory: Path) -> Sweep:
    """Opens the directory of a sweep that was begun; nothing but JSON is read.

    Raises:
      InputError: It holds none, or its manifest was changed.
    """
    manifest = _manifest(directory)
    if manifest is None:
        raise InputError(f"{directory} holds no sweep: start one with `run NAME --workdir`")
    return _parsed(manifest, directory)


def _as_data(sweep: Sweep) -> dict[str, Any]:
    """The manifest."""
    return {
        "experiment": sweep.experiment,
        "title": sweep.title,
        "budget": sweep.budget,
        "data": {name: dict(identity) for name, identity in sweep.data.items()},
        "claims": [claim.as_data() for claim in sweep.claims],
        "remarks": list(sweep.remarks),
        "difference": sweep.difference and list(sweep.difference),
        "caveat": sweep.caveat,
        "config": dict(sweep.base),
        "settings": dict(sweep.settings),
        "cells": {
            name: {
                "row": entry.cell.row,
                "column": entry.cell.column,
                "paper_error": entry.cell.paper_error,
                "folder": entry.folder,
                "seeds": entry.seeds,
                "network": entry.network and dict(entry.network),
                "config": delta(entry.values, sweep.base),
            }
            for name, entry in sweep.entries.items()
        },
    }


def _parsed(manifest: Mapping[str, Any], directory: Path) -> Sweep:
    """The sweep of a manifest, also of one that was written before it had all keys."""

    def entry(name: str, given: Mapping[str, Any]) -> Entry:
        cell = Cell(
            name,
            row=str(given["row"]),
            column=str(given["column"]),
            overrides=dict(given["config"]),
            paper_error=None if given["paper_error"] is None else float(given["paper_error"]),
        )
        path = directory / "sweep.json"
        if not NAME.fullmatch(name):  # a place, and maybe from someone else
            raise InputError(f"{path}: {name!r} cannot be the name of a cell")
        values = merged(given["config"], manifest["config"])
        if given["folder"] != f"{name}-{digest(values)}":
            raise InputError(
                f"{path}: the configuration of {name} was changed after it was planned; "
                f"restore it, or choose another --workdir"
            )
        if not {"data.name", "network.name"} <= values.keys():
            raise _damaged(directory)
        return Entry(
            cell, given["folder"], int(given["seeds"]), values, _counts(given.get("network"))
        )

    difference = manifest.get("difference")
    try:
        if not manifest["cells"]:
            raise _damaged(directory)
        return Sweep(
            experiment=str(manifest["experiment"]),
            title=str(manifest.get("title") or manifest["experiment"]),
            budget=str(manifest["budget"]),
            base=dict(manifest["config"]),
            settings=default_settings() | _known_settings(manifest.get("settings") or {}),
            data={name: dict(each) for name, each in (manifest.get("data") or {}).items()},
            entries={name: entry(name, each) for name, each in manifest["cells"].items()},
            directory=directory,
            claims=tuple(map(Claim.from_data, manifest.get("claims") or ())),
            remarks=tuple(map(str, manifest.get("remarks") or ())),
            difference=difference and (str(difference[0]), str(difference[1])),
            caveat=str(manifest.get("caveat") or ""),
        )
    except InputError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise _damaged(directory) from None


def _counts(network: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a manifest says of a network; None if it says nothing.

    Raises:
      ValueError, KeyError, TypeError: It is damaged.
    """
    if network is None:
        return None
    counts = {key: int(network[key]) for key in ("macs", "macs_without_head", "params")}
    return {"widths": list(map(int, network["widths"])), **counts}


def _known_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that this version has; others change no result."""
    known = default_settings()
    return {
        key: value
        for key, value in settings.items()
        if key in known and isinstance(value, type(known[key]))
    }


def _refuse_another(old: Sweep, new: Sweep) -> None:
    changes = differences(old.base, new.base)
    if old.experiment != new.experiment:
        changes = [f"experiment: {old.experiment!r}, now {new.experiment!r}", *changes]
    else:
        for name in old.entries.keys() & new.entries.keys():
            before, now = (each.entries[name].values for each in (old, new))
            own = [each for each in differences(before, now) if each not in changes]
            changes += [f"{name}: {each}" for each in own]
    if changes:
        raise InputError(
            f"{new.directory} holds results of another configuration ({'; '.join(changes)}): "
            f"choose another --workdir"
        )
    for name in old.data.keys() & new.data.keys():
        refuse_other_data(old.data[name], new.data[name])


def refuse_other_data(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuses data that are not those of a sweep.

    Args:
      old: Their identity as it was planned; empty if that is not known.
      new: As it was found.

    Raises:
      InputError: They differ; what in is named.
    """
    changes = [
        f"{key} {old[key]!r}, now {new.get(key)!r}"
        for key in old
        if key != "name" and old[key] != new.get(key)
    ]
    if changes:
        raise InputError(
            f"{new.get('name')} has changed since the sweep was planned ({'; '.join(changes)}): "
            f"restore it, or choose another --workdir"
        )


def _with_earlier(old: Sweep, new: Sweep) -> Sweep:
    """Adds to what is asked for now what was asked for before."""
    joined = dict(new.entries)
    for name, before in old.entries.items():
        now = new.entries.get(name, before)
        joined[name] = replace(
            before, seeds=max(before.seeds, now.seeds), network=before.network or now.network
        )
    return replace(new, base=old.base, data={**new.data, **old.data}, entries=joined)


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
