"""Batches of images, made ahead of the accelerator by grain."""

import functools
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Int32, UInt8

from shufflenet_jax.data.broken import Skipped
from shufflenet_jax.data.dataset import Example, Examples
from shufflenet_jax.data.decode import BrokenImage
from shufflenet_jax.data.preprocess import Preprocessing, eval_image, train_image
from shufflenet_jax.errors import InputError

# grain is imported where it is used: it takes 0.7 s.

_Pixels = UInt8[np.ndarray, "h w 3"]

# What stands in the place of a broken image: the mean colour of ImageNet, which is all zero once it
# is normalised.
_STAND_IN = (124, 116, 104)


class Batch(NamedTuple):
    """Images and their classes: NumPy's arrays as they are made, JAX's on devices.

    Attributes:
      image: RGB from 0 to 255.
      label: Class numbers.
      mask: False where an image is broken and skipped, and where the last batch of an evaluation
        is padded.
    """

    image: UInt8[np.ndarray | Array, "b h w 3"]
    label: Int32[np.ndarray | Array, " b"]
    mask: Bool[np.ndarray | Array, " b"]


Batches = Generator[Batch, None, None]
"""Batches one after another; closing it ends whatever makes them."""


class _Sample(NamedTuple):
    """One image of a batch; broken is its key if it is, else None."""

    image: _Pixels
    label: int
    broken: str | None


@dataclass(frozen=True)
class Share:
    """One of several equal parts of every batch, each of which a process of its own prepares.

    Attributes:
      index: Which part: the first holds the first images of a batch.
      count: How many parts.
    """

    index: int = 0
    count: int = 1

    def size(self, batch_size: int) -> int:
        """Images in the part.

        Raises:
          InputError: There would be none, or the parts would not be equal.
        """
        if batch_size < 1:
            raise InputError(f"batch size is {batch_size}, but must be at least 1")
        if batch_size % self.count:
            raise InputError(f"batch size {batch_size} does not divide into {self.count} parts")
        return batch_size // self.count


WHOLE = Share()


def train_batches(
    examples: Examples,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    seed: int,
    steps: int,
    start_step: int = 0,
    num_workers: int = 0,
    skipped: Skipped | None = None,
    share: Share = WHOLE,
) -> Batches:
    """The batches of steps start_step to steps - 1 of a training run.

    The images are shuffled anew every epoch; a batch may hold the end of one epoch and the
    start of the next. Batch k depends on the seed and on k alone, not on where the run was
    resumed, on the number of workers, or on the number of shares that together are the batch. An
    image that is skipped keeps its place: the others are the same as if it were intact.

    Args:
      batch_size: Images of a whole batch.
      num_workers: Processes that make batches; 0 for a thread of this process.
      skipped: Receives the broken images, which are masked. Without it they are an error.
      share: The part of each batch to make; no other image is read.

    Raises:
      InputError: A batch is larger than the data set, or it does not divide. While iterating: an
        image cannot be read, or more are broken than `skipped` allows.
    """
    import grain

    size = share.size(batch_size)
    if batch_size > len(examples):
        raise InputError(f"batch size {batch_size} exceeds the {len(examples)} training images")
    _check_workers(num_workers)
    dataset = (
        grain.MapDataset.source(examples)
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(functools.partial(_train_example, preprocessing, skipped is not None))
        .batch(size, drop_remainder=True, batch_fn=functools.partial(_batch, size))
    )
    begin, end = (step * share.count for step in (start_step, steps))
    parts = dataset[begin + share.index : end : share.count]
    return _iterate(parts, num_workers, skipped)


def eval_batches(
    examples: Examples,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    num_workers: int = 0,
    skipped: Skipped | None = None,
    share: Share = WHOLE,
) -> Batches:
    """Every example once, in order; the last batch is padded and masked to the full size.

    Args:
      batch_size: Images of a whole batch.
      num_workers: Processes that make batches; 0 for a thread of this process.
      skipped: Receives the broken images, which are masked. Without it they are an error.
      share: The part of each batch to make; there are as many of each part as of any other.

    Raises:
      InputError: A batch does not divide. While iterating: an image cannot be read, or more are
        broken than `skipped` allows.
    """
    import grain

    size = share.size(batch_size)
    _check_workers(num_workers)
    dataset = (
        grain.MapDataset.source(examples)
        .map(functools.partial(_eval_example, preprocessing, skipped is not None))
        .batch(size, batch_fn=functools.partial(_batch, size))
    )
    parts = dataset[share.index :: share.count]
    # Of the last batch, there may be no images left for this share.
    shape = (size, preprocessing.image_size, preprocessing.image_size, 3)
    empty = Batch(np.zeros(shape, np.uint8), np.zeros(size, np.int32), np.zeros(size, bool))
    missing = -(-len(examples) // batch_size) - len(parts)
    return _followed(_iterate(parts, num_workers, skipped), [empty] * missing)


def _followed(batches: Batches, more: Sequence[Batch]) -> Batches:
    yield from batches
    yield from more


def _check_workers(num_workers: int) -> None:
    if num_workers < 0:
        raise InputError(f"num_workers is {num_workers}, but must be at least 0")


def _train_example(
    preprocessing: Preprocessing, skip: bool, example: Example, rng: np.random.Generator
) -> _Sample:
    read = functools.partial(train_image, rng=rng)
    return _sample(read, preprocessing, skip, example)


def _eval_example(preprocessing: Preprocessing, skip: bool, example: Example) -> _Sample:
    return _sample(eval_image, preprocessing, skip, example)


def _sample(
    read: Callable[[Preprocessing, bytes, str], _Pixels],
    preprocessing: Preprocessing,
    skip: bool,
    example: Example,
) -> _Sample:
    try:
        image = read(preprocessing, example["image"], example["key"])
    except BrokenImage:
        if not skip:
            raise
        size = preprocessing.image_size
        stand_in = np.full((size, size, 3), _STAND_IN, np.uint8)
        return _Sample(stand_in, example["label"], example["key"])
    return _Sample(image, example["label"], None)


def _batch(batch_size: int, samples: Sequence[_Sample]) -> tuple[Batch, list[str]]:
    """A batch, and the keys of the images in it that are broken."""
    image = np.zeros((batch_size, *samples[0].image.shape), np.uint8)
    label = np.zeros(batch_size, np.int32)
    mask = np.zeros(batch_size, bool)
    for index, sample in enumerate(samples):
        image[index] = sample.image
        label[index] = sample.label
        mask[index] = sample.broken is None
    broken = [sample.broken for sample in samples if sample.broken is not None]
    return Batch(image, label, mask), broken


def _iterate(dataset: Any, num_workers: int, skipped: Skipped | None) -> Batches:
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
        for batch, broken in batches:
            for key in broken:
                assert skipped is not None  # else it was an error
                skipped.add(key)
            yield batch
    finally:
        batches.close()
