"""What a report says, before it has a form: the model that every format renders.

All of it is read from the sweep's directory, which may be someone else's: nothing is imported for
it, and a run whose files are damaged is an entry that says so.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.report import cells as of_cells
from experiments.report.cells import IMAGE_SIZE, CellReport, difference
from experiments.report.claims import Judged, contrasts, verdicts
from experiments.report.marks import Mark, marks, short_commit
from experiments.sweep.claim import Claim, names_of
from experiments.sweep.workdir import Sweep
from shufflenet_jax import data

LOSSY = " (JPEG copy)"
"""How the name of a folder ends that holds a copy of images which has lost something."""


@dataclass(frozen=True)
class RowDifference:
    """The difference of two columns in one row.

    Attributes:
      row: The row.
      minuend, subtrahend: Names of the cells.
      mean: Of ours, paired by seed, in percentage points; None if no seed has both.
      half_width: Half of its interval of 95%: over seeds, or of one seed over test images.
      n: Seeds that both have.
      paper: The paper's.
    """

    row: str
    minuend: str
    subtrahend: str
    mean: float | None
    half_width: float | None
    n: int
    paper: float | None


@dataclass(frozen=True)
class JudgedClaim:
    """A claim of the paper.

    Attributes:
      claim: What it says.
      verdict: "holds", "does not" or "undecided".
      contrasts: Those of its contrasts that are measured.
    """

    claim: str
    verdict: str
    contrasts: tuple[Judged, ...]


@dataclass(frozen=True)
class Made:
    """How many runs were made in one place, and with what, in words."""

    runs: int
    place: str


@dataclass(frozen=True)
class Report:
    """Everything that a report says.

    Attributes:
      experiment, title: Of the `Experiment`.
      data: What its cells are trained on.
      caption: What the numbers are: of which data, how long trained, how many seeds.
      caption_of_intervals: The same where means stand with their intervals, and not their spread.
      budget_note: In which ways they are not the paper's setting; empty if in none.
      seeds: How many a cell, as ``3`` or ``2 to 5``.
      image_size: What all cells have in common; None if they do not.
      cells: Every cell, in the order of the table.
      columns_of_difference: Two columns whose difference the table shows too, if any.
      differences: That difference, of each row that has both.
      made: Where and with what its runs were made.
      unequal: In which rows the networks do not cost the same; empty if in none.
      marks: On cells that were not made as the rest.
      remarks: What sets its networks apart from the paper's.
      claims: What is said of the table, judged.
      contrasts: What claims are made of, one by one, as far as they are measured.
      caveat: What the table can and cannot say.
    """

    experiment: str
    title: str
    data: str
    caption: str
    caption_of_intervals: str
    budget_note: str
    seeds: str
    image_size: Any
    cells: tuple[CellReport, ...]
    columns_of_difference: tuple[str, str] | None
    differences: tuple[RowDifference, ...]
    made: tuple[Made, ...]
    unequal: str
    marks: tuple[Mark, ...]
    remarks: tuple[str, ...]
    claims: tuple[JudgedClaim, ...]
    contrasts: tuple[Judged, ...]
    caveat: str

    @property
    def rows(self) -> list[str]:
        """The rows of the table, in order."""
        return list(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def columns(self) -> list[str]:
        """The columns of the table, in order."""
        return list(dict.fromkeys(cell.column for cell in self.cells))

    @property
    def table(self) -> dict[str, dict[str, CellReport]]:
        """The cells by row and column."""
        found: dict[str, dict[str, CellReport]] = {row: {} for row in self.rows}
        for cell in self.cells:
            found[cell.row][cell.column] = cell
        return found

    @property
    def has_paper(self) -> bool:
        """Whether the paper has an error of some cell."""
        return any(cell.paper_error is not None for cell in self.cells)

    @property
    def marks_of(self) -> dict[str, list[str]]:
        """The letters at each cell that has some, by its name."""
        found: dict[str, list[str]] = {}
        for mark in self.marks:
            for name in mark.cells:
                found.setdefault(name, []).append(mark.letter)
        return found

    def paper_of(self, contrast: Mapping[str, float]) -> float | None:
        """A weighted sum of the paper's errors; None if it lacks one."""
        papers = {cell.name: cell.paper_error for cell in self.cells}
        terms = [(papers.get(name), weight) for name, weight in contrast.items()]
        if any(value is None for value, _ in terms):
            return None
        return sum(value * weight for value, weight in terms if value is not None)


