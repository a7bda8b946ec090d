"""Small data sets: decoded once, kept on the devices as bytes, and moved and mirrored there.

Reading, decoding and augmenting an image of 32 pixels takes a processor as long as a step of a
small network takes for it. Where training sees the evaluation images and no more than moves them
(`Preprocessing.only_moves`), they are decoded once a run instead, and every batch is gathered from
them by a small program of its own. Its images, their order and their moves are those that
`shufflenet_jax.data.train_batches` makes, bit by bit: which way a run takes changes no result.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt8

from shufflenet_jax.data import (
    STAND_IN,
    Batch,
    Batches,
    Draws,
    Moves,
    eval_batches,
)
from shufflenet_jax.devices import share
from shufflenet_jax.inputs import Inputs

# Images that are decoded between two looks at whether to go on.
_PART = 256


class _Picks(NamedTuple):
    """What a batch is made of.

    Attributes:
      number: Of each image.
      moves: Of each image.
      intact: False where an image is broken.
    """

    number: Int32[np.ndarray | Array, " b"]
    moves: Moves
    intact: Bool[np.ndarray | Array, " b"]


class _Decoded(NamedTuple):
    """The training images: their pixels on the devices, the rest on the host."""

    image: UInt8[np.ndarray | Array, "n s s 3"]
    label: Int32[np.ndarray, " n"]
    intact: Bool[np.ndarray, " n"]


class Resident(Inputs):
    """Images stay on the devices, once they are decoded for the first batch that is asked for.

    Every device holds all training images, as any batch may want any of them from it, and its share
    of each batch of the test images.
    """

    def train(self, seed: int, steps: int, start_step: int) -> Batches:
        places = share().places(self.batch_size)
        own = slice(places.start, places.stop)
        draws = Draws(seed, len(self.dataset.train), self.batch_size, self.preprocessing)
        decoded = self._train
        for step in range(start_step, steps):
            number = draws.images(step)[own]
            moves = Moves(*(each[own] for each in draws.moves(step)))
            intact = decoded.intact[number]
            picks = self.devices.place(_Picks(number.astype(np.int32), moves, intact))
            yield Batch(self._pick(picks, decoded.image), decoded.label[number], intact)

    def test(self) -> Batches:
        yield from self._test

    @functools.cached_property
    def _pick(self) -> Callable[..., Array]:
        return jax.jit(self.devices.map(_moved))

    @functools.cached_property
    def _train(self) -> _Decoded:
        count = len(self.dataset.train)
        image = np.empty((count, *self.preprocessing.image_shape), np.uint8)
        label, intact = np.empty(count, np.int32), np.empty(count, bool)
        parts = eval_batches(
            self.dataset.train,
            self.preprocessing,
            batch_size=_PART,
            num_workers=self.workers("train"),
            skipped=self.skipped["train"],
            ahead=False,
        )
        for start, part in zip(range(0, count, _PART), self._each(parts), strict=True):
            rows = slice(start, min(start + _PART, count))
            kept = slice(rows.stop - start)
            image[rows], label[rows] = part.image[kept], part.label[kept]
            intact[rows] = part.mask[kept]
        return _Decoded(self.devices.replicate(image), label, intact)

    @functools.cached_property
    def _test(self) -> list[Batch]:
        parts = eval_batches(
            self.dataset.test,
            self.preprocessing,
            batch_size=self.batch_size,
            num_workers=self.workers("test"),
            skipped=self.skipped["test"],
            share=share(),
            ahead=False,
        )
        return [self.devices.place(part) for part in self._each(parts)]

    def _each(self, parts: Batches) -> Iterator[Batch]:
        with closing(parts):
            for part in parts:
                yield part
                self.go_on()


def _moved(picks: _Picks, images: UInt8[Array, "n s s 3"]) -> UInt8[Array, "b s s 3"]:
    """Gathers some of the images, moved and mirrored."""
    x, y, flip = picks.moves
    places = jnp.arange(images.shape[1], dtype=jnp.int32)[None, :]
    rows = places + y[:, None]
    columns = jnp.where(flip[:, None], places[:, ::-1], places) + x[:, None]
    moved = images.at[picks.number[:, None, None], rows[:, :, None], columns[:, None, :]].get(
        mode="fill", fill_value=0, wrap_negative_indices=False
    )
    stand_in = jnp.array(STAND_IN, jnp.uint8).reshape(1, 1, 1, 3)
    return jnp.where(picks.intact[:, None, None, None], moved, stand_in)
