"""Image data: TFDS sources, PIL preprocessing and grain batches; TensorFlow is not needed."""

from shufflenet_jax.data.broken import NEVER_SKIPPED, Broken, Skipped
from shufflenet_jax.data.pipeline import Batch, Share, eval_batches, train_batches
from shufflenet_jax.data.preprocess import Preprocessing
from shufflenet_jax.data.sources import Dataset, Examples, check, label, load, prepare

__all__ = [
    "NEVER_SKIPPED",
    "Batch",
    "Broken",
    "Dataset",
    "Examples",
    "Preprocessing",
    "Share",
    "Skipped",
    "check",
    "eval_batches",
    "label",
    "load",
    "prepare",
    "train_batches",
]