def of_sweep(sweep: Sweep, curves: bool = False) -> Report:
    """Reads what a report of a sweep says.

    Args:
      sweep: The sweep.
      curves: Read the learning curves too, which takes longer.
    """
    cells = of_cells.of_sweep(sweep, curves)
    errors = {cell.name: cell.by_seed for cell in cells}
    judged = contrasts(sweep.claims, errors)
    counts = {cell.n for cell in cells if cell.seeds} or {0}
    seeds = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(max(counts))
    has_paper = any(cell.paper_error is not None for cell in cells)
    data_said = ", ".join(dict.fromkeys(cell.data for cell in cells))
    return Report(
        experiment=sweep.experiment,
        title=sweep.title,
        data=data_said,
        caption=_caption(
            sweep,
            data_said,
            seeds,
            "; in brackets the paper's, on ImageNet" if has_paper else "",
            spread="standard deviation",
        ),
        caption_of_intervals=_caption(
            sweep,
            data_said,
            seeds,
            "; with it the paper's, on ImageNet" if has_paper else "",
            spread="half of its interval of 95%",
        ),
        budget_note=_budget_note(sweep, data_said) if has_paper else "",
        seeds=seeds,
        image_size=_common(sweep, IMAGE_SIZE),
        cells=cells,
        columns_of_difference=sweep.difference or None,
        differences=tuple(_differences(sweep, cells)),
        made=_made(cells),
        unequal=_unequal(cells) if has_paper else "",
        marks=marks(cells),
        remarks=sweep.remarks,
        claims=tuple(
            JudgedClaim(claim.text, verdict, tuple(_of_claim(claim, judged)))
            for claim, verdict in zip(sweep.claims, verdicts(sweep.claims, errors), strict=True)
        ),
        contrasts=tuple(judged),
        caveat=sweep.caveat,
    )


def weighted(contrast: Mapping[str, float]) -> str:
    """A sum of cells, as ``a - b``."""
    said = []
    for name, weight in sorted(contrast.items(), key=lambda each: each[1] < 0):
        times = "" if abs(weight) == 1 else f"{abs(weight):g} "
        said.append(f"{'-' if weight < 0 else '+'} {times}{name}")
    return " ".join(said).removeprefix("+ ")


def _of_claim(claim: Claim, judged: Sequence[Judged]) -> list[Judged]:
    own = [
        {name: weight for term, weight in contrast.items() for name in names_of(term)}
        for contrast in claim.contrasts
        if all(isinstance(term, str) for term in contrast)
    ]
    return [each for each in judged if each.contrast in own]


def _caption(sweep: Sweep, data_said: str, seeds: str, papers: str, spread: str) -> str:
    said = [f"Top-1 error in percent on {data_said}"]
    for key, unit in (("recipe.epochs", "{} epochs"), (IMAGE_SIZE, "{0}x{0}")):
        if (value := _common(sweep, key)) is not None:
            said.append(unit.format(value))
    said.append(f"n = {seeds} (mean ± {spread} over seeds)")
    paired = ""
    if sweep.difference:
        paired = (
            " Differences are paired by seed, ± half of their interval of 95%; that of one seed is "
            "over test images, and says nothing of other seeds."
        )
    return f"{', '.join(said)}{papers}.{paired}"


_PAPERS = {"recipe.epochs": (240, "{} of 240 epochs"), IMAGE_SIZE: (224, "{0}x{0} of 224x224")}


