"""What input costs: images a second of each way to make batches, and of the steps that eat them.

The images are JPEG files in class folders: small ones that are drawn on the fly, and for the
recipe of 224 pixels larger ones, drawn too or the user's own. `fit` keeps small data sets on the
devices (`Resident`) and reads others anew in every epoch (`Streamed`).
"""

import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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
from experiments.bench.input_peers import PEERS, SIZE, files_of
from experiments.bench.input_peers import Batch as PeerBatch
from experiments.bench.measure import fresh_process, in_fresh_process, processors, rotate
from experiments.report import markdown
from shufflenet_jax import Stem, data, shufflenet
from shufflenet_jax.data import Batch, Dataset, Preprocessing
from shufflenet_jax.devices import ONE_DEVICE
from shufflenet_jax.inputs import Inputs, Streamed
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.resident import Resident
from shufflenet_jax.train import create_state, make_train_step

BATCH = 64
ROUNDS = 15

_WAYS: dict[str, type[Inputs]] = {"streamed": Streamed, "resident": Resident}
_BASE = "a batch in memory"
_CLASSES = 8


@dataclass(frozen=True)
class Setting:
    """Images, and a network that is trained on them.

    Attributes:
      images: Training images that are drawn.
      extent: Their width and height.
      preprocessing: How they are augmented.
      ways: How batches are made of them.
      groups, width, stem: Of the network.
      batch: Images of a step.
      steps: Steps in a turn.
    """

    images: int
    extent: tuple[int, int]
    preprocessing: Preprocessing
    ways: tuple[str, ...]
    groups: int
    width: float
    stem: Stem
    batch: int
    steps: int

    def __str__(self) -> str:
        size = self.preprocessing.image_size
        return f"{self.width:g}x g={self.groups}, {size}px, batch {self.batch}"


SMALL = Setting(
    images=8_192,
    extent=(32, 32),
    preprocessing=Preprocessing(32, "shift", color=0.0, lighting=0.0, eval_resize=1.0),
    ways=("streamed", "resident"),
    groups=8,
    width=0.25,
    stem=Stem(stride=2, max_pool=False),
    batch=BATCH,
    steps=10,
)
LARGE = Setting(
    images=512,
    extent=(256, 192),
    preprocessing=Preprocessing(SIZE),
    ways=("streamed",),
    groups=3,
    width=1.0,
    stem=Stem(),
    batch=32,
    steps=2,
)


def table(threads: int, images: Path | None = None) -> str:
    """Measures all; four Markdown tables.

    Args:
      threads: Of the training steps; images are made by one.
      images: Class folders of the images of 224 pixels; None draws some.
    """
    with tempfile.TemporaryDirectory() as directory:
        small, large = Path(directory, "small"), images or Path(directory, "large")
        draw(small, SMALL)
        if images is None:
            draw(large, LARGE)
        parts = [
            _made_table(small),
            _recipe_table(large, recipe_seconds(large, list(PEERS))),
            _step_table(threads, SMALL, small),
            _step_table(threads, LARGE, large),
        ]
    found = in_fresh_process(threads, machine.describe)
    return "\n\n".join([*parts, f"{found['processor']}, jax {found['versions']['jax']}."])


def _made_table(root: Path) -> str:
    made = markdown.table("input, 32px", "images/s a core", "us an image")
    for name, seconds in in_fresh_process(1, cpu_seconds, SMALL, str(root)).items():
        made.add_row(name, f"{1 / seconds:,.0f}", f"{1e6 * seconds:.1f}")
    return f"{markdown.render(made)}\n\nProcessor time; files are in memory, as they were read."


def _recipe_table(root: Path, times: Mapping[str, Sequence[float]]) -> str:
    rows = markdown.table("recipe, 224px", "images/s a core", "us an image", "ours is faster by")
    for name, turns in times.items():
        # Of the same round, as the machine may be busier in another.
        ratio = median(other / own for other, own in zip(turns, times["ours"], strict=True))
        seconds = median(turns)
        rows.add_row(name, f"{1 / seconds:,.0f}", f"{1e6 * seconds:.0f}", f"{ratio:.2f}")
    files = files_of(root)
    mean = sum(file.stat().st_size for file in files) / len(files) / 1000
    rounds = len(times["ours"])
    notes = [f" {name} {PEERS[name].note}." for name in times if PEERS[name].note]
    return (
        f"{markdown.render(rows)}\n\nProcessor time, on one processor, of all that a process does; "
        f"medians of {rounds} rounds in turns, and of the ratios of a round. {len(files)} JPEGs of "
        f"{mean:.0f} kB.{''.join(notes)}"
    )


def _step_table(threads: int, setting: Setting, root: Path) -> str:
    steps = markdown.table(
        f"training step, {setting}", "ms", "ratio", "processor time, ms", "ratio"
    )
    times = in_fresh_process(threads, step_times, setting, str(root))
    rounds = len(times[_BASE])
    for name, turns in times.items():
        entries = []
        for taken, ratio in zip(_medians(turns), _ratios(turns, times[_BASE]), strict=True):
            entries += [f"{taken:.2f}", f"{ratio:.3f}"]
        steps.add_row(name, *entries)
    return (
        f"{markdown.render(steps)}\n\n{threads} threads, in turns of {setting.steps} steps: "
        f"medians of {rounds} rounds, and of the ratios to {_BASE} in the same round. On a busy "
        f"machine that of the processor time says more."
    )


