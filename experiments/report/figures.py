"""The figures of a report: differences, error against multiply-adds, and learning curves."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report.cells import CellReport
from experiments.report.claims import half_width
from experiments.report.comparison import Comparison
from experiments.report.contents import Report, weighted
from experiments.report.drawing import COLOURS, INK, Drawing, look

_MOST_PANELS, _MOST_ROWS = 12, 60
_NARROW = 4.2  # inches: what a phone shows without making letters small


def drawings(report: Report) -> list[Drawing]:
    """The figures of a report, as far as there is something to show.

    Args:
      report: With its curves.
    """
    made = (_differences(report), _cost(report), _curves(report))
    return [each for each in made if each is not None]


def of_comparison(comparison: Comparison) -> list[Drawing]:
    """The figure of a comparison: differences from the first sweep, as far as there are any."""
    several = len(comparison.labels) > 2
    rows = [
        Row(f"{row.cell}, {heading}" if several else row.cell, {}, each.mean, each.half_width, None)
        for row in comparison.rows
        for heading, each in zip(comparison.headings, row.against, strict=True)
        if each.mean is not None
    ]
    title = f"Differences: {', '.join(comparison.headings)}"
    return [_forest(title, rows[:_MOST_ROWS], len(rows), [])] if rows else []


@dataclass(frozen=True)
class Row:
    """A difference as a row of a forest plot; the contrast says of which cells."""

    label: str
    contrast: Mapping[str, float]
    mean: float
    half_width: float | None
    paper: float | None


def _rows(report: Report) -> list[Row]:
    rows = [
        Row(
            weighted(each.contrast),
            each.contrast,
            each.mean,
            each.half_width,
            report.paper_of(each.contrast),
        )
        for each in report.contrasts
    ]
    known = [row.contrast for row in rows]
    return rows + [
        Row(weighted(contrast), contrast, each.mean, each.half_width, each.paper)
        for each in report.differences
        if each.mean is not None
        and (contrast := {each.minuend: 1.0, each.subtrahend: -1.0}) not in known
    ]


def _differences(report: Report) -> Drawing | None:
    rows = _rows(report)
    if not rows:
        return None
    shown = rows[:_MOST_ROWS]
    curves = [_over_training(report, row.contrast) for row in shown]
    return _forest("Differences", shown, len(rows), curves)


def _forest(
    title: str, rows: Sequence[Row], of: int, curves: Sequence[Mapping[float, Sequence[float]]]
) -> Drawing:
    """A forest plot, and the same over training where there are curves."""
    forest, training = 1.0 + 0.5 * len(rows), 2.6

    def draw(abreast: int) -> Figure:
        if not any(curves):
            figure, panel = pyplot.subplots(figsize=(_NARROW, forest), layout="constrained")
            _draw_forest(panel, rows)
            return figure
        if abreast > 1:
            shape: dict[str, Any] = {"ncols": 2}
            size = (11.0, max(forest, 3.2))
        else:
            shape = {"nrows": 2, "height_ratios": (forest, training)}
            size = (_NARROW, forest + training)
        figure, (panel, below) = pyplot.subplots(**shape, figsize=size, layout="constrained")
        _draw_forest(panel, rows)
        for number, curve in enumerate(curves):
            if curve:
                _draw_band(below, curve, number)
        below.axhline(0, color=INK, linewidth=0.8)
        below.set(xlabel="epoch", ylabel="points of top-1 error")
        below.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        return figure

    said = ["Points of top-1 error with their intervals of 95%"]
    said += ["hollow: the paper's, on ImageNet"] if any(r.paper is not None for r in rows) else []
    said += [f"the first {len(rows)} of {of}"] if len(rows) < of else []
    below = " The other panel has the same after each epoch, in the same colours."
    return Drawing(
        "differences",
        title,
        f"{'; '.join(said)}.{below if any(curves) else ''}",
        [[vars(row) for row in rows], curves],
        draw,
    )


def _draw_forest(panel: Axes, rows: Sequence[Row]) -> None:
    """A line a difference, its name above it."""
    for number, (place, row) in enumerate(zip(range(len(rows))[::-1], rows, strict=True)):
        colour, marker = look(number)
        half = row.half_width or 0.0
        panel.errorbar(
            row.mean, place, xerr=half, fmt=marker, color=colour, capsize=3, markersize=5
        )
        if row.paper is not None:
            panel.plot(row.paper, place, "D", color=INK, fillstyle="none", markersize=5)
        panel.text(
            0.01,
            place + 0.24,
            textwrap.shorten(row.label, 70, placeholder=" ..."),
            transform=panel.get_yaxis_transform(),
            fontsize=7.5,
            va="bottom",
        )
    panel.axvline(0, color=INK, linewidth=0.8, alpha=0.6, zorder=0)
    if any(row.paper is not None for row in rows):
        panel.plot([], [], "D", color=INK, fillstyle="none", label="the paper's, on ImageNet")
        panel.legend(loc="lower left", bbox_to_anchor=(0, 1))
    panel.set(xlabel="points of top-1 error", yticks=[], ylim=(-0.5, len(rows) - 0.1))
    panel.spines["left"].set_visible(False)


def _over_training(report: Report, contrast: Mapping[str, float]) -> dict[float, list[float]]:
    """The weighted sum after each epoch: its mean over seeds, and half of its interval."""
    by_name = {cell.name: cell for cell in report.cells}
    curves = [
        {run.seed: run.curve for run in by_name[name].runs if run.status == "done"}
        for name in contrast
    ]
    seeds = sorted(set.intersection(*(set(each) for each in curves)))
    if not seeds:
        return {}
    epochs = sorted(set.intersection(*(set(each[seed]) for each in curves for seed in seeds)))
    weights = contrast.values()
    found = {}
    for epoch in epochs:
        sums = [
            sum(weight * each[seed][epoch] for each, weight in zip(curves, weights, strict=True))
            for seed in seeds
        ]
        found[epoch] = [float(np.mean(sums)), half_width(sums) or 0.0]
    return found if len(found) > 1 else {}


def _draw_band(
    panel: Axes, curve: Mapping[float, Sequence[float]], number: int, label: str | None = None
) -> None:
    """A mean after each epoch, and its interval."""
    colour, marker = look(number)
    epochs = list(curve)
    mean, half = np.array(list(curve.values())).T
    panel.plot(epochs, mean, marker=marker, markersize=3, color=colour, linewidth=1.2, label=label)
    panel.fill_between(epochs, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)


def _cost(report: Report) -> Drawing | None:
    ours = [cell for cell in report.cells if cell.error_mean is not None and cell.macs]
    papers = [
        cell
        for cell in report.cells
        if cell.paper_error is not None and _is_drawable(cell.paper_mflops)
    ]
    if not ours:
        return None

    def draw(abreast: int) -> Figure:
        size = (6.4, 4.2) if abreast > 1 else (_NARROW, 4.0)
        figure, panel = pyplot.subplots(figsize=size, layout="constrained")
        for number, column in enumerate(report.columns):
            colour, marker = look(number)
            own = sorted((c for c in ours if c.column == column), key=lambda c: c.macs or 0)
            if own:
                panel.errorbar(
                    [(cell.macs or 0) / 1e6 for cell in own],
                    [cell.error_mean for cell in own],
                    [cell.error_half_width or 0.0 for cell in own],
                    fmt=f"{marker}{_line('-', [cell.macs for cell in own])}",
                    linewidth=0.8,
                    markersize=5,
                    capsize=2,
                    color=colour,
                    label=column,
                )
            theirs = sorted(
                (c for c in papers if c.column == column), key=lambda c: c.paper_mflops or 0
            )
            panel.plot(
                [cell.paper_mflops for cell in theirs],
                [cell.paper_error for cell in theirs],
                f"{marker}{_line(':', [cell.paper_mflops for cell in theirs])}",
                linewidth=0.8,
                markersize=5,
                fillstyle="none",
                color=colour,
                label=None if own else column,
            )
        panel.set(
            xscale="log",
            xlabel="millions of multiply-adds",
            ylabel="top-1 error, %",
            ylim=(0, None),
        )
        panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter(ticker.NullFormatter())
        if 1 < len(report.columns) <= len(COLOURS):
            figure.legend(loc="outside lower center", **_legend(len(report.columns)))
        else:
            for cell in ours if len(ours) <= _MOST_PANELS else []:
                _name_point(panel, cell)
        return figure

    at = f" at {report.image_size}x{report.image_size}" if report.image_size else ""
    return Drawing(
        "cost",
        "Error against multiply-adds",
        f"Filled: ours{at}, on {report.data}, with intervals of 95% where there are several seeds"
        + ("; hollow: the paper's, at 224x224, on ImageNet." if papers else "."),
        [
            [[c.column, c.macs, c.error_mean, c.error_half_width] for c in ours],
            [[c.column, c.paper_mflops, c.paper_error] for c in papers],
        ],
        draw,
    )


def _line(style: str, places: Sequence[float | None]) -> str:
    """The style of a line through points; none where two stand above each other."""
    return style if len(set(places)) == len(places) else ""


def _name_point(panel: Axes, cell: CellReport) -> None:
    panel.annotate(
        textwrap.shorten(cell.row.partition(",")[0], 24, placeholder=" ..."),
        ((cell.macs or 0) / 1e6, cell.error_mean or 0),
        xytext=(5, 5),
        textcoords="offset points",
        fontsize=7,
    )


def _is_drawable(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0


def _curves(report: Report) -> Drawing | None:
    curves = {
        row: {
            column: {epoch: _mean(errors) for epoch, errors in cell.curve.items()}
            for column, cell in cells.items()
            if len(cell.curve) > 1
        }
        for row, cells in report.table.items()
    }
    curves = {row: each for row, each in curves.items() if each}
    shown = dict(list(curves.items())[:_MOST_PANELS])
    if not shown:
        return None
    colours = {column: number for number, column in enumerate(report.columns)}

    def draw(abreast: int) -> Figure:
        across = min(abreast + 1 if abreast > 1 else 1, len(shown))
        down = -(-len(shown) // across)
        width = _NARROW if across == 1 else 3.6 * across
        figure, panels = pyplot.subplots(
            down,
            across,
            figsize=(width, 2.6 * down + 0.5),
            squeeze=False,
            sharex=True,
            sharey=True,
            layout="constrained",
        )
        named: dict[str, Any] = {}
        for panel, (row, by_column) in zip(panels.flat, shown.items(), strict=False):
            for column, curve in by_column.items():
                _draw_band(panel, curve, colours[column], column)
            panel.set_title(textwrap.shorten(row, 48, placeholder=" ..."), fontsize=9)
            panel.set(ylabel="top-1 error, %")
            handles, labels = panel.get_legend_handles_labels()
            named |= dict(zip(labels, handles, strict=True))
        for panel in panels.flat[len(shown) :]:
            panel.set_visible(False)
        for panel in panels[-1]:
            panel.set(xlabel="epoch")
            panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        if len(named) > 1:
            figure.legend(named.values(), named, loc="outside lower center", **_legend(len(named)))
        return figure

    some = f" The first {len(shown)} of {len(curves)} rows." if len(shown) < len(curves) else ""
    return Drawing(
        "curves",
        "Learning curves",
        f"Top-1 error on the test images after each epoch, means over seeds; bands are intervals "
        f"of 95% of these means.{some}",
        shown,
        draw,
    )


def _legend(entries: int) -> dict[str, Any]:
    """In one line, or in two of the same length."""
    across = entries if entries <= 5 else -(-entries // 2)
    return {"ncols": across, "columnspacing": 1.2, "handlelength": 1.5}


def _mean(errors: Sequence[float]) -> list[float]:
    return [float(np.mean(errors)), half_width(errors) or 0.0]
