"""A report for other programs: JSON and CSV."""

import csv
import dataclasses
import io
import json
from typing import Any

from experiments.report.cells import CellReport
from experiments.report.contents import Report

_DETAILS = ("values", "runs")  # of which there may be thousands


def summary(report: Report) -> dict[str, Any]:
    """Everything that a report says, as plain data."""
    return {
        "experiment": report.experiment,
        "title": report.title,
        "data": report.data,
        "caption": report.caption,
        "budget_note": report.budget_note,
        "cells": [_cell(cell, report) for cell in report.cells],
        "differences": _plain(report.differences),
        "claims": [{"claim": each.claim, "verdict": each.verdict} for each in report.claims],
        "contrasts": _plain(report.contrasts),
        "marks": _plain(report.marks),
        "made": _plain(report.made),
        "unequal": report.unequal,
        "remarks": list(report.remarks),
        "caveat": report.caveat,
    }


def as_json(report: Report) -> str:
    """The summary as JSON."""
    return json.dumps(summary(report), indent=2)


def as_csv(report: Report) -> str:
    """One line a cell; errors of all seeds, widths, and what marks say, each in one column."""
    cells = summary(report)["cells"]
    said = {mark.letter: mark.text for mark in report.marks}
    text = io.StringIO()
    writer = csv.DictWriter(text, cells[0].keys(), lineterminator="\n")
    writer.writeheader()
    for cell in cells:
        lists = {
            key: " ".join(f"{each:.6g}" for each in cell[key] or ())
            for key in ("errors", "errors_of_seeds", "widths")
        }
        marks = "; ".join(said[letter] for letter in cell["marks"])
        writer.writerow(cell | lists | {"marks": marks})
    return text.getvalue().rstrip()


def _cell(cell: CellReport, report: Report) -> dict[str, Any]:
    fields = {
        field.name: getattr(cell, field.name)
        for field in dataclasses.fields(cell)
        if field.name not in _DETAILS
    }
    return fields | {"marks": report.marks_of.get(cell.name, [])}


def _plain(each: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(one) for one in each]
