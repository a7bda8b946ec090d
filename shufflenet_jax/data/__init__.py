"""Image data: TFDS sources, PIL preprocessing and grain batches; TensorFlow is not needed."""

from shufflenet_jax.data.pipeline import Batch, eval_batches, train_batches
from shufflenet_jax.data.preprocess import Preprocessing
from shufflenet_jax.data.sources import Dataset, Examples, check, load, prepare

__all__ = [
    "Batch",
    "Dataset",
    "Examples",
    "Preprocessing",
    "check",
    "eval_batches",
    "load",
    "prepare",
    "train_batches",
]
