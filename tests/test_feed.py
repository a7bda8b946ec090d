"""The way of batches to the steps: ahead of them, bounded, and with the waits counted."""

import dataclasses
import logging
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_broken import Normalised, write_pets
from test_recolor import PREPROCESSING
from test_resident import inputs

from shufflenet_jax import data
from shufflenet_jax.data import AUTO_WORKERS, Batch
from shufflenet_jax.devices import ONE_DEVICE
from shufflenet_jax.errors import InputError
from shufflenet_jax.feed import Feed
from shufflenet_jax.fit import Intervals, fit
from shufflenet_jax.inputs import Streamed
from shufflenet_jax.metrics import read_metrics
from shufflenet_jax.recipe import Recipe


def batch_of(number, masked=()):
    mask = np.ones(2, bool)
    mask[list(masked)] = False
    return Batch(np.full((2, 4, 4, 3), number, np.uint8), np.zeros(2, np.int32), mask)


def made(count, log, seconds=0.0):
    for number in range(count):
        time.sleep(seconds)
        log.append(f"made {number}")
        yield batch_of(number, masked=[1] if number == 2 else [])


def test_batches_come_in_order_one_ahead_of_the_steps():
    log = []
    feed = Feed(made(4, log), ONE_DEVICE, 0, 0)
    for number, (batch, is_whole) in enumerate(feed):
        assert isinstance(batch.image, jax.Array)
        assert (np.asarray(batch.image) == number).all()
        assert is_whole == (number != 2)
        feed.running(batch.label)
        log.append(f"step {number}")
    feed.close()
    assert log == [
        *("made 0", "made 1", "step 0", "made 2", "step 1", "made 3", "step 2", "step 3"),
    ]


@pytest.mark.parametrize("count", [0, 1])
def test_few_batches(count):
    feed = Feed(made(count, []), ONE_DEVICE, 0, 0)
    assert len(list(feed)) == count
    feed.close()


def test_closing_ends_what_makes_the_batches():
    ended = []

    def making():
        try:
            yield from made(9, [])
        finally:
            ended.append(True)

    feed = Feed(making(), ONE_DEVICE, 0, 0)
    next(iter(feed))
    feed.close()
    assert ended


def test_an_error_of_a_batch_is_raised():
    def making():
        yield batch_of(0)
        raise InputError("cannot read image x")

    feed = Feed(making(), ONE_DEVICE, 0, 0)
    with pytest.raises(InputError, match="cannot read image x"):
        list(feed)
    feed.close()


@jax.jit
def computed(value, count):
    """What takes a processor a while, which nobody waits for that asks for it."""
    return jax.lax.fori_loop(0, count, lambda _, each: jnp.sin(each) + 1, value)


class Steps:
    """Steps that follow each other, and take about so many seconds each."""

    def __init__(self, seconds):
        self.last = computed(jnp.ones(1000), 1)
        jax.block_until_ready(self.last)
        began = time.monotonic()
        jax.block_until_ready(computed(self.last, 4000))
        self.count = max(1, round(4000 * seconds / (time.monotonic() - began)))

    def take(self):
        self.last = computed(self.last, self.count)
        return self.last


def waiting(batch_seconds, step_seconds, count=7):
    feed, steps = Feed(made(count, [], batch_seconds), ONE_DEVICE, 0, 0), Steps(step_seconds)
    for step, _ in enumerate(feed):
        if step == 1:
            feed.pause(step)
        feed.running(steps.take())
    pace = feed.pace(count)
    feed.close()
    return pace


@pytest.mark.parametrize(
    ("batch_seconds", "step_seconds", "least", "most"),
    [(0.0, 0.2, 0.0, 0.2), (0.2, 0.0, 0.6, 1.0), (0.4, 0.3, 0.0, 0.8)],
)
def test_only_time_without_a_step_is_waiting(batch_seconds, step_seconds, least, most):
    pace = waiting(batch_seconds, step_seconds)
    assert least <= pace.waiting <= most
    assert pace.rate > 0


def test_steps_do_not_pile_up():
    """Of those that were begun, all but two have ended before another batch is placed."""
    feed, steps, results = Feed(made(6, []), ONE_DEVICE, 0, 0), Steps(0.1), []
    for _ in feed:
        results.append(steps.take())
        feed.running(results[-1])
        assert all(result.is_ready() for result in results[:-2])
    feed.close()


def test_a_run_that_waits_is_warned_once(caplog, monkeypatch):
    monkeypatch.setattr("shufflenet_jax.feed._WARNED_SECONDS", 0.0)
    with caplog.at_level(logging.WARNING):
        feed = Feed(made(6, [], 0.05), ONE_DEVICE, 0, 3)
        for step, (batch, _) in enumerate(feed, 1):
            feed.running(batch.label)
            feed.pace(step)
        feed.close()
    (message,) = caplog.messages
    assert "% of the time the devices wait for images, which 3 processes prepare" in message
    assert "data.workers" in message


def test_waiting_is_in_progress_and_events_and_not_in_rows(tmp_path):
    """Which are the same bits, whatever a machine is busy with."""
    dataset = data.load(f"folder:{write_pets(tmp_path / 'pets', {})}")
    progress = []
    preprocessing = dataclasses.replace(PREPROCESSING, image_size=16)
    fit(
        Normalised(),
        dataset,
        Recipe(epochs=1, batch_size=16, learning_rate=0.01, preprocessing=preprocessing),
        seed=0,
        directory=tmp_path / "run",
        intervals=Intervals(log=1),
        on_progress=progress.append,
    )
    assert len(progress) == 2
    assert all(0 <= each.waiting <= 1 for each in progress)
    rows = [row for row in read_metrics(tmp_path / "run") if row["split"] == "train"]
    assert all("waiting" not in row for row in rows)
    (events,) = (tmp_path / "run" / "events").iterdir()
    assert events.read_bytes().count(b"train/waiting") == 2


def test_workers_choose_themselves(tmp_path, monkeypatch):
    dataset = data.load("digits")

    def workers(cores, backend, count=10**6, num_workers=AUTO_WORKERS):
        monkeypatch.setattr("os.sched_getaffinity", lambda _: range(cores), raising=False)
        monkeypatch.setattr(jax, "default_backend", lambda: backend)

        class Many:
            def __len__(self):
                return count

            def __getitem__(self, index):
                return dataset.train[index]

        many = data.Dataset("many", Many(), Many(), dataset.class_names)
        return inputs(Streamed, many, tmp_path, PREPROCESSING, num_workers=num_workers).workers(
            "train"
        )

    assert [workers(cores, "cpu") for cores in (1, 7, 8, 32)] == [0, 0, 1, 4]
    assert [workers(cores, "gpu") for cores in (1, 2, 16)] == [0, 1, 15]
    assert workers(16, "gpu", count=1999) == 0
    assert workers(16, "gpu", count=10_000) == 5
    assert [workers(2, "cpu", num_workers=n) for n in (0, 3)] == [0, 3]
