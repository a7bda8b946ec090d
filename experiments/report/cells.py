"""What is known of the cells of a sweep: how each of their runs stands, and how large they are."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from experiments.report.claims import Difference, half_width, half_width_of_images
from experiments.sweep.experiment import Cell
from experiments.sweep.run import Run
from experiments.sweep.workdir import Sweep
from shufflenet_jax import data
from shufflenet_jax.errors import InputError
from shufflenet_jax.metrics import read_metrics
from shufflenet_jax.predictions import NOT_ASKED, read_predictions

IMAGE_SIZE = "recipe.preprocessing.image_size"

COUNTS = ("widths", "macs", "macs_without_head", "params")

STALE = "stale"
"""State of a run that is done, but by code whose results are no longer those of its table."""

_FIRST_GENERATION = 1  # of processes that did not say of which one they were
_PRIVATE = ("host", "pid", "diff")
_NOT_PLANNED = "not planned"
_ORDER = (
    "failed",
    "diverged",
    "damaged",
    "running",
    "preempted",
    "interrupted",
    "missing",
    STALE,
    "done",
)


@dataclass(frozen=True)
class RunReport:
    """One seed of a cell.

    Attributes:
      seed: The seed.
      status: How it stands: as `Run.status`, or `STALE`.
      error: Top-1 error in percent; None unless it is done, or stale.
      attempts: What is known of each process that trained it, for everybody to read.
      generation: Of the code that it was trained by, the least of all attempts.
      network: The sizes of its network, if it is done and says so.
      curve: The test error after each epoch that has one; empty unless curves were asked for.
    """

    seed: int
    status: str
    error: float | None
    attempts: tuple[Mapping[str, Any], ...]
    generation: int
    network: Mapping[str, Any] | None
    curve: Mapping[float, float]


@dataclass(frozen=True)
class CellReport:
    """One entry of a table.

    Attributes:
      name, row, column: Those of the `Cell`.
      status: One word for all seeds: done only if each is; else the worst of them.
      seeds: How many were asked for.
      n: How many are done.
      errors, errors_of_seeds: Top-1 errors in percent of those that are done, and their seeds.
      error_mean, error_std: Over these; None where there are too few.
      error_half_width: Half of the interval of 95% of the mean.
      paper_error: The paper's error, on ImageNet.
      paper_mflops: The paper's millions of multiply-adds at 224x224.
      widths, macs, macs_without_head, params: The network's; None where they are not known.
      data: What it is trained on, as others may see it.
      epochs, image_size: How long, and how large the images are.
      values: The whole configuration.
      runs: Those that were asked for, by seed.
    """

    name: str
    row: str
    column: str
    status: str
    seeds: int
    n: int
    errors: tuple[float, ...]
    errors_of_seeds: tuple[int, ...]
    error_mean: float | None
    error_std: float | None
    error_half_width: float | None
    paper_error: float | None
    paper_mflops: float | None
    widths: Sequence[int] | None
    macs: int | None
    macs_without_head: int | None
    params: int | None
    data: str
    epochs: Any
    image_size: Any
    values: Mapping[str, Any]
    runs: tuple[RunReport, ...]

    @property
    def by_seed(self) -> dict[int, float]:
        """The errors of the seeds that are done."""
        return dict(zip(self.errors_of_seeds, self.errors, strict=True))

    @property
    def curve(self) -> dict[float, list[float]]:
        """The test errors of all seeds that are done, after the epochs that each of them has."""
        curves = [run.curve for run in self.runs if run.status == "done"]
        if not curves:
            return {}
        shared = set.intersection(*(set(each) for each in curves))
        return {epoch: [each[epoch] for each in curves] for epoch in sorted(shared)}


def of_sweep(sweep: Sweep, curves: bool = False) -> tuple[CellReport, ...]:
    """Reads all cells of a sweep.

    Runs by code of an older generation than others of the table are stale: they enter no mean.

    Args:
      sweep: The sweep.
      curves: Read the curves of runs too, which takes longer.
    """
    runs = {
        name: [_run(sweep, run, curves) for run in sweep.runs_of(entry.cell)]
        for name, entry in sweep.entries.items()
    }
    newest = max((run.generation for each in runs.values() for run in each), default=0)
    counted = _Counts(sweep)
    return tuple(
        _cell(sweep, cell, [_judged(run, newest) for run in runs[cell.name]], counted)
        for cell in sweep.cells
    )


def difference(
    minuend: tuple[Sweep, CellReport], subtrahend: tuple[Sweep, CellReport]
) -> Difference | None:
    """The difference of two cells, paired by seed; None if they have none in common.

    That of one seed has an interval over test images, if both have left what they said of them.
    """
    found = Difference.of(minuend[1].by_seed, subtrahend[1].by_seed)
    if found is None or found.half_width is not None:
        return found
    of_data = [
        {key: value for key, value in sweep.data_of(sweep.cell(cell.name)).items() if key != "name"}
        for sweep, cell in (minuend, subtrahend)
    ]
    one, other = (
        read_predictions(sweep.run(sweep.cell(cell.name), *found.seeds).directory)
        for sweep, cell in (minuend, subtrahend)
    )
    if of_data[0] != of_data[1] or one is None or other is None or len(one) != len(other):
        return found
    asked = (one["predicted"] != NOT_ASKED) & (other["predicted"] != NOT_ASKED)
    half = half_width_of_images(one["right"][asked], other["right"][asked])
    return replace(found, half_width=half)


def _run(sweep: Sweep, run: Run, curves: bool) -> RunReport:
    result = run.result
    done = result is not None and result["status"] == "done"
    attempts = run.attempts if done else []
    return RunReport(
        seed=run.seed,
        status=result["status"] if result else run.status,
        error=result["top1_error"] if result and done else None,
        attempts=tuple(map(_public, attempts)),
        generation=_generation(attempts) if done else 0,
        network=result.get("network") if result and done else None,
        curve=_curve(sweep, run, result["step"]) if curves and result and done else {},
    )


def _public(attempt: Mapping[str, Any]) -> dict[str, Any]:
    """What everybody may read; of changes to the code, digits that tell them from others."""
    known = {key: value for key, value in attempt.items() if key not in _PRIVATE}
    if isinstance(diff := attempt.get("diff"), str) and diff:
        known["changes"] = hashlib.sha256(diff.encode()).hexdigest()[:8]
    return known


def _generation(attempts: Sequence[Mapping[str, Any]]) -> int:
    said = [each.get("generation") for each in attempts]
    known = [each for each in said if isinstance(each, int)]
    return min(known, default=_FIRST_GENERATION)


def _curve(sweep: Sweep, run: Run, last_step: int) -> dict[float, float]:
    epochs = sweep.entries[run.cell.name].values.get("recipe.epochs")
    if not isinstance(epochs, int | float) or not last_step:
        return {}
    return {
        round(epochs * row["step"] / last_step, 2): row["top1_error"]
        for row in read_metrics(run.directory)
        if row["split"] == "test" and "top1_error" in row
    }


def _judged(run: RunReport, newest: int) -> RunReport:
    if run.status != "done" or run.generation == newest:
        return run
    return replace(run, status=STALE)


def _cell(sweep: Sweep, cell: Cell, runs: Sequence[RunReport], counted: "_Counts") -> CellReport:
    done = [run for run in runs if run.status == "done"]
    errors = [run.error for run in done if run.error is not None]
    trained = done[0].network if done else None
    values = sweep.entries[cell.name].values
    return CellReport(
        name=cell.name,
        row=cell.row,
        column=cell.column,
        status=_worst([run.status for run in runs]),
        seeds=len(runs),
        n=len(errors),
        errors=tuple(errors),
        errors_of_seeds=tuple(run.seed for run in done),
        error_mean=fmean(errors) if errors else None,
        error_std=stdev(errors) if len(errors) > 1 else None,
        error_half_width=half_width(errors),
        paper_error=cell.paper_error,
        paper_mflops=cell.paper_mflops,
        **(dict.fromkeys(COUNTS) | dict(trained if trained else counted.of(cell))),
        data=data.label(values["data.name"]),
        epochs=values.get("recipe.epochs"),
        image_size=values.get(IMAGE_SIZE),
        values=values,
        runs=tuple(runs),
    )


def _worst(states: Sequence[str]) -> str:
    return next((state for state in _ORDER if state in states), _NOT_PLANNED)


class _Counts:
    """Real channels and counts of networks that were not trained yet, equal ones counted once."""

    def __init__(self, sweep: Sweep):
        self._sweep = sweep
        self._known: dict[str, dict[str, Any]] = {}

    def of(self, cell: Cell) -> Mapping[str, Any]:
        """What is known of a cell's network: no counts where this version cannot build it."""
        entry = self._sweep.entries[cell.name]
        if entry.network is not None:
            return {key: entry.network.get(key) for key in COUNTS}
        deciding = {k: v for k, v in entry.values.items() if k.startswith(("network.", IMAGE_SIZE))}
        classes = self._sweep.data_of(cell).get("classes")
        if classes is None:  # other counts than those of the networks that were trained
            return dict.fromkeys(COUNTS)
        key = json.dumps([deciding, classes], sort_keys=True)
        if key not in self._known:
            self._known[key] = self._count(deciding, classes)
        return self._known[key]

    def _count(self, deciding: Mapping[str, Any], classes: int) -> dict[str, Any]:
        # Here, because it imports JAX, and a sweep that is done is reported without.
        from experiments.sweep import build

        try:
            return build.measure(deciding, classes)
        except InputError:
            return dict.fromkeys(COUNTS)
