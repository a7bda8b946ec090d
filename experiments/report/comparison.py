"""Sweeps side by side: in what they differ, and by how much their errors do."""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.report import cells as of_cells
from experiments.report.cells import CellReport, difference
from experiments.report.marks import made_of
from experiments.sweep.identity import complete
from experiments.sweep.workdir import Sweep
from shufflenet_jax.errors import InputError


@dataclass(frozen=True)
class Differing:
    """Something that is not the same in all sweeps.

    Attributes:
      kind: "configuration", "data" or "code and machine".
      what: The key, or what it is.
      values: In words, one a sweep.
      cells: Of which cells; empty if of all that they have in common.
    """

    kind: str
    what: str
    values: tuple[str, ...]
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Against:
    """The difference of a cell from the same cell of the first sweep.

    Attributes:
      mean: Over the seeds that both have, in percentage points; None if there is none.
      half_width: Half of its interval of 95%: over seeds, or of one seed over test images.
      n: How many seeds both have.
    """

    mean: float | None
    half_width: float | None
    n: int


@dataclass(frozen=True)
class Row:
    """A cell that all sweeps have.

    Attributes:
      cell: Its name.
      sides: The cell in each sweep.
      against: Each but the first, less the first.
    """

    cell: str
    sides: tuple[CellReport, ...]
    against: tuple[Against, ...]


@dataclass(frozen=True)
class Comparison:
    """Everything that a comparison says.

    Attributes:
      labels: What the sweeps are called: by their directories.
      titles: What stands above their tables.
      differing: In what they differ.
      only: Cells that not all sweeps have, by label.
      rows: Those that all have.
    """

    labels: tuple[str, ...]
    titles: tuple[str, ...]
    differing: tuple[Differing, ...]
    only: Mapping[str, tuple[str, ...]]
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """Which sweeps are compared."""
        return f"Comparison of {', '.join(self.labels[:-1])} and {self.labels[-1]}"

    @property
    def headings(self) -> list[str]:
        """Of the columns of differences."""
        return [f"{label} - {self.labels[0]}" for label in self.labels[1:]]


NOTE = (
    "Top-1 error in percent, means ± half of their interval of 95% over seeds. Differences are "
    "paired by seed, ± half of their interval of 95%, each by itself; that of one seed is over "
    "test images, and says nothing of other seeds."
)


def compare(sweeps: Sequence[Sweep]) -> Comparison:
    """Compares sweeps by the names of their cells.

    Raises:
      InputError: There are fewer than two, or no cell is in all of them.
    """
    if len(sweeps) < 2:
        raise InputError("a comparison is of two directories or more")
    cells = [{cell.name: cell for cell in of_cells.of_sweep(sweep)} for sweep in sweeps]
    shared = [name for name in cells[0] if all(name in each for each in cells)]
    if not shared:
        names = ["; ".join(list(each)[:5]) for each in cells]
        raise InputError(f"no cell is in all of them: {' | '.join(names)}")
    labels = _labels([sweep.directory for sweep in sweeps])
    return Comparison(
        labels=labels,
        titles=tuple(sweep.title for sweep in sweeps),
        differing=tuple(_differing(sweeps, cells, shared)),
        only={
            label: tuple(name for name in each if name not in shared)
            for label, each in zip(labels, cells, strict=True)
        },
        rows=tuple(_row(sweeps, [each[name] for each in cells]) for name in shared),
    )


def as_data(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain data."""
    fields = ("name", "status", "n", "errors", "errors_of_seeds", "error_mean", "error_half_width")
    return {
        "labels": list(comparison.labels),
        "titles": list(comparison.titles),
        "differing": [dataclasses.asdict(each) for each in comparison.differing],
        "only": {label: list(names) for label, names in comparison.only.items()},
        "cells": [
            {
                "cell": row.cell,
                "sides": [{key: getattr(side, key) for key in fields} for side in row.sides],
                "against_the_first": [dataclasses.asdict(each) for each in row.against],
            }
            for row in comparison.rows
        ],
    }


def _labels(directories: Sequence[Path]) -> tuple[str, ...]:
    """The shortest ends of paths that tell them apart; no more of them is anybody's business."""
    parts = [directory.absolute().parts for directory in directories]
    for count in range(1, max(map(len, parts))):
        labels = ["/".join(each[-count:]) for each in parts]
        if len(set(labels)) == len(labels):
            return tuple(labels)
    raise InputError("a directory is there twice")


def _differing(
    sweeps: Sequence[Sweep], cells: Sequence[Mapping[str, CellReport]], shared: Sequence[str]
) -> Iterator[Differing]:
    found: dict[tuple[str, str, tuple[str, ...]], list[str]] = defaultdict(list)
    for name in shared:
        for kind, key, values in _of_cell(sweeps, [each[name] for each in cells]):
            found[kind, key, values].append(name)
    for (kind, key, values), names in found.items():
        yield Differing(kind, key, values, () if len(names) == len(shared) else tuple(names))


def _of_cell(
    sweeps: Sequence[Sweep], sides: Sequence[CellReport]
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """In what one cell differs from sweep to sweep."""
    values = [side.values for side in sides]
    if len({frozenset(each) for each in values}) > 1:  # some are older than a key
        values = [complete(each) for each in values]
    labelled = [{**each, "data.name": side.data} for each, side in zip(values, sides, strict=True)]
    yield from (("configuration", *each) for each in _unlike(labelled))
    identities = [
        {key: value for key, value in sweep.data_of(sweep.cell(side.name)).items() if key != "name"}
        for sweep, side in zip(sweeps, sides, strict=True)
    ]
    if all(identities):
        yield from (("data", *each) for each in _unlike(identities))
    made = [_made(side) for side in sides]
    if all(made):
        yield from (("code and machine", *each) for each in _unlike(made))


def _made(cell: CellReport) -> dict[str, str]:
    """With what the runs of a cell were made."""
    facts: dict[str, dict[str, None]] = defaultdict(dict)
    for run in cell.runs:
        if run.status == "done":
            for key, value in made_of(run).items():
                facts[key][value] = None
    return {key: " or ".join(values) for key, values in facts.items()}


def _unlike(values: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for key in dict.fromkeys(key for each in values for key in each):
        said = tuple(
            each[key] if isinstance(each.get(key), str) else json.dumps(each.get(key))
            for each in values
        )
        if len(set(said)) > 1:
            yield key, tuple("-" if each == "null" else each for each in said)


def _row(sweeps: Sequence[Sweep], sides: Sequence[CellReport]) -> Row:
    first, *others = zip(sweeps, sides, strict=True)
    return Row(sides[0].name, tuple(sides), tuple(_against(first, other) for other in others))


def _against(first: tuple[Sweep, CellReport], other: tuple[Sweep, CellReport]) -> Against:
    found = difference(other, first)
    if found is None:
        return Against(None, None, 0)
    return Against(found.mean, found.half_width, len(found.seeds))
