"""Two runs held against each other: whatever happened to them, they should end in the same bits."""

from itertools import zip_longest
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp


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
