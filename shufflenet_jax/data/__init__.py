"""Image data: TFDS and class folders, PIL preprocessing, grain batches; without TensorFlow."""

from shufflenet_jax.data.broken import NEVER_SKIPPED, Broken, Skipped
from shufflenet_jax.data.colors import Colors
from shufflenet_jax.data.dataset import Dataset, Example, Examples, Found, Identity
from shufflenet_jax.data.decode import BrokenImage
from shufflenet_jax.data.draws import Draws
from shufflenet_jax.data.folder import IMAGE_SUFFIXES
from shufflenet_jax.data.memory import MEMORY_GB, fits
from shufflenet_jax.data.pipeline import (
    AUTO_WORKERS,
    STAND_IN,
    Batch,
    Batches,
    Share,
    eval_batches,
    train_batches,
)
from shufflenet_jax.data.preprocess import IMAGENET, Moves, Preprocessing, eval_image
from shufflenet_jax.data.sources import find, label, load, prepare, resolve

__all__ = [
    "AUTO_WORKERS",
    "IMAGENET",
    "IMAGE_SUFFIXES",
    "MEMORY_GB",
    "NEVER_SKIPPED",
    "STAND_IN",
    "Batch",
    "Batches",
    "Broken",
    "BrokenImage",
    "Colors",
    "Dataset",
    "Draws",
    "Example",
    "Examples",
    "Found",
    "Identity",
    "Moves",
    "Preprocessing",
    "Share",
    "Skipped",
    "eval_batches",
    "eval_image",
    "find",
    "fits",
    "label",
    "load",
    "prepare",
    "resolve",
    "train_batches",
]
