"""The table of an experiment in the paper's shape, ours beside the paper's."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache, partial
from statistics import fmean, stdev
from typing import Any

from experiments.report import markdown
from experiments.report.claims import verdicts
from experiments.sweep import configuration as configs
from experiments.sweep.budgets import BUDGETS
from experiments.sweep.experiment import Cell
from experiments.sweep.workdir import Sweep
from shufflenet_jax import data
from shufflenet_jax.complexity import complexity

_IMAGE_SIZE = "recipe.preprocessing.image_size"
_Values = tuple[tuple[str, Any], ...]


def summary(sweep: Sweep) -> dict[str, Any]:
    """Everything that a report says, as plain data."""
    counts = cache(partial(_count, sweep))
    cells = [_cell(sweep, cell, counts) for cell in sweep.cells]
    errors = {cell["name"]: cell["errors"] for cell in cells}
    claims = sweep.experiment.claims
    return {
        "experiment": sweep.experiment.name,
        "data": data.label(sweep.config.data.name),
        "cells": cells,
        "claims": [
            {"claim": claim.text, "verdict": verdict}
            for claim, verdict in zip(claims, verdicts(claims, errors), strict=True)
        ],
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
        lists = {key: " ".join(f"{each:.6g}" for each in cell[key]) for key in ("errors", "widths")}
        writer.writerow(cell | lists)
    return text.getvalue().rstrip()


def as_markdown(sweep: Sweep) -> str:
    """The table in the paper's shape, the networks' real sizes, and the claims."""
    report, experiment = summary(sweep), sweep.experiment
    cells = {(cell["row"], cell["column"]): cell for cell in report["cells"]}
    seeds = sorted({cell["n"] for cell in report["cells"]})
    n = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    recipe = sweep.config.recipe
    parts = [
        f"## {experiment.title}",
        f"Top-1 error in percent on {report['data']}, {recipe.epochs} epochs, "
        f"{recipe.preprocessing.image_size}x{recipe.preprocessing.image_size}, n = {n} "
        f"(mean ± standard deviation over seeds); in brackets the paper's, on ImageNet.",
        _results(cells, experiment.difference),
        _provenance(sweep),
        _sizes(report["cells"], recipe.preprocessing.image_size),
        *experiment.remarks,
        "Claims of the paper:",
        "\n".join(f"* {each['claim']} **{_verdict(each, n)}**" for each in report["claims"]),
        f"{_caveat(sweep)} For the claims: python -m experiments run "
        f"{experiment.name} --budget paper --seeds 3 --workdir runs/{experiment.name}-paper",
    ]
    return "\n\n".join(parts)


def _caveat(sweep: Sweep) -> str:
    """What the table can and cannot say; a budget knows it of its own data only."""
    budget, name = BUDGETS[sweep.budget], sweep.config.data.name
    if name == budget.data:
        return budget.verdict
    return f"The paper's claims are about ImageNet, not {data.label(name)}."


FORMATS = {"md": as_markdown, "csv": as_csv, "json": as_json}


def _cell(sweep: Sweep, cell: Cell, counts: Callable[[_Values], dict[str, Any]]) -> dict[str, Any]:
    runs = sweep.runs_of(cell)
    results = [run.result for run in runs]
    states = [
        result["status"] if result else run.status
        for run, result in zip(runs, results, strict=True)
    ]
    done = [result for result in results if result and result["status"] == "done"]
    errors = [result["top1_error"] for result in done]
    return {
        "name": cell.name,
        "row": cell.row,
        "column": cell.column,
        "status": _worst(states),
        "seeds": len(runs),
        "n": len(errors),
        "errors": errors,
        "error_mean": fmean(errors) if errors else None,
        "error_std": stdev(errors) if len(errors) > 1 else None,
        "paper_error": cell.paper_error,
        **(done[0]["network"] if done else counts(_deciding(cell))),
    }


_ORDER = ("failed", "diverged", "damaged", "running", "preempted", "interrupted", "missing", "done")


def _worst(states: Sequence[str]) -> str:
    """One word for all seeds: done only if each is; else the worst of them."""
    return next((state for state in _ORDER if state in states), "missing")


def _deciding(cell: Cell) -> _Values:
    """What decides the counts of a cell's network, in a form that tells equal ones."""
    keys = ("network.", _IMAGE_SIZE)
    return tuple(item for item in cell.overrides.items() if item[0].startswith(keys))


def _count(sweep: Sweep, values: _Values) -> dict[str, Any]:
    """Real channels and counts, at the image size of the run, of a network not yet trained."""
    size = dict(values).get(_IMAGE_SIZE, sweep.config.recipe.preprocessing.image_size)
    network = configs.network_of(configs.changed(sweep.config, dict(values)), num_classes=1000)
    return {"widths": network.widths, **asdict(complexity(network, (size, size, 3)))}


def _results(cells: dict[tuple[str, str], dict], difference: tuple[str, str] | None) -> str:
    rows = list(dict.fromkeys(row for row, _ in cells))
    columns = list(dict.fromkeys(column for _, column in cells))
    extra = [f"{difference[0]} - {difference[1]}"] if difference else []
    table = markdown.table("model", *columns, *extra)
    for row in rows:
        entries = [_entry(cells.get((row, column))) for column in columns]
        if difference:
            entries.append(_difference(*(cells[row, column] for column in difference)))
        table.add_row(row, *entries)
    return markdown.render(table)


def _entry(cell: dict | None) -> str:
    if cell is None:  # nor has the paper one
        return "-"
    return f"{_ours(cell)} [{cell['paper_error']:.1f}]"


def _ours(cell: dict) -> str:
    if not cell["errors"]:
        return cell["status"]
    spread = "" if cell["error_std"] is None else f" ± {cell['error_std']:.2f}"
    some = f" ({cell['n']} of {cell['seeds']} seeds, others {cell['status']})"
    return f"{cell['error_mean']:.2f}{spread}{'' if cell['status'] == 'done' else some}"


def _difference(minuend: dict, subtrahend: dict) -> str:
    paper = f"[{minuend['paper_error'] - subtrahend['paper_error']:.1f}]"
    if not (minuend["errors"] and subtrahend["errors"]):
        return paper
    return f"{minuend['error_mean'] - subtrahend['error_mean']:+.2f} {paper}"


def _provenance(sweep: Sweep) -> str:
    """Where and with what the runs were trained, one line for each difference."""
    made = Counter(
        f"{attempt['processor']} ({attempt['device']}, cores per run: {attempt['cores']}), "
        f"Python {attempt['python']}, "
        + ", ".join(f"{name} {version}" for name, version in attempt["versions"].items())
        + (f", commit {attempt['commit'][:8]}" if attempt["commit"] else "")
        for run in sweep.runs()
        if run.status == "done"
        for attempt in run.attempts[-1:]
    )
    return "\n".join(f"{count} runs trained on {place}." for place, count in made.items())


def _sizes(cells: list[dict], image_size: int) -> str:
    table = markdown.table(
        "cell",
        "conv1 and stages",
        f"MACs at {image_size}, M",
        "without classifier, M",
        "parameters",
    )
    for cell in cells:
        macs = [f"{cell[key] / 1e6:.2f}" for key in ("macs", "macs_without_head")]
        widths = "/".join(map(str, cell["widths"]))
        table.add_row(cell["name"], widths, *macs, f"{cell['params']:,}")
    return markdown.render(table)


def _verdict(claim: dict, n: str) -> str:
    return f"undecided at n = {n}" if claim["verdict"] == "undecided" else claim["verdict"]
