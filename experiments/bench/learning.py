"""Learning curves: one network, trained by this code and by PyTorch.

Both have the same recipe and get the same images in the same order. PyTorch trains it from our
weights, and from its own: what a difference is due to, the training or the start, is seen apart.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from experiments.bench.peers import PEERS
from experiments.report import markdown
from experiments.sweep import budgets, compile_cache, configuration, provenance
from experiments.sweep.build import Training, build, data_dir_of
from shufflenet_jax import data
from shufflenet_jax.errors import InputError
from shufflenet_jax.fit import fit
from shufflenet_jax.metrics import read_metrics

SEEDS = 3

_WIDTH, _GROUPS = 0.25, 3
_SHOWN = 6
"""Epochs in the table, the last among them."""

Curve = list[float]
"""Top-1 error in percent after each epoch."""


def table(budget: str, assignments: Sequence[str], threads: int) -> str:
    """Trains the network in every way; a Markdown table.

    Args:
      budget: The name of the setting: data, stem and recipe.
      assignments: ``KEY=VALUE`` changes to it.
      threads: Of PyTorch.

    Raises:
      InputError: PyTorch is not installed; or the setting is none, or of no use here.
    """
    if reason := PEERS["torch"].missing():
        raise InputError(reason)
    from experiments.bench import torch_training

    compile_cache.enable()
    config = budgets.budget(budget)
    configuration.override(config, assignments)
    if config.network.name != "shufflenet":
        raise InputError(f"only a shufflenet is written in PyTorch too, not {config.network.name}")
    config.network.width, config.network.groups = _WIDTH, _GROUPS
    config.intervals.evaluate = 1
    values = {**configuration.settings(config), **configuration.identity(config)}
    dataset = data.load(values["data.name"], data_dir_of(values))

    def in_torch(seed: int, own_start: bool) -> Curve:
        return torch_training.curve(build(values, seed, dataset), seed, threads, own_start)

    ways: dict[str, Callable[[int], Curve]] = {
        "this code": lambda seed: _ours(build(values, seed, dataset), seed),
        "PyTorch, the same start": lambda seed: in_torch(seed, own_start=False),
        "PyTorch, its own start": lambda seed: in_torch(seed, own_start=True),
    }
    curves = {name: [train(seed) for seed in range(SEEDS)] for name, train in ways.items()}
    shown = sorted({round(each) for each in np.linspace(1, config.recipe.epochs, _SHOWN)})
    made = markdown.table("error after epoch", *map(str, shown))
    for name, of_seeds in curves.items():
        by_epoch = [[curve[epoch - 1] for curve in of_seeds] for epoch in shown]
        made.add_row(name, *(f"{fmean(each):.2f} ± {stdev(each):.2f}" for each in by_epoch))
    versions = provenance.versions(("jax", "flax", "torch"))
    return (
        f"{markdown.render(made)}\n\nTop-1 error in percent of {_WIDTH:g}x g={_GROUPS} on "
        f"{data.label(config.data.name)}, mean ± standard deviation over {SEEDS} seeds. "
        f"{provenance.processor()}, {', '.join(map(' '.join, versions.items()))}."
    )


def _ours(training: Training, seed: int) -> Curve:
    with tempfile.TemporaryDirectory() as directory:
        fit(
            training.network,
            training.dataset,
            training.recipe,
            seed=seed,
            directory=Path(directory),
            intervals=replace(training.intervals, checkpoint=training.recipe.epochs),
            memory_gb=training.memory_gb,
        )
        rows = read_metrics(Path(directory))
    return [row["top1_error"] for row in rows if row["split"] == "test"]
