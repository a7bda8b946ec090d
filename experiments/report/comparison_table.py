"""A comparison of sweeps as Markdown, JSON and CSV."""

import csv
import io
import json

from experiments.report import markdown
from experiments.report.cells import CellReport
from experiments.report.comparison import NOTE, Against, Comparison, as_data


def as_markdown(comparison: Comparison) -> str:
    """In what sweeps differ, and by how much their errors do."""
    return "\n\n".join(
        part
        for part in (
            f"## {comparison.title}",
            _differing(comparison),
            _rows(comparison),
            NOTE,
            *only(comparison),
        )
        if part
    )


def as_json(comparison: Comparison) -> str:
    """All of it as JSON."""
    return json.dumps(as_data(comparison), indent=2)


def as_csv(comparison: Comparison) -> str:
    """A line for each cell and each sweep, with its difference from the first."""
    text = io.StringIO()
    headings = ("cell", "sweep", "n", "error_mean", "error_half_width")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*headings, "difference", "difference_half_width", "seeds_of_both", "differs"])
    for row in comparison.rows:
        nothing = Against(None, None, 0)
        for number, (side, each) in enumerate(zip(row.sides, (nothing, *row.against), strict=True)):
            differs = "; ".join(
                f"{found.what} {found.values[number]}"
                for found in comparison.differing
                if not found.cells or row.cell in found.cells
            )
            writer.writerow(
                [
                    row.cell,
                    comparison.labels[number],
                    side.n,
                    side.error_mean,
                    side.error_half_width,
                    each.mean,
                    each.half_width,
                    each.n or "",
                    differs,
                ]
            )
    return text.getvalue().rstrip()


def ours(cell: CellReport) -> str:
    """A mean with its interval and how many seeds it is of, or how the cell stands."""
    if cell.error_mean is None:
        return cell.status
    interval = "" if cell.error_half_width is None else f" ± {cell.error_half_width:.2f}"
    return f"{cell.error_mean:.2f}{interval} (n = {cell.n})"


def against(each: Against) -> str:
    """A difference with its interval and how many seeds it is of."""
    if each.mean is None:
        return "no seed in common"
    interval = "" if each.half_width is None else f" ± {each.half_width:.2f}"
    return f"{each.mean:+.2f}{interval} (n = {each.n})"


def only(comparison: Comparison) -> list[str]:
    """Which cells not all sweeps have."""
    return [
        f"Not in all of them: {', '.join(names)} of {label}."
        for label, names in comparison.only.items()
        if names
    ]


def _differing(comparison: Comparison) -> str:
    if not comparison.differing:
        return "Nothing is known to differ in configuration, data, code and machine."
    made = markdown.table("what differs", *comparison.labels, "cells")
    for each in comparison.differing:
        made.add_row(f"{each.kind}: {each.what}", *each.values, ", ".join(each.cells) or "all")
    return markdown.render(made)


def _rows(comparison: Comparison) -> str:
    made = markdown.table("cell", *comparison.labels, *comparison.headings)
    for row in comparison.rows:
        made.add_row(row.cell, *map(ours, row.sides), *map(against, row.against))
    return markdown.render(made)
