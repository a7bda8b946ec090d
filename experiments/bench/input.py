"""What input costs: images a second of each way to make batches, and of the steps that eat them.

The images are JPEG files in class folders, drawn on the fly. `fit` keeps small data sets on the
devices (`Resident`) and reads others anew in every epoch (`Streamed`).
"""

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import jax
import numpy as np
from flax import nnx
from PIL import Image

from experiments.bench import machine
from experiments.bench.measure import in_fresh_process, rotate
from experiments.report import markdown
from shufflenet_jax import Stem, data, shufflenet
from shufflenet_jax.data import Batch, Dataset, Preprocessing
from shufflenet_jax.devices import ONE_DEVICE
from shufflenet_jax.inputs import Inputs, Streamed
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.resident import Resident
from shufflenet_jax.train import create_state, make_train_step

IMAGES = 8_192
"""Training images that are drawn."""

BATCH = 64
ROUNDS = 15

_WAYS: dict[str, type[Inputs]] = {"streamed": Streamed, "resident": Resident}
_BASE = "a batch in memory"
_STEPS = 10
_CLASSES = 8
_SIZE = 32
_PREPROCESSING = Preprocessing(
    image_size=_SIZE, crop="shift", color=0.0, lighting=0.0, eval_resize=1.0
)


def table(threads: int) -> str:
    """Measures both; two Markdown tables."""
    with tempfile.TemporaryDirectory() as directory:
        draw(Path(directory), IMAGES)
        made = markdown.table(f"input, {_SIZE}px", "images/s a core", "us an image")
        for name, seconds in in_fresh_process(1, cpu_seconds, directory).items():
            made.add_row(name, f"{1 / seconds:,.0f}", f"{1e6 * seconds:.1f}")
        steps = markdown.table("training step", "ms", "ratio", "processor time, ms", "ratio")
        times = in_fresh_process(threads, step_times, directory)
        base = _medians(times[_BASE])
        for name, turns in times.items():
            entries = []
            for taken, least in zip(_medians(turns), base, strict=True):
                entries += [f"{taken:.2f}", f"{taken / least:.3f}"]
            steps.add_row(name, *entries)
    found = in_fresh_process(threads, machine.describe)
    return (
        f"{markdown.render(made)}\n\nProcessor time; files are in memory, as they were just drawn."
        f"\n\n{markdown.render(steps)}\n\n0.25x g=8 with a stem of stride 2, batch {BATCH}, "
        f"{threads} threads, in turns of {_STEPS} steps: medians of {ROUNDS} rounds, and ratios to "
        f"{_BASE}. "
        f"{found['processor']}, jax {found['versions']['jax']}."
    )


def draw(root: Path, count: int) -> None:
    """Draws JPEG files to train on, and a batch of them to test on."""
    random = np.random.default_rng(0)
    for split, number in (("train", count), ("val", BATCH)):
        for label in range(_CLASSES):
            (root / split / f"class{label}").mkdir(parents=True)
        for index in range(number):
            # Smooth, as photographs are: JPEG takes longer for noise.
            small = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8))
            image = small.resize((_SIZE, _SIZE), Image.Resampling.BICUBIC)
            image.save(root / split / f"class{index % _CLASSES}" / f"{index:06}.jpg", quality=95)


def _made(way: str, dataset: Dataset) -> Inputs:
    skipped = dict.fromkeys(("train", "test"))
    return _WAYS[way](
        dataset=dataset,
        preprocessing=_PREPROCESSING,
        batch_size=BATCH,
        devices=ONE_DEVICE,
        num_workers=0,
        skipped=skipped,
        go_on=lambda: None,
    )


def cpu_seconds(directory: str) -> dict[str, float]:
    """Processor time of one image: of each way, and of the decoding before the first batch."""
    dataset = data.load(f"folder:{directory}")
    steps = len(dataset.train) // BATCH
    found = {}
    for way in _WAYS:
        batches = _made(way, dataset).train(0, 10**9, 0)
        began = process_time()
        next(batches)  # decodes, imports and compiles
        if way == "resident":
            found["decoded, once a run"] = (process_time() - began) / len(dataset.train)
        for batch in itertools.islice(batches, 5):
            jax.block_until_ready(batch.image)
        began = process_time()
        for batch in itertools.islice(batches, steps):
            jax.block_until_ready(batch.image)
        found[way] = (process_time() - began) / (steps * BATCH)
        batches.close()
    return found


def step_times(directory: str) -> dict[str, list[tuple[float, float]]]:
    """A step on a batch in memory, and on the batches of each way.

    Returns:
      Of each turn, the time and the processor time of a step, in ms.
    """
    dataset = data.load(f"folder:{directory}")
    streams = {way: _made(way, dataset).train(0, 10**9, 0) for way in _WAYS}
    batch = ONE_DEVICE.place(next(streams["streamed"]))
    runs = {_BASE: _steps(itertools.repeat(batch))}
    runs |= {way: _steps(batches) for way, batches in streams.items()}
    for run in runs.values():
        run()
    times = rotate({name: partial(_turn, run) for name, run in runs.items()}, ROUNDS)
    for batches in streams.values():
        batches.close()
    return times


def _turn(run: Callable[[], Any]) -> tuple[float, float]:
    """Time and processor time of a step, in ms."""
    wall, processor = perf_counter(), process_time()
    for _ in range(_STEPS):
        run()
    return 1000 * (perf_counter() - wall) / _STEPS, 1000 * (process_time() - processor) / _STEPS


def _medians(turns: Sequence[tuple[float, float]]) -> list[float]:
    return [median(each) for each in zip(*turns, strict=True)]


def _steps(batches: Iterator[Batch]) -> Callable[[], Any]:
    """Returns what takes one step."""
    network = shufflenet(
        groups=8,
        width=0.25,
        num_classes=_CLASSES,
        stem=Stem(stride=2, max_pool=False),
        rngs=nnx.Rngs(0),
    )
    optimizer = Recipe(learning_rate=1e-3).make_optimizer(1000)
    graphdef, state = create_state(network, optimizer)
    train_step = make_train_step(graphdef, optimizer, 0.0)

    def run() -> Any:
        nonlocal state
        state, metrics = train_step(state, ONE_DEVICE.place(next(batches)))
        return jax.block_until_ready(metrics["loss"])

    return run
