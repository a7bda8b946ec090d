"""What a trained network says of each test image, as a run leaves it."""

import io
from pathlib import Path

import numpy as np

from shufflenet_jax.files import write_atomically

NOT_ASKED = -1
"""In place of a class, for an image that could not be read."""

_FILE = "predictions.npy"

Predictions = np.ndarray
"""Of shape (n,) and `PREDICTION`, in the order of the split."""

PREDICTION = np.dtype([("predicted", "<i2"), ("right", "?")])
"""A class, or `NOT_ASKED`, and whether it is the image's."""


def write_predictions(directory: Path, predictions: Predictions) -> None:
    """Leaves predictions in the directory of a run."""
    contents = io.BytesIO()
    np.save(contents, predictions, allow_pickle=False)
    write_atomically(directory / _FILE, contents.getvalue())


def read_predictions(directory: Path) -> Predictions | None:
    """What `write_predictions` left; None if nothing, or nothing whole."""
    try:
        return np.load(directory / _FILE, allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
