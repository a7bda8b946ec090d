"""Figures of what was trained: the contrasts of claims, and what flows between groups."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report.claims import Judged, half_width
from experiments.report.flow import Flows
from experiments.report.table import summary, weighted
from experiments.sweep.workdir import Sweep
from shufflenet_jax.errors import InputError
from shufflenet_jax.metrics import read_metrics


def save(sweep: Sweep, path: Path) -> None:
    """Draws the contrasts that are measured, with intervals of 95% over seeds.

    Args:
      sweep: Whose claims they are of.
      path: Where to; the ending says the format.

    Raises:
      InputError: There are none; or the file cannot be written, or is of an unknown format.
    """
    contrasts = [Judged(**each) for each in summary(sweep)["contrasts"]]
    if not contrasts:
        raise InputError("nothing to plot: no contrast of a claim has been trained with 3 seeds")
    height = 1.2 + 0.4 * max(4, len(contrasts))
    figure, (ends, curves) = pyplot.subplots(1, 2, figsize=(11, height), layout="constrained")
    _draw_ends(ends, sweep, contrasts)
    for number, contrast in enumerate(contrasts):
        _draw_curve(curves, sweep, contrast, f"C{number}")
    curves.axhline(0, color="black", linewidth=0.8)
    curves.set(xlabel="epoch", ylabel="points of top-1 error")
    curves.grid(alpha=0.3)
    write(figure, path)


def _draw_ends(panel: Axes, sweep: Sweep, contrasts: list[Judged]) -> None:
    """Ours with its interval, and the paper's; the colours are also those of the curves."""
    papers = {cell.name: cell.paper_error for cell in sweep.cells}
    places = np.arange(len(contrasts))[::-1]
    for number, (each, place) in enumerate(zip(contrasts, places, strict=True)):
        label = None if number else "ours, with its interval of 95%"
        color = f"C{number}"  # as that of its curve
        panel.errorbar(
            each.mean, place, xerr=each.half_width, fmt="o", capsize=3, color=color, label=label
        )
    paper = [_weigh(papers, each.contrast) for each in contrasts]
    if any(value is not None for value in paper):
        shown = [
            (value, place) for value, place in zip(paper, places, strict=True) if value is not None
        ]
        panel.plot(*zip(*shown, strict=True), "kD", fillstyle="none", label="the paper's, ImageNet")
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set_yticks(places, [weighted(each.contrast) for each in contrasts])
    panel.set(xlabel="points of top-1 error", ylim=(-0.8, len(contrasts) - 0.2))
    panel.grid(axis="x", alpha=0.3)
    panel.legend(fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def _weigh(values: Mapping[str, float | None], contrast: Mapping[str, float]) -> float | None:
    """The weighted sum; None if a value is missing."""
    terms = [(values[name], weight) for name, weight in contrast.items()]
    if any(value is None for value, _ in terms):
        return None
    return sum(value * weight for value, weight in terms if value is not None)


def _draw_curve(panel: Axes, sweep: Sweep, judged: Judged, color: str) -> None:
    """The mean over seeds after each evaluation, with its interval."""
    of_cells = {name: _curves(sweep, name) for name in judged.contrast}
    seeds = set.intersection(*(set(curves) for curves in of_cells.values()))
    epochs = sorted(
        set.intersection(*(set(curves[seed]) for curves in of_cells.values() for seed in seeds))
    )
    sums = np.array(
        [
            [
                sum(
                    weight * of_cells[name][seed][epoch] for name, weight in judged.contrast.items()
                )
                for epoch in epochs
            ]
            for seed in sorted(seeds)
        ]
    )
    mean = sums.mean(axis=0)
    half = np.array([half_width(column) for column in sums.T])
    panel.plot(epochs, mean, marker=".", color=color)
    panel.fill_between(epochs, mean - half, mean + half, color=color, alpha=0.15)


def _curves(sweep: Sweep, name: str) -> dict[int, dict[float, float]]:
    """Of each seed of a cell that is done, the test error after each epoch that has one."""
    found = {}
    cell = sweep.cell(name)
    epochs = sweep.entries[name].values["recipe.epochs"]
    for run in sweep.runs_of(cell):
        if (result := run.result) is not None and result["status"] == "done":
            rows = [row for row in read_metrics(run.directory) if row["split"] == "test"]
            found[run.seed] = {
                round(epochs * row["step"] / result["step"], 2): row["top1_error"] for row in rows
            }
    return found


def save_flow(by_cell: Mapping[str, list[Flows]], path: Path) -> None:
    """Draws which groups depend on which, by gradient: a matrix a stage and network.

    Args:
      by_cell: As `experiments.report.flow.of_sweep` measures it; the mean over seeds is drawn.
      path: Where to; the ending says the format.

    Raises:
      InputError: The file cannot be written, or is of an unknown format.
    """
    stages = list(next(iter(by_cell.values()))[0])
    size = (2.4 * len(by_cell) + 1, 2.4 * len(stages))
    figure, panels = pyplot.subplots(
        len(stages), len(by_cell), figsize=size, squeeze=False, layout="constrained"
    )
    for column, (name, flows) in zip(panels.T, by_cell.items(), strict=True):
        for panel, stage in zip(column, stages, strict=True):
            shares = np.mean([each[stage].gradient for each in flows], axis=0)
            image = panel.imshow(shares, vmin=0, vmax=1, cmap="viridis")
            panel.set(
                xticks=[], yticks=[], title=f"{name}\n{stage}" if stage == stages[0] else stage
            )
    panels[-1][0].set(xlabel="group of inputs", ylabel="group of outputs")
    figure.colorbar(image, ax=panels, label="share of squared derivatives", shrink=0.6)
    write(figure, path)


def write(figure: Figure, path: Path) -> None:
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:  # the latter of an unknown format
        raise InputError(f"cannot plot to {path}: {error}") from error
    finally:
        pyplot.close(figure)
