"""A report as a page: one file that needs nothing else, for screens, phones and paper."""

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from experiments.report import comparison_table, drawing, figures
from experiments.report.comparison import NOTE, Comparison
from experiments.report.contents import Report, place, weighted
from experiments.report.drawing import Drawing
from experiments.report.templates import environment

_COLOURS = {
    drawing.INK: "var(--ink)",
    drawing.GRID: "var(--line)",
    **{colour: f"var(--c{number})" for number, colour in enumerate(drawing.COLOURS)},
}


def as_html(report: Report) -> str:
    """The page of a report.

    Args:
      report: With its curves.
    """
    pair = report.columns_of_difference
    at = f" at {report.image_size}" if report.image_size else ""
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            caption=report.caption_of_intervals,
            pair=" - ".join(pair) if pair else "",
            differences={each.row: each for each in report.differences},
            marks=report.marks_of,
            places={cell.name: number for number, cell in enumerate(report.cells)},
            macs_heading=f"MACs{at}, M",
            drawn=_drawn(figures.drawings(report)),
        )
    )


def of_comparison(comparison: Comparison) -> str:
    """The page of a comparison."""
    made = _environment()
    made.filters |= {"ours": comparison_table.ours, "against": comparison_table.against}
    return made.get_template("comparison.html.jinja").render(
        comparison=comparison,
        headings=[*comparison.labels, *comparison.headings],
        note=NOTE,
        only=comparison_table.only(comparison),
        drawn=_drawn(figures.of_comparison(comparison)),
    )


def _environment() -> Environment:
    """Templates of pages. What they are given is escaped, all but the figures."""
    made = environment(autoescape=True)
    made.filters |= {"weighted": weighted, "place": place, "setting": _setting}
    return made


def _setting(value: object) -> str:
    """A value of a configuration as the command line takes it."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case list() | tuple():
            return ",".join(map(_setting, value))
    return str(value)


def _drawn(found: Sequence[Drawing]) -> list[dict[str, Any]]:
    """Figures for a page, in its colours, which its reader chooses."""
    return [
        {
            "name": each.name,
            "title": each.title,
            "description": each.description,
            "svg": Markup(drawing.inline(each, _COLOURS)),  # whose texts are escaped
        }
        for each in found
    ]
