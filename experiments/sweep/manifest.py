"""The manifest of a sweep, DIR/sweep.json: what was planned, frozen.

It has what a report says around the table, and every cell with its folder, its whole configuration,
the size of its network, and how many seeds were asked for. Cells keep the configuration that they
were planned with, whatever becomes of the code: a key that is newer has its default, and one that
this version does not have is named where it has to be used.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.sweep.claim import Claim
from experiments.sweep.experiment import Cell
from experiments.sweep.identity import Values, delta, differences, digest, merged
from experiments.sweep.settings import default_settings
from experiments.sweep.workdir import Entry, Sweep
from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically

_CELL_NAME = re.compile(r"\w[\w.+=,-]*")
"""What a cell may be called: its name is a part of its folder's."""


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
        if not _CELL_NAME.fullmatch(cell.name):
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
                "paper_mflops": entry.cell.paper_mflops,
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
            paper_error=_number(given["paper_error"]),
            paper_mflops=_number(given.get("paper_mflops")),
        )
        path = directory / "sweep.json"
        if not _CELL_NAME.fullmatch(name):  # a place, and maybe from someone else
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


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


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
