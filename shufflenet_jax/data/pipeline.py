"""Batches of images, made ahead of the accelerator by grain."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from shufflenet_jax.data.broken import Skipped
from shufflenet_jax.data.colors import Colors, unchanged
from shufflenet_jax.data.dataset import Example, Examples
from shufflenet_jax.data.decode import BrokenImage
from shufflenet_jax.data.draws import Draws
from shufflenet_jax.data.preprocess import Preprocessing, eval_image, train_image
from shufflenet_jax.errors import InputError

if TYPE_CHECKING:  # it imports JAX, and images are prepared without
    from jaxtyping import Array

# grain is imported where it is used: it takes 0.7 s.

_Pixels = UInt8[np.ndarray, "s s 3"]

STAND_IN = (124, 116, 104)
"""What stands in the place of a broken image: the mean colour of ImageNet, RGB.

It is all zero once it is normalised.
"""

AUTO_WORKERS = -1
"""In place of a number of workers: as many as suit the machine (`shufflenet_jax.inputs.Inputs`)."""


class Batch(NamedTuple):
    """Images and their classes: NumPy's arrays as they are made, JAX's on devices.

    Attributes:
      image: RGB from 0 to 255.
      label: Class numbers.
      mask: False where an image is broken and skipped, and where the last batch of an evaluation
        is padded.
      colors: How the colours of the images are yet to change (`shufflenet_jax.recolor`); None
        where they are as a network sees them.
    """

    image: "UInt8[np.ndarray | Array, 'b h w 3']"
    label: "Int32[np.ndarray | Array, ' b']"
    mask: "Bool[np.ndarray | Array, ' b']"
    colors: Colors | None = None


Batches = Generator[Batch, None, None]
"""Batches one after another; closing it ends whatever makes them."""


@dataclass(frozen=True)
class Share:
    """One of several equal parts of every batch, each of which a process of its own prepares.

    Attributes:
      index: Which part: the first holds the first images of a batch.
      count: How many parts.
    """

    index: int = 0
    count: int = 1

    def places(self, batch_size: int) -> range:
        """The places of a batch that the part holds.

        Raises:
          InputError: There would be none, or the parts would not be equal.
        """
        if batch_size < 1:
            raise InputError(f"batch size is {batch_size}, but must be at least 1")
        if batch_size % self.count:
            raise InputError(f"batch size {batch_size} does not divide into {self.count} parts")
        size = batch_size // self.count
        return range(self.index * size, (self.index + 1) * size)


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
    start of the next. Their colours are yet to change. Batch k depends on the seed and on k alone,
    not on where the run was resumed, on the number of workers, or on the number of shares that
    together are the batch. An image that is skipped keeps its place: the others are the same as if
    it were intact.

    Args:
      batch_size: Images of a whole batch.
      num_workers: Processes that make batches; 0 for a thread of this process.
      skipped: Receives the broken images, which are masked. Without it they are an error.
      share: The part of each batch to make; no other image is read.

    Raises:
      InputError: A batch is larger than the data set, or it does not divide. While iterating: an
        image cannot be read, or more are broken than `skipped` allows.
    """
    places = share.places(batch_size)
    _check_workers(num_workers)
    draws = Draws(seed, len(examples), batch_size, preprocessing)
    make = _TrainBatch(examples, draws, places, skipped is not None)
    return _received(_ahead(make, range(start_step, steps), num_workers), skipped)


