"""Batches of images, made ahead of the accelerator by grain."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from shufflenet_jax.data.preprocess import Preprocessing, eval_image, train_image
from shufflenet_jax.data.sources import Example, Examples
from shufflenet_jax.errors import InputError

# grain is imported where it is used: it takes 0.7 s.

_Pixels = UInt8[np.ndarray, "h w 3"]


class Batch(NamedTuple):
    """Images and their classes.

    Attributes:
      image: RGB from 0 to 255.
      label: Class numbers.
      mask: False where the last batch of an evaluation is padded.
    """

    image: UInt8[np.ndarray, "b h w 3"]
    label: Int32[np.ndarray, " b"]
    mask: Bool[np.ndarray, " b"]


def train_batches(
    examples: Examples,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    seed: int,
    steps: int,
    start_step: int = 0,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """The batches of steps start_step to steps - 1 of a training run.

    The images are shuffled anew every epoch; a batch may hold the end of one epoch and the
    start of the next. Batch k depends on the seed and on k alone, not on where the run was
    resumed or on the number of workers.

    Args:
      num_workers: Processes that make batches; 0 for a thread of this process.

    Raises:
      InputError: A batch is larger than the data set. While iterating: an image is broken.
    """
    import grain

    if batch_size > len(examples):
        raise InputError(f"batch size {batch_size} exceeds the {len(examples)} training images")
    dataset = (
        grain.MapDataset.source(examples)
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(functools.partial(_train_example, preprocessing))
        .batch(batch_size, drop_remainder=True, batch_fn=functools.partial(_batch, batch_size))
    )
    return _iterate(dataset[start_step:steps], num_workers)


def eval_batches(
    examples: Examples, preprocessing: Preprocessing, *, batch_size: int, num_workers: int = 0
) -> Iterator[Batch]:
    """Every example once, in order; the last batch is padded and masked to the full size.

    Args:
      num_workers: Processes that make batches; 0 for a thread of this process.

    Raises:
      InputError: While iterating: an image is broken.
    """
    import grain

    dataset = (
        grain.MapDataset.source(examples)
        .map(functools.partial(_eval_example, preprocessing))
        .batch(batch_size, batch_fn=functools.partial(_batch, batch_size))
    )
    return _iterate(dataset, num_workers)


def _train_example(
    preprocessing: Preprocessing, example: Example, rng: np.random.Generator
) -> tuple[_Pixels, int]:
    return train_image(preprocessing, example["image"], example["key"], rng), example["label"]


def _eval_example(preprocessing: Preprocessing, example: Example) -> tuple[_Pixels, int]:
    return eval_image(preprocessing, example["image"], example["key"]), example["label"]


def _batch(batch_size: int, examples: Sequence[tuple[_Pixels, int]]) -> Batch:
    batch = Batch(
        image=np.zeros((batch_size, *examples[0][0].shape), np.uint8),
        label=np.zeros(batch_size, np.int32),
        mask=np.arange(batch_size) < len(examples),
    )
    for index, (pixels, label) in enumerate(examples):
        batch.image[index] = pixels
        batch.label[index] = label
    return batch


def _iterate(dataset: Any, num_workers: int) -> Iterator[Batch]:
    import grain
    from absl import flags

    # One thread, to work while the accelerator does. A second one contends for the interpreter
    # lock, which halves the speed on tiny images; on large ones workers gain more. A worker
    # prefetches by itself.
    threads = 0 if num_workers else 1
    dataset = dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    )
    if num_workers:
        # grain hands its absl flags on to the workers, which fails where absl.app did not start
        # the program.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers))
    batches = iter(dataset)
    try:
        yield from batches
    finally:
        batches.close()
