"""Batches on their way to the training steps: placed ahead of them, and how long steps wait."""

import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from shufflenet_jax.data import Batch, Batches
from shufflenet_jax.devices import Devices

_log = logging.getLogger(__name__)

WAITING_WARNED = 0.1
"""The share of time spent waiting for images from which on a run is warned of it, once."""

# What a warning is based on, at least: shorter times say little.
_WARNED_SECONDS = 10.0

# Batches that are on the devices before their steps begin, and steps that may be under way: so many
# that the devices always have work, and so few that batches do not pile up in their memory.
_AHEAD = 1
_UNDER_WAY = 2


class Pace(NamedTuple):
    """How fast steps follow each other.

    Attributes:
      rate: Steps a second.
      waiting: The share of the time in which no step could begin for want of images.
    """

    rate: float
    waiting: float


class Feed:
    """Iterates over batches, on the devices, each with whether no image of it is masked.

    The next one is placed there while a step runs. Whoever takes a step hands in one of its results
    (`running`); by it is known how long the devices had nothing to do.

    Args:
      batches: Those of consecutive steps. They are closed with the feed.
      devices: What takes them.
      step: Steps taken before.
      workers: Processes that make the batches, to be named in a warning.
    """

    def __init__(self, batches: Batches, devices: Devices, step: int, workers: int):
        self._batches, self._devices, self._workers = batches, devices, workers
        self._watch = ThreadPoolExecutor(max_workers=1)
        self._ended: deque[Future[float]] = deque()
        self._warned: bool | None = None  # None until the first steps have run
        self.pause(step)

    def __iter__(self) -> Iterator[tuple[Batch, bool]]:
        ahead: deque[tuple[Batch, bool]] = deque()
        while True:
            asked = monotonic()
            batch = next(self._batches, None)
            self._count_waiting(asked)
            if batch is not None:
                ahead.append((self._devices.place(batch), bool(np.all(batch.mask))))
            if not ahead:
                return
            if batch is None or len(ahead) > _AHEAD:
                yield ahead.popleft()

    def running(self, result: Array) -> None:
        """Takes note of the step that has just been started, by one of its results."""
        self._ended.append(self._watch.submit(_when_ready, result))
        if len(self._ended) > _UNDER_WAY:
            self._ended.popleft().result()

    def _count_waiting(self, asked: float) -> None:
        """Counts the time since it was asked for a batch, as far as no step was running."""
        if not self._ended:
            return
        last = self._ended[-1]
        if last.done():
            self._waited += max(0.0, monotonic() - max(asked, last.result()))

    def pause(self, step: int) -> None:
        """Leaves out the time until now, and with it the steps."""
        self._since, self._step, self._waited = monotonic(), step, 0.0

    def pace(self, step: int) -> Pace:
        """The pace since it was last asked, or paused; warns once if too much of it was waiting."""
        seconds = monotonic() - self._since
        pace = Pace((step - self._step) / seconds, min(1.0, self._waited / seconds))
        self._warn(pace.waiting, seconds)
        self.pause(step)
        return pace

    def _warn(self, waiting: float, seconds: float) -> None:
        if self._warned is None:  # workers were starting
            self._warned = False
        elif not self._warned and waiting > WAITING_WARNED and seconds > _WARNED_SECONDS:
            self._warned = True
            _log.warning(
                "%.0f%% of the time the devices wait for images, which %s: give it more cores and "
                "set data.workers to as many but one, or store smaller images",
                100 * waiting,
                f"{self._workers} processes prepare" if self._workers else "one thread prepares",
            )

    def close(self) -> None:
        """Ends what makes the batches."""
        self._watch.shutdown(wait=False, cancel_futures=True)
        self._batches.close()


def _when_ready(result: Array) -> float:
    jax.block_until_ready(result)
    return monotonic()