def draw(root: Path, setting: Setting) -> None:
    """Draws JPEG files to train on, and a batch of them to test on."""
    random = np.random.default_rng(0)
    for split, number in (("train", setting.images), ("val", setting.batch)):
        for label in range(_CLASSES):
            (root / split / f"class{label}").mkdir(parents=True)
        for index in range(number):
            # Smooth, as photographs are: JPEG takes longer for noise.
            small = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8))
            image = small.resize(setting.extent, Image.Resampling.BICUBIC)
            image.save(root / split / f"class{index % _CLASSES}" / f"{index:06}.jpg", quality=95)


def _made(way: str, setting: Setting, dataset: Dataset) -> Inputs:
    skipped = dict.fromkeys(("train", "test"))
    return _WAYS[way](
        dataset=dataset,
        preprocessing=setting.preprocessing,
        batch_size=setting.batch,
        devices=ONE_DEVICE,
        num_workers=0,
        skipped=skipped,
        go_on=lambda: None,
    )


def cpu_seconds(setting: Setting, directory: str) -> dict[str, float]:
    """Processor time of one image: of each way, and of the decoding before the first batch."""
    dataset = data.load(f"folder:{directory}")
    steps = len(dataset.train) // setting.batch
    found = {}
    for way in setting.ways:
        batches = _made(way, setting, dataset).train(0, 10**9, 0)
        began = process_time()
        next(batches)  # decodes, imports and compiles
        if way == "resident":
            found["decoded, once a run"] = (process_time() - began) / len(dataset.train)
        for batch in itertools.islice(batches, 5):
            jax.block_until_ready(batch.image)
        began = process_time()
        for batch in itertools.islice(batches, steps):
            jax.block_until_ready(batch.image)
        found[way] = (process_time() - began) / (steps * setting.batch)
        batches.close()
    return found


def recipe_seconds(
    root: Path,
    names: Sequence[str],
    rounds: int = ROUNDS,
    batches: int = 4,
    batch_size: int = BATCH,
) -> dict[str, list[float]]:
    """Processor time of an image in each turn, of those of the peers that are installed.

    Each has a process of its own, on one and the same processor.
    """
    for name in names:
        if reason := PEERS[name].missing():
            print(f"{name} is left out: {reason}", file=sys.stderr)
    able = [name for name in names if not PEERS[name].missing()]
    with ExitStack() as stack:
        processes = {name: stack.enter_context(fresh_process(processors(1))) for name in able}
        for name, process in processes.items():
            process.submit(_begin, name, str(root), batch_size).result()
        turns: Mapping[str, Callable[[], float]] = {
            name: lambda process=process: process.submit(_take, batches, batch_size).result()  # type: ignore[misc]
            for name, process in processes.items()
        }
        return rotate(turns, rounds)


_batches: Iterator[PeerBatch]
"""What the process of a peer makes in its turns."""

_spent = 0.0
"""Its processor time up to the end of the last one: what threads make ahead counts in the next."""


def _begin(name: str, root: str, batch_size: int) -> None:
    """In the process of a peer."""
    global _batches
    _batches = PEERS[name].make(Path(root), batch_size)
    _take(2, batch_size)


def _take(batches: int, batch_size: int) -> float:
    """In the process of a peer: its turn; seconds an image."""
    global _spent
    for _ in itertools.islice(_batches, batches):
        pass
    before, _spent = _spent, process_time()
    return (_spent - before) / (batches * batch_size)


def step_times(
    setting: Setting, directory: str, rounds: int = ROUNDS
) -> dict[str, list[tuple[float, float]]]:
    """A step on a batch in memory, and on the batches of each way.

    Returns:
      Of each turn, the time and the processor time of a step, in ms.
    """
    dataset = data.load(f"folder:{directory}")
    streams = {way: _made(way, setting, dataset).train(0, 10**9, 0) for way in setting.ways}
    batch = ONE_DEVICE.place(next(streams["streamed"]))
    classes = dataset.num_classes
    runs = {_BASE: _steps(setting, classes, itertools.repeat(batch))}
    runs |= {way: _steps(setting, classes, batches) for way, batches in streams.items()}
    for run in runs.values():
        run()
    times = rotate({name: partial(_turn, run, setting.steps) for name, run in runs.items()}, rounds)
    for batches in streams.values():
        batches.close()
    return times


def _turn(run: Callable[[], Any], steps: int) -> tuple[float, float]:
    """Time and processor time of a step, in ms."""
    wall, processor = perf_counter(), process_time()
    for _ in range(steps):
        run()
    return 1000 * (perf_counter() - wall) / steps, 1000 * (process_time() - processor) / steps


def _ratios(
    turns: Sequence[tuple[float, float]], base: Sequence[tuple[float, float]]
) -> list[float]:
    """Medians of the ratios, round by round."""
    return _medians(
        [(one / least, two / less) for (one, two), (least, less) in zip(turns, base, strict=True)]
    )


def _medians(turns: Sequence[tuple[float, float]]) -> list[float]:
    return [median(each) for each in zip(*turns, strict=True)]


def _steps(setting: Setting, classes: int, batches: Iterator[Batch]) -> Callable[[], Any]:
    """Returns what takes one step."""
    network = shufflenet(
        groups=setting.groups,
        width=setting.width,
        num_classes=classes,
        stem=setting.stem,
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