def _budget_note(sweep: Sweep, data_said: str) -> str:
    said = [] if data_said.startswith("imagenet2012") else [f"{data_said} in place of ImageNet"]
    for key, (papers, unit) in _PAPERS.items():
        value = _common(sweep, key)
        if value is not None and value != papers:
            said.append(unit.format(value))
    note = f"A reduced budget: {', '.join(said)}." if said else ""
    if any(name.endswith(LOSSY) for name in _data_labels(sweep)):
        note += " The images are a lossy copy."
    return note.strip()


def _data_labels(sweep: Sweep) -> list[str]:
    return [data.label(entry.values["data.name"]) for entry in sweep.entries.values()]


def _common(sweep: Sweep, key: str) -> Any:
    """The value of a key that all cells share; None if they do not, or have none."""
    values = {json.dumps(entry.values.get(key)) for entry in sweep.entries.values()}
    return json.loads(values.pop()) if len(values) == 1 else None


def _differences(sweep: Sweep, cells: Sequence[CellReport]) -> list[RowDifference]:
    if not sweep.difference:
        return []
    by_place = {(cell.row, cell.column): cell for cell in cells}
    rows = dict.fromkeys(cell.row for cell in cells)
    pairs = [tuple(by_place.get((row, column)) for column in sweep.difference) for row in rows]
    return [
        _difference(sweep, minuend, subtrahend)
        for minuend, subtrahend in pairs
        if minuend is not None and subtrahend is not None
    ]


def _difference(sweep: Sweep, minuend: CellReport, subtrahend: CellReport) -> RowDifference:
    paper = None
    if minuend.paper_error is not None and subtrahend.paper_error is not None:
        paper = minuend.paper_error - subtrahend.paper_error
    ours = difference((sweep, minuend), (sweep, subtrahend))
    return RowDifference(
        row=minuend.row,
        minuend=minuend.name,
        subtrahend=subtrahend.name,
        mean=None if ours is None else ours.mean,
        half_width=None if ours is None else ours.half_width,
        n=len(ours.seeds) if ours else 0,
        paper=paper,
    )


def _made(cells: Sequence[CellReport]) -> tuple[Made, ...]:
    """Where and with what the runs were trained, each difference by itself."""
    places = Counter(
        place(run.attempts[-1] if run.attempts else {})
        for cell in cells
        for run in cell.runs
        if run.status == "done"
    )
    return tuple(Made(count, where) for where, count in places.items())


def place(attempt: Mapping[str, Any]) -> str:
    """Where and with what a process trained; what its record lacks is left out."""
    versions = attempt.get("versions")
    said = [
        f"{attempt.get('processor', 'a machine that is not recorded')} "
        f"({attempt.get('device', '?')}, cores per run: {attempt.get('cores', '?')})",
        f"Python {attempt.get('python', '?')}",
    ]
    if isinstance(versions, dict):
        said += [f"{name} {version}" for name, version in versions.items()]
    if (commit := short_commit(attempt)) is not None:
        said.append(f"commit {commit}")
    return ", ".join(said)


_ALIKE = 1.05
"""Most that the networks of a row may cost, as a multiple of the cheapest, to be of equal cost."""


def _unequal(cells: Sequence[CellReport]) -> str:
    """Says in which rows the networks do not cost the same at the size that they were trained at.

    The paper compares the columns of a row at equal cost, at 224x224.
    """
    rows: dict[str, list[float]] = {}
    for cell in cells:
        if cell.macs is not None:
            rows.setdefault(cell.row, []).append(cell.macs / 1e6)
    unequal = [
        f"{row} {min(macs):.2f} to {max(macs):.2f} (+{100 * (max(macs) / min(macs) - 1):.0f}%)"
        for row, macs in rows.items()
        if max(macs) > _ALIKE * min(macs)
    ]
    if not unequal:
        return ""
    return (
        "Networks of a row do not cost the same at the size that they were trained at, in millions "
        f"of multiply-adds: {'; '.join(unequal)}."
    )
