"""Runs of a tiny network, and what differs between two of them.

``python tests/runs.py DIRECTORY EPOCHS CHECKPOINT`` is one run in a process, begun or continued. It
prints each step.
"""

import os
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from experiments.sweep import compile_cache
from shufflenet_jax import Stem, shufflenet
from shufflenet_jax.data import Preprocessing, load
from shufflenet_jax.evaluation import Evaluation
from shufflenet_jax.fit import Intervals, fit
from shufflenet_jax.recipe import Recipe

ROOT = Path(__file__).parents[1]
ENDS = (22, 43, 64, 84)
"""The steps at which the epochs of a run of four end."""


def network() -> nnx.Module:
    """The narrowest ShuffleNet, with two units a stage."""
    return shufflenet(
        width=0.25,
        num_classes=10,
        repeats=(1, 1, 1),
        stem=Stem(stride=2, max_pool=False),
        rngs=nnx.Rngs(0),
    )


def train(directory: Path, epochs: int, checkpoint: int = 1, **options) -> Evaluation:
    """Digits, with a row of metrics every step and an evaluation every epoch.

    Args:
      directory: The run's.
      epochs: How many in all.
      checkpoint: Epochs between checkpoints.
      options: Of `fit`.
    """
    recipe = Recipe(
        epochs=epochs,
        batch_size=64,
        learning_rate=0.05,
        preprocessing=Preprocessing(
            image_size=16, crop="shift", flip=False, color=0.0, lighting=0.0
        ),
    )
    intervals = Intervals(log=1, evaluate=1, checkpoint=checkpoint)
    return fit(
        network(),
        load("digits"),
        recipe,
        seed=0,
        directory=directory,
        intervals=intervals,
        **options,
    )


def start(directory: Path, epochs: int, checkpoint: int = 1, **options) -> subprocess.Popen:
    """The same in a process of its own; options are of `Popen`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, *map(str, (directory, epochs, checkpoint))]
    return subprocess.Popen(command, env=environment, **options)


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two finished runs, a line each; empty if they are bitwise equal.

    Compared are every array of the last checkpoint (parameters, statistics of batch normalisation,
    the state of the optimizer, the step) and every byte of the rows of metrics.

    Args:
      one: The directory of a run, that `shufflenet_jax.fit.fit` was given.
      other: The same.
    """
    found = []
    rows = [(run / "metrics.jsonl").read_bytes().split(b"\n") for run in (one, other)]
    for number, (row, other_row) in enumerate(zip_longest(*rows), 1):
        if row != other_row:
            found.append(f"line {number} of metrics.jsonl: {row} and {other_row}")
    steps = [last_step(run) for run in (one, other)]
    if steps[0] != steps[1]:
        return [*found, f"last checkpoint: of step {steps[0]} and {steps[1]}"]
    arrays = [arrays_of(run) for run in (one, other)]
    for name in sorted(arrays[0].keys() | arrays[1].keys()):
        array, other_array = (each.get(name) for each in arrays)
        if array is None or other_array is None:
            found.append(f"{name}: in one checkpoint only")
        elif array.dtype != other_array.dtype or array.shape != other_array.shape:
            found.append(
                f"{name}: {array.dtype}{array.shape}, {other_array.dtype}{other_array.shape}"
            )
        elif array.tobytes() != other_array.tobytes():
            found.append(f"{name}: other bits")
    return found


def last_step(run: Path) -> int:
    """The step of a run's newest checkpoint."""
    names = (path.name for path in (run / "checkpoints").iterdir())
    return max(int(name) for name in names if name.isdecimal())


def arrays_of(run: Path) -> dict[str, np.ndarray]:
    """Every array of a run's newest checkpoint, by its place in the state."""
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(run / "checkpoints" / str(last_step(run)) / "state")
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


if __name__ == "__main__":
    compile_cache.enable()
    run, *epochs = sys.argv[1:]
    train(
        Path(run),
        *map(int, epochs),
        on_progress=lambda progress: print(progress.step, flush=True),
    )