def eval_batches(
    examples: Examples,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    num_workers: int = 0,
    skipped: Skipped | None = None,
    share: Share = WHOLE,
    ahead: bool = True,
) -> Batches:
    """Every example once, in order; the last batch is padded and masked to the full size.

    Args:
      batch_size: Images of a whole batch.
      num_workers: Processes that make batches; 0 for a thread of this process.
      skipped: Receives the broken images, which are masked. Without it they are an error.
      share: The part of each batch to make; there are as many of each part as of any other.
      ahead: Whether the thread makes batches before they are asked for. False makes them when
        they are, without a thread, for one who does nothing but to wait for them.

    Raises:
      InputError: A batch does not divide. While iterating: an image cannot be read, or more are
        broken than `skipped` allows.
    """
    places = share.places(batch_size)
    _check_workers(num_workers)
    make = _EvalBatch(examples, preprocessing, batch_size, places, skipped is not None)
    numbers = range(-(-len(examples) // batch_size))
    if num_workers or ahead:
        making = _ahead(make, numbers, num_workers)
    else:
        making = (make(number) for number in numbers)
    return _received(making, skipped)


_Made = tuple[Batch, list[str]]
"""A batch, and the keys of the images in it that are broken."""

_Making = Generator[_Made, None, None]


@dataclass(frozen=True)
class _TrainBatch:
    """Makes places of the batch of a step. Can be pickled, for workers."""

    examples: Examples
    draws: Draws
    places: range
    skip: bool

    def __call__(self, step: int) -> _Made:
        numbers, moves = self.draws.images(step), self.draws.moves(step)
        colors = unchanged(len(self.places))

        def read(example: Example, row: int) -> _Pixels:
            place = self.places[row]
            rng = self.draws.rng(step, place)
            pixels, drawn = train_image(
                preprocessing, example["image"], example["key"], moves.of(place), rng
            )
            for all_rows, own in zip(colors, drawn, strict=True):
                all_rows[row] = own
            return pixels

        preprocessing = self.draws.preprocessing
        chosen = numbers[self.places.start : self.places.stop].tolist()
        batch, broken = _filled(
            chosen, self.examples, read, preprocessing, len(self.places), self.skip
        )
        return (batch._replace(colors=colors) if preprocessing.recolors else batch), broken


@dataclass(frozen=True)
class _EvalBatch:
    """Makes places of a batch of an evaluation, by its number. Can be pickled, for workers."""

    examples: Examples
    preprocessing: Preprocessing
    batch_size: int
    places: range
    skip: bool

    def __call__(self, number: int) -> _Made:
        def read(example: Example, row: int) -> _Pixels:
            return eval_image(self.preprocessing, example["image"], example["key"])

        start = number * self.batch_size
        # Of the last batch, there may be no images left for these places.
        numbers = range(len(self.examples))[start + self.places.start : start + self.places.stop]
        return _filled(
            numbers, self.examples, read, self.preprocessing, len(self.places), self.skip
        )


def _filled(
    numbers: Sequence[int],
    examples: Examples,
    read: Callable[[Example, int], _Pixels],
    preprocessing: Preprocessing,
    size: int,
    skip: bool,
) -> _Made:
    """Makes a batch of examples by their numbers; what is left of its size is masked."""
    batch = Batch(
        np.zeros((size, *preprocessing.image_shape), np.uint8),
        np.zeros(size, np.int32),
        np.zeros(size, bool),
    )
    broken = []
    for row, number in enumerate(numbers):
        example = examples[number]
        batch.label[row] = example["label"]
        try:
            batch.image[row] = read(example, row)
            batch.mask[row] = True
        except BrokenImage:
            if not skip:
                raise
            batch.image[row] = STAND_IN
            broken.append(example["key"])
    return batch, broken


def _check_workers(num_workers: int) -> None:
    if num_workers < 0:
        raise InputError(f"num_workers is {num_workers}, but must be at least 0")


def _ahead(make: Callable[[int], _Made], numbers: range, num_workers: int) -> _Making:
    """Makes batches in a thread or in workers, before they are asked for."""
    import grain
    from absl import flags

    # One thread, to work while the accelerator does. A second one contends for the interpreter
    # lock, which halves the speed on tiny images; on large ones workers gain more. A worker
    # prefetches by itself.
    threads = 0 if num_workers else 1
    dataset = (
        grain.MapDataset.range(numbers.start, numbers.stop)
        .map(make)
        .to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    )
    if num_workers:
        # grain hands its absl flags on to the workers, which fails where absl.app did not start
        # the program.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers))
    made = iter(dataset)
    try:
        yield from made
    finally:
        made.close()


def _received(making: _Making, skipped: Skipped | None) -> Batches:
    """The batches alone; their broken images are counted."""
    with closing(making):
        for batch, broken in making:
            for key in broken:
                assert skipped is not None  # else it was an error
                skipped.add(key)
            yield batch
