"""A report as tables of LaTeX, with rules of booktabs and notes under them."""

import re
from collections.abc import Sequence

from jinja2 import Environment

from experiments.report import comparison_table, table
from experiments.report.cells import CellReport
from experiments.report.claims import Judged
from experiments.report.comparison import NOTE, Comparison
from experiments.report.contents import Report, RowDifference
from experiments.report.templates import environment


class Tex(str):
    """Text that is LaTeX already."""


_SPECIAL = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",  # which after a rule or a row would begin an option
    "]": "{]}",
    "±": r"\ensuremath{\pm}",
    **{each: f"\\{each}" for each in "{}$&#_%"},
}


def escape(text: object) -> str:
    """Text as LaTeX prints it, in one line."""
    if isinstance(text, Tex):
        return text
    line = " ".join(str(text).split())
    printable = "".join(each if each.isprintable() else "?" for each in line)
    escaped = "".join(_SPECIAL.get(each, each) for each in printable)
    return re.sub("-(?=-)", "-{}", escaped)  # two would be a dash


def as_latex(report: Report) -> str:
    """The table in the paper's shape with intervals of 95%, notes, and a table of contrasts."""
    made = _environment()
    made.filters["verdict"] = lambda claim: table.verdict(claim, report)
    made.filters["row"] = _contrast
    pair = report.columns_of_difference
    differences = {each.row: each for each in report.differences}
    rows = {
        row: [_entry(cells.get(column), report) for column in report.columns]
        + ([_difference(differences.get(row))] if pair else [])
        for row, cells in report.table.items()
    }
    return made.get_template("report.tex.jinja").render(
        report=report,
        label=Tex(re.sub(r"[^A-Za-z0-9-]", "-", report.experiment)),
        columns=[*report.columns, *([" - ".join(pair)] if pair else [])],
        rows=rows,
        notes=[report.unequal, *report.remarks, report.caveat],
        contrast_headings=table.CONTRAST_HEADINGS,
        contrast_note=table.CONTRAST_NOTE,
    )


def of_comparison(comparison: Comparison) -> str:
    """The table of a comparison, and in notes what differs."""
    made = _environment()
    made.filters |= {"ours": comparison_table.ours, "against": comparison_table.against}
    return made.get_template("comparison.tex.jinja").render(
        comparison=comparison,
        headings=[*comparison.labels, *comparison.headings],
        note=NOTE,
        only=comparison_table.only(comparison),
    )


def _environment() -> Environment:
    """Templates of LaTeX. What they are given is escaped."""
    return environment(
        finalize=escape,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
    )


def _interval(mean: float, half_width: float | None, form: str = ".2f") -> str:
    spread = "" if half_width is None else rf" \pm {half_width:.2f}"
    return f"${mean:{form}}{spread}$"


def _entry(cell: CellReport | None, report: Report) -> Tex:
    if cell is None:
        return Tex("--")
    if cell.error_mean is None:
        ours = escape(cell.status)
    else:
        ours = _interval(cell.error_mean, cell.error_half_width)
        if cell.status != "done":
            ours += escape(f" ({cell.n} of {cell.seeds} seeds)")
        elif not report.seeds.isdecimal():  # they are not as many in each cell
            ours += f" ($n = {cell.n}$)"
    paper = "" if cell.paper_error is None else f" {{[}}{cell.paper_error:.1f}{{]}}"
    letters = ",".join(report.marks_of.get(cell.name, ()))
    return Tex(f"{ours}{paper}" + (rf"$^{{\mathrm{{{letters}}}}}$" if letters else ""))


def _difference(each: RowDifference | None) -> Tex:
    if each is None:
        return Tex("--")
    paper = "" if each.paper is None else f"{{[}}{each.paper:.1f}{{]}}"
    ours = "" if each.mean is None else _interval(each.mean, each.half_width, "+.2f")
    return Tex(f"{ours} {paper}".strip() or "--")


def _contrast(judged: Judged) -> Sequence[str]:
    """A row, whose points and p are numbers."""
    of, seeds, _, p, verdict = table.contrast_row(judged)
    mantissa, e, exponent = p.partition("e")
    p = rf"{mantissa} \times 10^{{{int(exponent)}}}" if e else p
    points = _interval(judged.mean, judged.half_width, "+.2f")
    return [of, seeds, Tex(points), Tex(f"${p}$"), verdict]
