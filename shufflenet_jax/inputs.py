"""The batches of a run, of either way to make them: here anew in every epoch, or `Resident`."""

import abc
import functools
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

import jax
from jaxtyping import Array

from shufflenet_jax.data import (
    AUTO_WORKERS,
    Batches,
    Dataset,
    Preprocessing,
    Skipped,
    eval_batches,
    train_batches,
)
from shufflenet_jax.devices import Devices, share
from shufflenet_jax.recolor import recolored

# A thread feeds so many cores that train on images of 224 pixels: a step of the narrowest network
# takes 11 times the processor time that its images do. On 2 cores a thread, one process and two
# were measured to take as much of it; a thread needs no start, and less memory.
_CORES_A_THREAD = 8

# A worker takes seconds to start, in which one thread prepares as many images.
_LEAST_IMAGES = 2000


@dataclass(frozen=True)
class Inputs(abc.ABC):
    """Where the batches of a run come from: this process's share of each.

    Attributes:
      dataset: Train and test images.
      preprocessing: How they become batches.
      batch_size: Images of a whole batch.
      devices: What each batch is split over.
      num_workers: Processes that prepare images; 0 prepares them in a thread of this one, and
        AUTO_WORKERS chooses (`workers`).
      skipped: By split, what receives the broken images, which are masked. Without it they are an
        error.
      go_on: Called now and then while many images are prepared before a batch is there, equally
        often in all processes of a run; it may raise.
    """

    dataset: Dataset
    preprocessing: Preprocessing
    batch_size: int
    devices: Devices
    num_workers: int
    skipped: Mapping[str, Skipped | None]
    go_on: Callable[[], None]

    def workers(self, split: str) -> int:
        """Processes that prepare the images of a split, "train" or "test".

        Where they are to be chosen: beside an accelerator all cores but one prepare images, as far
        as there are images enough to be worth a start. Where the cores themselves train, they are
        better left alone by all but a thread.
        """
        if self.num_workers != AUTO_WORKERS:
            return self.num_workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        assert cores is not None
        spare = cores // _CORES_A_THREAD if jax.default_backend() == "cpu" else cores - 1
        images = self.dataset.train if split == "train" else self.dataset.test
        return min(spare, len(images) // _LEAST_IMAGES)

    @abc.abstractmethod
    def train(self, seed: int, steps: int, start_step: int) -> Batches:
        """The batches of `shufflenet_jax.data.train_batches`, in their final colours.

        Raises:
          InputError: A batch is larger than the data set, or does not divide; an image cannot be
            read, or more are broken than may be skipped.
        """

    @abc.abstractmethod
    def test(self) -> Batches:
        """The batches of `shufflenet_jax.data.eval_batches`.

        Raises:
          InputError: As `train`.
        """


class Streamed(Inputs):
    """Images are read, decoded and augmented each time that they are met, and then forgotten.

    All is done by processors of the host but for the colours, which change on the devices.
    """

    def train(self, seed: int, steps: int, start_step: int) -> Batches:
        making = train_batches(
            self.dataset.train,
            self.preprocessing,
            batch_size=self.batch_size,
            seed=seed,
            steps=steps,
            start_step=start_step,
            num_workers=self.workers("train"),
            skipped=self.skipped["train"],
            share=share(),
        )
        with closing(making):
            for batch in making:
                if batch.colors is not None:
                    image = self._recolored(self.devices.place((batch.image, batch.colors)))
                    batch = batch._replace(image=image, colors=None)
                yield batch

    @functools.cached_property
    def _recolored(self) -> Callable[..., Array]:
        return jax.jit(self.devices.map(lambda both: recolored(*both)))

    def test(self) -> Batches:
        return eval_batches(
            self.dataset.test,
            self.preprocessing,
            batch_size=self.batch_size,
            num_workers=self.workers("test"),
            skipped=self.skipped["test"],
            share=share(),
        )
