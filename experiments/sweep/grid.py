"""Cells of a grid: every combination of some values of some keys of the configuration."""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

from experiments.sweep.experiment import Cell
from shufflenet_jax.errors import InputError


def grid(
    axes: Mapping[str, Sequence[Any]],
    *,
    name: Callable[..., str] | None = None,
    row: Callable[..., str] | None = None,
    column: Callable[..., str] | None = None,
    paper_error: Callable[..., float | None] | None = None,
    paper_mflops: Callable[..., float | None] | None = None,
) -> tuple[Cell, ...]:
    """Returns a cell for every combination, the last axis fastest: it makes the table's columns.

    >>> cells = grid({"network.groups": (1, 3), "network.shuffle": (False, True)})
    >>> len(cells), cells[3].name, cells[3].row, cells[3].column
    (4, 'groups=3,shuffle=true', 'groups=3', 'shuffle=true')

    Args:
      axes: The values of each key.
      name, row, column: Name and place of a cell, given its values in the order of the axes. By
        default they are made of the axes' names, each by the last part of its key.
      paper_error, paper_mflops: The paper's error and millions of multiply-adds of a cell, given
        the same.

    Raises:
      InputError: There are no axes, an axis has no values, or two cells have one name.
    """
    if not axes:
        raise InputError("a grid needs an axis: --sweep.KEY=VALUE,VALUE")
    for key, values in axes.items():
        if not values:
            raise InputError(f"axis {key} has no values")
    labels = _labels(list(axes))

    def described(values: Sequence[Any]) -> list[str]:
        return [f"{label}={_text(value)}" for label, value in zip(labels, values, strict=True)]

    cells = [
        Cell(
            name=name(*values) if name else _as_name(",".join(described(values))),
            row=row(*values) if row else ", ".join(described(values)[:-1]) or "error",
            column=column(*values) if column else described(values)[-1],
            overrides=dict(zip(axes, values, strict=True)),
            paper_error=paper_error(*values) if paper_error else None,
            paper_mflops=paper_mflops(*values) if paper_mflops else None,
        )
        for values in product(*axes.values())
    ]
    seen: set[str] = set()
    for cell in cells:
        if cell.name in seen:
            raise InputError(
                f"two cells of the grid are called {cell.name}: a value is there twice"
            )
        seen.add(cell.name)
    return tuple(cells)


def _labels(keys: Sequence[str]) -> list[str]:
    """The shortest ends of dotted keys that tell them apart."""
    labels = []
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        labels.append(
            next(
                end
                for end in ends
                if sum(other == end or other.endswith(f".{end}") for other in keys) == 1
                or end == key
            )
        )
    return labels


def _text(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return "-".join(map(_text, value))
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _as_name(text: str) -> str:
    """Text as the name of a cell, which is that of a folder too."""
    return re.sub(r"[^\w.+=,-]", "_", text)
