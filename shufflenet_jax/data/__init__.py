"""Image data: TFDS and class folders, PIL preprocessing, grain batches; without TensorFlow."""

from shufflenet_jax.data.broken import NEVER_SKIPPED, Broken, Skipped
from shufflenet_jax.data.dataset import Dataset, Example, Examples, Found, Identity
from shufflenet_jax.data.decode import BrokenImage
from shufflenet_jax.data.pipeline import Batch, Share, eval_batches, train_batches
from shufflenet_jax.data.preprocess import Preprocessing
from shufflenet_jax.data.sources import find, label, load, prepare, resolve

__all__ = [
    "NEVER_SKIPPED",
    "Batch",
    "Broken",
    "BrokenImage",
    "Dataset",
    "Example",
    "Examples",
    "Found",
    "Identity",
    "Preprocessing",
    "Share",
    "Skipped",
    "eval_batches",
    "find",
    "label",
    "load",
    "prepare",
    "resolve",
    "train_batches",
]
