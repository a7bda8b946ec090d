"""The files of this folder that are made of its records, and the tables of the README.

A line ``<!-- NAME: ROWS -->`` in the README stands above the table of NAME with the rows that match
one of the globs ROWS, between which there is a comma.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from experiments import tables
from experiments.report import contents, table
from experiments.report.contents import Report
from experiments.tables.recorded import recalled
from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically

RESULTS = Path(__file__).parent
README = RESULTS.parents[1] / "README.md"


@dataclass(frozen=True)
class Committed:
    """A report of the records.

    Attributes:
      experiment: Of which table.
      budget, assignments: Its setting, as of ``report``.
      figure: Which of its figures is kept too, if any.
    """

    experiment: str
    budget: str
    assignments: tuple[str, ...]
    figure: str | None = None


_CIFAR10 = ("cifar10", ("data.name=folder:CIFAR-10 (JPEG copy)",))

REPORTS: Mapping[str, Committed] = {
    "table2-cifar10-jpeg": Committed("table2", *_CIFAR10),
    "table3-cifar10-jpeg": Committed("table3", *_CIFAR10, figure="differences"),
}
"""By the names of their files, without what says the form."""

_MARKED = re.compile(r"(<!-- (?P<name>[\w-]+): (?P<rows>.+?) -->\n\n?)(?:\|.*\n)+")


def make(*, figures: bool = True) -> dict[Path, str | bytes]:
    """Makes of the records what is not as they say; writes nothing.

    Args:
      figures: Look at figures too, which needs matplotlib. Of a figure that shows the right numbers
        it does not matter what else is in it.

    Raises:
      InputError: This is no checkout; or the README has a table of none of these reports.
    """
    if not README.exists():
        raise InputError(f"there is no {README.name} beside this code: results are of a checkout")
    made: dict[Path, str | bytes] = {}
    reports = {}
    for name, committed in REPORTS.items():
        with tempfile.TemporaryDirectory() as directory:
            reports[name] = _report(committed, Path(directory))
        made[RESULTS / f"{name}.md"] = f"{table.as_markdown(reports[name])}\n"
        if committed.figure and figures:
            made |= _figure(reports[name], committed.figure, RESULTS / f"{name}.png")
    made[README] = _with_tables(README.read_text(), reports)
    return {path: new for path, new in made.items() if new != _read(path, type(new))}


def write(made: Mapping[Path, str | bytes]) -> Iterator[Path]:
    """Writes what was made; yields the files."""
    for path, new in made.items():
        write_atomically(path, new)
        yield path


def named_in_readme() -> list[str]:
    """The reports of which the README has a table."""
    return [found["name"] for found in _MARKED.finditer(README.read_text())]


def _report(committed: Committed, directory: Path) -> Report:
    sweep = recalled(
        tables.load(committed.experiment),
        committed.budget,
        committed.assignments,
        RESULTS / "records",
        directory,
    )
    return contents.of_sweep(sweep, curves=True)


def _figure(report: Report, name: str, path: Path) -> dict[Path, bytes]:
    from experiments.report import drawing, figures

    (shown,) = (each for each in figures.drawings(report) if each.name == name)
    if path.exists() and shown.digest.encode() in path.read_bytes():
        return {}
    return {path: drawing.contents(shown, "png")}


def _with_tables(readme: str, reports: Mapping[str, Report]) -> str:
    def replaced(found: re.Match[str]) -> str:
        if found["name"] not in reports:
            raise InputError(
                f"the README has a table of {found['name']}, which no report is called"
            )
        globs = found["rows"].split(", ")
        made = table.results(
            reports[found["name"]], lambda row: any(fnmatchcase(row, glob) for glob in globs)
        )
        return f"{found[1]}{made}\n"

    return _MARKED.sub(replaced, readme)


def _read(path: Path, kind: type) -> str | bytes | None:
    if not path.exists():
        return None
    return path.read_text() if kind is str else path.read_bytes()
