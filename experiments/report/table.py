"""A report as Markdown: the table in the paper's shape, ours beside the paper's."""

from collections.abc import Callable, Mapping, Sequence

from experiments.report import markdown
from experiments.report.cells import CellReport
from experiments.report.claims import Judged
from experiments.report.contents import JudgedClaim, Report, RowDifference, weighted
from experiments.report.marks import Mark


def as_markdown(report: Report) -> str:
    """The table in the paper's shape, the networks' real sizes, and the claims."""
    parts = [
        f"## {report.title}",
        report.caption,
        results(report),
        "\n".join(f"{each.runs} runs trained on {each.place}." for each in report.made),
        _marks(report.marks),
        _sizes(report),
        report.unequal,
        *report.remarks,
    ]
    if report.claims:
        parts += [
            "Claims of the paper:" if report.has_paper else "Claims:",
            "\n".join(f"* {each.claim} **{verdict(each, report)}**" for each in report.claims),
            _contrasts(report.contrasts),
        ]
    return "\n\n".join(part for part in [*parts, report.caveat] if part)


def results(report: Report, is_wanted: Callable[[str], bool] = lambda row: True) -> str:
    """The table in the paper's shape.

    Args:
      report: The report.
      is_wanted: Which rows, by their names.
    """
    columns, marked = report.columns, report.marks_of
    pair = report.columns_of_difference
    differences = {each.row: each for each in report.differences}
    table = markdown.table("model", *columns, *([" - ".join(pair)] if pair else []))
    for row, cells in report.table.items():
        if not is_wanted(row):
            continue
        entries = [_entry(cells.get(column), marked) for column in columns]
        if pair:
            entries.append(difference(differences.get(row)))
        table.add_row(row, *entries)
    return markdown.render(table)


def verdict(claim: JudgedClaim, report: Report) -> str:
    """A verdict in words."""
    if claim.verdict == "undecided":
        return f"undecided at n = {report.seeds}"
    return claim.verdict


def ours(cell: CellReport) -> str:
    """What was measured of a cell, or how it stands."""
    if not cell.errors:
        return cell.status
    spread = "" if cell.error_std is None else f" ± {cell.error_std:.2f}"
    some = f" ({cell.n} of {cell.seeds} seeds, others {cell.status})"
    return f"{cell.error_mean:.2f}{spread}{'' if cell.status == 'done' else some}"


def difference(each: RowDifference | None) -> str:
    """A difference with its interval, and the paper's."""
    if each is None:
        return "-"
    paper = "" if each.paper is None else f"[{each.paper:.1f}]"
    if each.mean is None:
        return paper or "-"
    interval = "" if each.half_width is None else f" ± {each.half_width:.2f}"
    return f"{each.mean:+.2f}{interval} {paper}".rstrip()


def sizes(cell: CellReport) -> list[str]:
    """Channels, millions of multiply-adds with and without the classifier, and parameters."""
    if cell.macs is None or cell.macs_without_head is None:
        return ["-", "-", "-", "-"]
    widths = "/".join(map(str, cell.widths or ())) or "-"
    macs = [f"{each / 1e6:.2f}" for each in (cell.macs, cell.macs_without_head)]
    return [widths, *macs, f"{cell.params:,}"]


def size_headings(report: Report) -> list[str]:
    """What `sizes` are."""
    at = f" at {report.image_size}" if report.image_size else ""
    return ["conv1 and stages", f"MACs{at}, M", "without classifier, M", "parameters"]


def contrast_row(each: Judged) -> list[str]:
    """A contrast that was judged: what it is of, seeds, points, p and its verdict by itself."""
    return [
        weighted(each.contrast),
        str(each.seeds),
        f"{each.mean:+.2f} ± {each.half_width:.2f}",
        f"{each.p:.2g}",
        each.verdict,
    ]


CONTRAST_HEADINGS = ["above zero, if its claim is true", "seeds", "points", "p", "by itself"]

CONTRAST_NOTE = (
    "Paired by seed, ± half of the interval of 95%; p is two-sided and corrected for all rows by "
    "Holm's procedure."
)


def _entry(cell: CellReport | None, marked: Mapping[str, Sequence[str]]) -> str:
    if cell is None:  # nor has the paper one
        return "-"
    paper = "" if cell.paper_error is None else f" [{cell.paper_error:.1f}]"
    letters = f" ({', '.join(marked[cell.name])})" if cell.name in marked else ""
    return f"{ours(cell)}{paper}{letters}"


def _marks(marks: Sequence[Mark]) -> str:
    return "\n".join(f"* ({mark.letter}) {mark.text}" for mark in marks)


def _sizes(report: Report) -> str:
    table = markdown.table("cell", *size_headings(report))
    for cell in report.cells:
        table.add_row(cell.name, *sizes(cell))
    return markdown.render(table)


def _contrasts(judged: Sequence[Judged]) -> str:
    """What claims are made of, one by one."""
    if not judged:
        return ""
    table = markdown.table(*CONTRAST_HEADINGS)
    for each in judged:
        table.add_row(*contrast_row(each))
    return f"{markdown.render(table)}\n\n{CONTRAST_NOTE}"
