"""What chance decides of a training run: the order of its images, and how each is augmented.

All of it depends on the seed and on where in the run it is asked of, and on nothing else: not on
what was drawn before, or on who asks. So a run goes on anywhere in the same bits, with any number
of devices, processes and workers, whether its images are read anew each time or stay on devices.
"""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from shufflenet_jax.data.preprocess import Moves, Preprocessing, draw_moves
from shufflenet_jax.errors import InputError

# Random numbers of three kinds.
_ORDER, _MOVES, _PIXELS = range(3)


@dataclass(frozen=True)
class Draws:
    """What chance decides of the batches of a training run.

    Attributes:
      seed: Of the run.
      num_examples: Training images; in every epoch each is seen once, in a new order.
      batch_size: Images of a whole batch, which may hold the end of one epoch and the start of
        the next.
      preprocessing: Says how images are augmented.

    Raises:
      InputError: A batch is larger than the data set.
    """

    seed: int
    num_examples: int
    batch_size: int
    preprocessing: Preprocessing

    def __post_init__(self) -> None:
        if self.batch_size > self.num_examples:
            raise InputError(
                f"batch size {self.batch_size} exceeds the {self.num_examples} training images"
            )

    def images(self, step: int) -> Int64[np.ndarray, " b"]:
        """The numbers of the images in a batch; steps count from 0."""
        epoch, start = divmod(step * self.batch_size, self.num_examples)
        images = _order(self.seed, self.num_examples, epoch)[start : start + self.batch_size]
        if missing := self.batch_size - len(images):
            following = _order(self.seed, self.num_examples, epoch + 1)
            images = np.concatenate([images, following[:missing]])
        return images

    def moves(self, step: int) -> Moves:
        """How the images of a batch are moved and mirrored."""
        return draw_moves(self.preprocessing, self.batch_size, _rng(self.seed, _MOVES, step))

    def rng(self, step: int, place: int) -> np.random.Generator:
        """Draws whatever else happens to the image in one place of a batch."""
        return _rng(self.seed, _PIXELS, step, place)


@functools.lru_cache(maxsize=2)  # a batch may be of two epochs
def _order(seed: int, num_examples: int, epoch: int) -> Int64[np.ndarray, " n"]:
    return _rng(seed, _ORDER, epoch).permutation(num_examples)


def _rng(seed: int, *place: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))
