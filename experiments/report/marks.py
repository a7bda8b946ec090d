"""Marks on cells that were not made like the rest of their table: other data, another budget, other
code, versions or machines.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

from experiments.report.cells import STALE, CellReport, RunReport
from shufflenet_jax.generation import GENERATION

_MACHINE = ("processor", "device", "devices")


@dataclass(frozen=True)
class Mark:
    """A note on some cells.

    Attributes:
      letter: What stands at the cells.
      text: What sets them apart from the rest of the table.
      cells: Their names.
    """

    letter: str
    text: str
    cells: tuple[str, ...]


def marks(cells: Sequence[CellReport]) -> tuple[Mark, ...]:
    """Returns the marks of a table; none if all of its cells were made alike.

    What most runs have in common is the rule; a cell has a mark for what its own runs have
    otherwise. What a cell's name says already, as ``epochs=20`` in a grid, needs none.
    """
    made = {cell.name: [_made(cell, run) for run in _counted(cell)] for cell in cells}
    of_all = [facts for each in made.values() for facts in each]
    usual = {key: _most_common(facts.get(key) for facts in of_all) for key in _keys(of_all)}
    by_text: dict[str, list[str]] = defaultdict(list)
    for cell in cells:
        for text in _said(cell, made[cell.name], usual):
            by_text[text].append(cell.name)
    letters = _letters()
    return tuple(Mark(next(letters), text, tuple(names)) for text, names in by_text.items())


def short_commit(attempt: Mapping[str, Any]) -> str | None:
    """The commit of a process as reports show it; None where it is not known."""
    if not isinstance(commit := attempt.get("commit"), str):
        return None
    return f"{commit[:8]}{' with changes' if attempt.get('dirty') else ''}"


def _counted(cell: CellReport) -> list[RunReport]:
    return [run for run in cell.runs if run.status == "done"]


def made_of(run: RunReport) -> dict[str, str]:
    """With what a run was made, in words by what they are; several of one kind in one."""
    facts: dict[str, dict[str, None]] = defaultdict(dict)
    for attempt in run.attempts:
        changes = f" (SHA-256 {attempt['changes']})" if "changes" in attempt else ""
        facts["commit"][f"{short_commit(attempt) or 'that is not known'}{changes}"] = None
        versions = attempt.get("versions")
        for name, version in {
            "Python": attempt.get("python"),
            **(versions if isinstance(versions, Mapping) else {}),
            **{key: attempt.get(key) for key in _MACHINE},
            "own networks of SHA-256": _own_networks(attempt),
        }.items():
            if version is not None and name != "shufflenet-jax":  # which the commit says better
                facts[name][str(version)] = None
    return {name: " and ".join(values) for name, values in facts.items()}


def _made(cell: CellReport, run: RunReport) -> dict[str, str]:
    """Of what, and with what a run was made."""
    of_cell = {"data": cell.data, "epochs": cell.epochs, "image_size": cell.image_size}
    said = {
        key.replace("_", " "): str(value)
        for key, value in of_cell.items()
        if value is not None and f"{key}={value}" not in cell.name.split(",")
    }
    return said | made_of(run)


def _own_networks(attempt: Mapping[str, Any]) -> str | None:
    known = attempt.get("networks")
    return str(known.get("sha256"))[:8] if isinstance(known, Mapping) else None


def _keys(made: Sequence[Mapping[str, str]]) -> list[str]:
    return list(dict.fromkeys(key for facts in made for key in facts))


def _most_common(values: Iterator[str | None]) -> str | None:
    """The most common one that is known."""
    counts = Counter(value for value in values if value is not None)
    return counts.most_common(1)[0][0]


def _said(
    cell: CellReport, made: Sequence[Mapping[str, str]], usual: Mapping[str, str | None]
) -> Iterator[str]:
    if any(run.status == STALE for run in cell.runs):
        yield (
            "some of its runs are by code of an older generation, whose results differ: they are "
            "left out"
        )
    if any(run.generation != GENERATION for run in _counted(cell)):
        yield "by code of another generation than this code, which would make other results of it"
    others = [{key: value for key, value in facts.items() if value != usual[key]} for facts in made]
    if not any(others):
        return
    keys = [key for key in usual if any(key in each for each in others)]
    values = ", ".join(
        f"{key} {' or '.join(dict.fromkeys(each[key] for each in others if key in each))}"
        for key in keys
    )
    which = "" if all(others) else "some seeds: "
    yield f"{which}{values}; most of the table: {', '.join(f'{k} {usual[k]}' for k in keys)}"


def _letters() -> Iterator[str]:
    """a to z, then aa to zz, and so on."""
    prefixes = [""]
    while True:
        made = [prefix + letter for prefix in prefixes for letter in ascii_lowercase]
        yield from made
        prefixes = made
