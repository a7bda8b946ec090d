"""The table of a sweep in the paper's shape, ours beside the paper's.

All of it is read from the sweep's directory, which may be someone else's: nothing is imported for
it, and a run whose files are damaged is an entry that says so.
"""

import csv
import dataclasses
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from experiments.report import markdown
from experiments.report.claims import (
    Difference,
    contrasts,
    half_width,
    half_width_of_images,
    verdicts,
)
from experiments.sweep.experiment import Cell
from experiments.sweep.workdir import Sweep
from shufflenet_jax import data
from shufflenet_jax.errors import InputError
from shufflenet_jax.predictions import NOT_ASKED, read_predictions

_COUNTS = ("widths", "macs", "macs_without_head", "params")


def summary(sweep: Sweep) -> dict[str, Any]:
    """Everything that a report says, as plain data."""
    counted = _Counts(sweep)
    cells = [_cell(sweep, cell, counted) for cell in sweep.cells]
    errors = {cell["name"]: _by_seed(cell) for cell in cells}
    return {
        "experiment": sweep.experiment,
        "data": ", ".join(map(data.label, _data_names(sweep))),
        "cells": cells,
        "claims": [
            {"claim": claim.text, "verdict": verdict}
            for claim, verdict in zip(sweep.claims, verdicts(sweep.claims, errors), strict=True)
        ],
        "contrasts": [dataclasses.asdict(each) for each in contrasts(sweep.claims, errors)],
    }


def as_json(sweep: Sweep) -> str:
    """The summary as JSON."""
    return json.dumps(summary(sweep), indent=2)


def as_csv(sweep: Sweep) -> str:
    """One line a cell; the errors of all seeds, and the widths, each in one column."""
    cells = summary(sweep)["cells"]
    text = io.StringIO()
    writer = csv.DictWriter(text, cells[0].keys(), lineterminator="\n")
    writer.writeheader()
    for cell in cells:
        lists = {
            key: " ".join(f"{each:.6g}" for each in cell[key] or ())
            for key in ("errors", "errors_of_seeds", "widths")
        }
        writer.writerow(cell | lists)
    return text.getvalue().rstrip()


def as_markdown(sweep: Sweep) -> str:
    """The table in the paper's shape, the networks' real sizes, and the claims."""
    report = summary(sweep)
    cells = {(cell["row"], cell["column"]): cell for cell in report["cells"]}
    counts = {cell["n"] for cell in report["cells"] if cell["seeds"]} or {0}
    n = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(max(counts))
    parts = [
        f"## {sweep.title}",
        _caption(sweep, report, n),
        _results(sweep, cells),
        _provenance(sweep),
        _sizes(sweep, report["cells"]),
        _unequal(report["cells"]) if _has_paper(report["cells"]) else "",
        *sweep.remarks,
    ]
    if report["claims"]:
        said = "Claims of the paper:" if _has_paper(report["cells"]) else "Claims:"
        parts += [
            said,
            "\n".join(f"* {each['claim']} **{_verdict(each, n)}**" for each in report["claims"]),
            _contrasts(report["contrasts"]),
        ]
    return "\n\n".join(part for part in [*parts, sweep.caveat] if part)


def _caption(sweep: Sweep, report: Mapping[str, Any], n: str) -> str:
    """What the numbers are: of which data, how long trained, how many seeds."""
    said = [f"Top-1 error in percent on {report['data']}"]
    for key, unit in (("recipe.epochs", "{} epochs"), (_IMAGE_SIZE, "{0}x{0}")):
        if (value := _common(sweep, key)) is not None:
            said.append(unit.format(value))
    said.append(f"n = {n} (mean ± standard deviation over seeds)")
    paper = "; in brackets the paper's, on ImageNet" if _has_paper(report["cells"]) else ""
    paired = ""
    if sweep.difference:
        paired = (
            " Differences are paired by seed, ± half of their interval of 95%; that of one seed is "
            "over test images, and says nothing of other seeds."
        )
    return f"{', '.join(said)}{paper}.{paired}"


_IMAGE_SIZE = "recipe.preprocessing.image_size"


def _has_paper(cells: Sequence[Mapping[str, Any]]) -> bool:
    return any(cell["paper_error"] is not None for cell in cells)


