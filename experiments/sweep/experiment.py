"""What an experiment is: cells to train, a table to put them in, and claims to judge.

Some train nothing: they count, and print a table at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from ml_collections import ConfigDict

from experiments.sweep.claim import Claim
from shufflenet_jax.errors import InputError


@dataclass(frozen=True)
class Cell:
    """One entry of a table: a configuration, trained once a seed.

    Attributes:
      name: What sets it apart from the other cells, as ``0.25x-g8-noshuffle``.
      row, column: Where it stands in the table.
      overrides: Its difference from the experiment's configuration, by dotted key.
      paper_error: The paper's top-1 error on ImageNet, in percent; None if it has none.
      paper_mflops: The paper's millions of multiply-adds at 224x224; None if it has none.
    """

    name: str
    row: str
    column: str
    overrides: Mapping[str, Any] = field(hash=False)
    paper_error: float | None = None
    paper_mflops: float | None = None


@dataclass(frozen=True)
class Experiment:
    """A table to train: one of the paper's, a user's own, or a grid.

    Attributes:
      name: As the command line knows it.
      title: What stands above the table.
      description: What more there is to say: claim, command, time, what to expect.
      get_config: Returns the configuration of a budget.
      cells: Every cell, in the order of the table.
      claims: What is said of the table, and judged by it.
      remarks: What sets its networks apart from the paper's.
      difference: Two columns whose difference the table shows too, as (minuend, subtrahend).
      is_of_the_paper: Whether it stands in this package, where tests see to it.
    """

    name: str
    title: str
    description: str
    get_config: Callable[[str], ConfigDict]
    cells: tuple[Cell, ...]
    claims: tuple[Claim, ...] = ()
    remarks: tuple[str, ...] = ()
    difference: tuple[str, str] | None = None
    is_of_the_paper: bool = False


def matching(cells: Sequence[Cell], pattern: str) -> list[Cell]:
    """Returns the cells whose names match a glob.

    Raises:
      InputError: None does.
    """
    found = [cell for cell in cells if fnmatchcase(cell.name, pattern)]
    if not found:
        every = ", ".join(cell.name for cell in cells)
        raise InputError(f"no cell matches {pattern!r}; there are {every}")
    return found


@dataclass(frozen=True)
class Printout:
    """An experiment that trains nothing, as its file in this package defines it.

    Attributes:
      name, title, description: As those of an `Experiment`.
      table: Returns what it prints, in Markdown.
      cells, claims, remarks: None.
    """

    name: str
    title: str
    description: str
    table: Callable[[], str]
    cells: ClassVar[tuple[Cell, ...]] = ()
    claims: ClassVar[tuple[Claim, ...]] = ()
    remarks: ClassVar[tuple[str, ...]] = ()