def _common(sweep: Sweep, key: str) -> Any:
    """The value of a key that all cells share; None if they do not, or have none."""
    values = {json.dumps(entry.values.get(key)) for entry in sweep.entries.values()}
    return json.loads(values.pop()) if len(values) == 1 else None


def _data_names(sweep: Sweep) -> list[str]:
    return list(dict.fromkeys(entry.values["data.name"] for entry in sweep.entries.values()))


FORMATS = {"md": as_markdown, "csv": as_csv, "json": as_json}


def _cell(sweep: Sweep, cell: Cell, counted: "_Counts") -> dict[str, Any]:
    runs = sweep.runs_of(cell)
    results = [run.result for run in runs]
    states = [
        result["status"] if result else run.status
        for run, result in zip(runs, results, strict=True)
    ]
    done = [result for result in results if result and result["status"] == "done"]
    errors = [result["top1_error"] for result in done]
    seeds = [
        run.seed
        for run, result in zip(runs, results, strict=True)
        if result and result["status"] == "done"
    ]
    trained = done[0].get("network") if done else None
    return {
        "name": cell.name,
        "row": cell.row,
        "column": cell.column,
        "status": _worst(states),
        "seeds": len(runs),
        "n": len(errors),
        "errors": errors,
        "errors_of_seeds": seeds,
        "error_mean": fmean(errors) if errors else None,
        "error_std": stdev(errors) if len(errors) > 1 else None,
        "error_half_width": half_width(errors),
        "paper_error": cell.paper_error,
        **(dict.fromkeys(_COUNTS) | trained if trained else counted.of(cell)),
    }


def _by_seed(cell: Mapping[str, Any]) -> dict[int, float]:
    return dict(zip(cell["errors_of_seeds"], cell["errors"], strict=True))


_NOT_PLANNED = "not planned"
_ORDER = ("failed", "diverged", "damaged", "running", "preempted", "interrupted", "missing", "done")


def _worst(states: Sequence[str]) -> str:
    """One word for all seeds: done only if each is; else the worst of them."""
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
            return {key: entry.network.get(key) for key in _COUNTS}
        deciding = {
            k: v for k, v in entry.values.items() if k.startswith(("network.", _IMAGE_SIZE))
        }
        classes = self._sweep.data_of(cell).get("classes")
        if classes is None:  # other counts than those of the networks that were trained
            return dict.fromkeys(_COUNTS)
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
            return dict.fromkeys(_COUNTS)


def _results(sweep: Sweep, cells: dict[tuple[str, str], dict]) -> str:
    difference = sweep.difference
    rows = list(dict.fromkeys(row for row, _ in cells))
    columns = list(dict.fromkeys(column for _, column in cells))
    extra = [f"{difference[0]} - {difference[1]}"] if difference else []
    table = markdown.table("model", *columns, *extra)
    for row in rows:
        entries = [_entry(cells.get((row, column))) for column in columns]
        if difference:
            entries.append(_difference(sweep, *(cells.get((row, column)) for column in difference)))
        table.add_row(row, *entries)
    return markdown.render(table)


def _entry(cell: dict | None) -> str:
    if cell is None:  # nor has the paper one
        return "-"
    paper = cell["paper_error"]
    return _ours(cell) if paper is None else f"{_ours(cell)} [{paper:.1f}]"


def _ours(cell: dict) -> str:
    if not cell["errors"]:
        return cell["status"]
    spread = "" if cell["error_std"] is None else f" ± {cell['error_std']:.2f}"
    some = f" ({cell['n']} of {cell['seeds']} seeds, others {cell['status']})"
    return f"{cell['error_mean']:.2f}{spread}{'' if cell['status'] == 'done' else some}"


def _difference(sweep: Sweep, minuend: dict | None, subtrahend: dict | None) -> str:
    if minuend is None or subtrahend is None:
        return "-"
    papers = [each["paper_error"] for each in (minuend, subtrahend)]
    paper = "" if None in papers else f"[{papers[0] - papers[1]:.1f}]"
    ours = Difference.of(_by_seed(minuend), _by_seed(subtrahend))
    if ours is None:
        return paper or "-"
    half = ours.half_width
    if half is None:
        half = _half_width_of_images(sweep, minuend["name"], subtrahend["name"], *ours.seeds)
    interval = "" if half is None else f" ± {half:.2f}"
    return f"{ours.mean:+.2f}{interval} {paper}".rstrip()


def _half_width_of_images(sweep: Sweep, minuend: str, subtrahend: str, seed: int) -> float | None:
    """Of the difference of two runs; None if one has left no predictions."""
    one, other = (
        read_predictions(sweep.run(sweep.cell(name), seed).directory)
        for name in (minuend, subtrahend)
    )
    if one is None or other is None:
        return None
    asked = (one["predicted"] != NOT_ASKED) & (other["predicted"] != NOT_ASKED)
    return half_width_of_images(one["right"][asked], other["right"][asked])


def _provenance(sweep: Sweep) -> str:
    """Where and with what the runs were trained, one line for each difference."""
    made = Counter(_place(run.last_attempt or {}) for run in sweep.runs() if run.status == "done")
    return "\n".join(f"{count} runs trained on {place}." for place, count in made.items())


def _place(attempt: Mapping[str, Any]) -> str:
    """Where and with what a process trained; what its record lacks is left out."""
    versions = attempt.get("versions")
    said = [
        f"{attempt.get('processor', 'a machine that is not recorded')} "
        f"({attempt.get('device', '?')}, cores per run: {attempt.get('cores', '?')})",
        f"Python {attempt.get('python', '?')}",
    ]
    if isinstance(versions, dict):
        said += [f"{name} {version}" for name, version in versions.items()]
    if isinstance(commit := attempt.get("commit"), str):
        said.append(f"commit {commit[:8]}{' with changes' if attempt.get('dirty') else ''}")
    return ", ".join(said)


def _sizes(sweep: Sweep, cells: Sequence[Mapping[str, Any]]) -> str:
    size = _common(sweep, _IMAGE_SIZE)
    table = markdown.table(
        "cell",
        "conv1 and stages",
        f"MACs at {size}, M" if size else "MACs, M",
        "without classifier, M",
        "parameters",
    )
    for cell in cells:
        if cell["macs"] is None:
            table.add_row(cell["name"], "-", "-", "-", "-")
            continue
        macs = [f"{cell[key] / 1e6:.2f}" for key in ("macs", "macs_without_head")]
        widths = "/".join(map(str, cell["widths"] or ())) or "-"
        table.add_row(cell["name"], widths, *macs, f"{cell['params']:,}")
    return markdown.render(table)


def _contrasts(judged: Sequence[Mapping[str, Any]]) -> str:
    """What claims are made of, one by one."""
    if not judged:
        return ""
    table = markdown.table("above zero, if its claim is true", "seeds", "points", "p", "by itself")
    for each in judged:
        table.add_row(
            weighted(each["contrast"]),
            str(each["seeds"]),
            f"{each['mean']:+.2f} ± {each['half_width']:.2f}",
            f"{each['p']:.2g}",
            each["verdict"],
        )
    return (
        f"{markdown.render(table)}\n\nPaired by seed, ± half of the interval of 95%; p is "
        f"two-sided and corrected for all rows by Holm's procedure."
    )


def weighted(contrast: Mapping[str, float]) -> str:
    """A sum of cells, as ``a - b``."""
    said = []
    for name, weight in sorted(contrast.items(), key=lambda each: each[1] < 0):
        times = "" if abs(weight) == 1 else f"{abs(weight):g} "
        said.append(f"{'-' if weight < 0 else '+'} {times}{name}")
    return " ".join(said).removeprefix("+ ")


_ALIKE = 1.05
"""Most that the networks of a row may cost, as a multiple of the cheapest, to be of equal cost."""


def _unequal(cells: Sequence[Mapping[str, Any]]) -> str:
    """Says in which rows the networks do not cost the same at the size that they were trained at.

    The paper compares the columns of a row at equal cost, at 224x224.
    """
    rows: dict[str, list[float]] = {}
    for cell in cells:
        if cell["macs"] is not None:
            rows.setdefault(cell["row"], []).append(cell["macs"] / 1e6)
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


def _verdict(claim: dict, n: str) -> str:
    return f"undecided at n = {n}" if claim["verdict"] == "undecided" else claim["verdict"]
