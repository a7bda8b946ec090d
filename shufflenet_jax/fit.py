"""A whole training run: from the first step, or the last checkpoint, to the final evaluation."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import jax
from flax import nnx
from jaxtyping import Array

from shufflenet_jax.checkpoint import Checkpoints, Metrics, Restored
from shufflenet_jax.data import (
    NEVER_SKIPPED,
    Batch,
    Broken,
    Dataset,
    eval_batches,
    train_batches,
)
from shufflenet_jax.devices import Devices, any_process, is_lead, share
from shufflenet_jax.errors import InputError
from shufflenet_jax.metrics import MetricsLog, Row
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.train import Evaluation, create_state, make_evaluate, make_train_step


class Diverged(Exception):
    """The loss was no longer a number."""

    def __init__(self, step: int):
        super().__init__(f"the loss was not finite at step {step}")
        self.step = step


class Preempted(Exception):
    """The run was asked to end early; it is saved at a step and goes on from there."""

    def __init__(self, step: int):
        super().__init__(f"preempted at step {step}")
        self.step = step


@dataclass(frozen=True)
class Intervals:
    """How often things are written. They decide what is known of a run, not how it ends.

    Attributes:
      log: Steps between rows of training metrics.
      evaluate: Epochs between evaluations on the test split; the last step always has one.
      checkpoint: Epochs between checkpoints; the last step always has one.
    """

    log: int = 100
    evaluate: int = 5
    checkpoint: int = 1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise InputError(f"{field.name} must be at least 1")


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
      step: Steps taken, of total.
      total: Steps of the whole run.
      loss: Mean training loss since the last report.
      rate: Steps a second since the last report.
    """

    step: int
    total: int
    loss: float
    rate: float


def fit(
    network: nnx.Module,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    directory: Path,
    intervals: Intervals = Intervals(),
    num_workers: int = 0,
    broken: Broken = NEVER_SKIPPED,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Trains a network and returns its evaluation on every test image.

    All devices of all processes share the work. Each process of several calls this with the same
    arguments and prepares its part of every batch; the lead one writes.

    A run that was killed or interrupted continues from its last checkpoint when it is called again
    with the same arguments, and ends with the same bits as one that was not.

    Args:
      network: Freshly initialised.
      dataset: Train and test images.
      recipe: How to train.
      seed: Of the order of the images, of their augmentation and of dropout.
      directory: Receives metrics.jsonl, events/ and checkpoints/. Where broken images are
        skipped, the rows of metrics say how many, as often as they were met ("skipped").
      intervals: How often to log, evaluate and save.
      num_workers: Processes that prepare images; 0 prepares them in this one.
      broken: What is done about images that cannot be read.
      on_progress: Called at every row of training metrics.
      interrupted: Whether to end now; asked before the first step, and after every step and
        every batch of an evaluation. One process of several is enough to end all.

    Raises:
      Diverged: The loss was no longer finite; the step is named.
      Preempted: It was interrupted, and has saved a checkpoint at the step it had reached.
      OSError: The disk is full, or another error of a file; called again once that is mended, it
        goes on from the checkpoint before.
      InputError: An image is broken, or more are than may be skipped; the batch size does not
        divide among the devices; broken images may be skipped, but there are several processes.
    """
    devices = Devices.all()
    devices.check(recipe.batch_size)
    if broken.policy == "skip" and share().count > 1:
        raise InputError(
            "broken images can be skipped by a single process only: set data.broken=error"
        )
    epoch = max(1, len(dataset.train) // recipe.batch_size)
    total = recipe.steps(len(dataset.train))
    optimizer, schedule = recipe.optimizer(total), recipe.schedule(total)
    graphdef, state = create_state(network, optimizer)
    # Whole batches never meet the masked program: where no image is broken, that some may be
    # changes no bit.
    train_step, masked_step = (
        make_train_step(
            graphdef,
            optimizer,
            recipe.label_smoothing,
            seed,
            masked=masked,
            batch_norm=recipe.batch_norm,
            devices=devices,
        )
        for masked in (False, True)
    )
    evaluate = make_evaluate(graphdef, devices)
    directory.mkdir(parents=True, exist_ok=True)
    skipped = {
        split: broken.skipped(split, len(examples), directory)
        for split, examples in (("train", dataset.train), ("test", dataset.test))
    }

    def tests_at(step: int) -> bool:
        return step == total or (step > 0 and step % (intervals.evaluate * epoch) == 0)

    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(closing(Checkpoints(directory / "checkpoints")))
        state, rows, window = checkpoints.restore(state) or Restored(state, [], [])
        state, start = devices.replicate(state), int(state.step)
        log = None
        if is_lead():
            log = stack.enter_context(closing(MetricsLog(directory, rows, start)))

        def write(step: int, split: str, **values: float | int) -> None:
            row: Row = {"step": step, "split": split, **values}
            rows.append(row)
            if log:
                log.write(row)

        def go_on_or_save() -> None:
            """Raises Preempted when interrupted, once the present step is saved."""
            if any_process(interrupted()):
                step = int(state.step)
                if step > start:
                    checkpoints.save(state, rows, _finite(window, step))
                raise Preempted(step)

        def test() -> Evaluation:
            batches = eval_batches(
                dataset.test,
                recipe.preprocessing,
                batch_size=recipe.batch_size,
                num_workers=num_workers,
                skipped=skipped["test"],
                share=share(),
            )
            with closing(batches):
                placed = map(devices.place, batches)
                return evaluate(state, _each(placed, then=go_on_or_save))

        def test_and_log(step: int) -> Evaluation:
            evaluation = test()
            row = dataclasses.asdict(evaluation)
            if broken.policy == "skip":
                row["skipped"] = len(dataset.test) - evaluation.examples
            write(step, "test", **row)
            return evaluation

        go_on_or_save()
        evaluation = None
        # Interrupted in the middle of it.
        if tests_at(start) and not any(_is_test_at(start, row) for row in rows):
            evaluation = test_and_log(start)
        batches = train_batches(
            dataset.train,
            recipe.preprocessing,
            batch_size=recipe.batch_size,
            seed=seed,
            steps=total,
            start_step=start,
            num_workers=num_workers,
            skipped=skipped["train"],
            share=share(),
        )
        stack.enter_context(closing(batches))
        since, steps_since = time.monotonic(), 0
        for step, batch in enumerate(batches, start + 1):
            advance = train_step if batch.mask.all() else masked_step
            state, step_metrics = advance(state, devices.place(batch))
            window.append(step_metrics)
            steps_since += 1
            saves = step == total or step % (intervals.checkpoint * epoch) == 0
            # A row never spans a checkpoint, so that a killed run writes the same rows again.
            if saves or step % intervals.log == 0:
                row = _summary(_finite(window, step))
                if broken.policy == "error":
                    del row["skipped"]
                write(step, "train", **row, learning_rate=float(schedule(step - 1)))
                now = time.monotonic()
                on_progress(Progress(step, total, row["loss"], steps_since / (now - since)))
                window, since, steps_since = [], now, 0
            go_on_or_save()
            if tests_at(step):
                evaluation = test_and_log(step)
                since, steps_since = time.monotonic(), 0
            if saves:
                checkpoints.save(state, rows)
        return evaluation or test()


def _each(batches: Iterable[Batch], then: Callable[[], None]) -> Iterator[Batch]:
    """The batches, with a call after the use of each."""
    for batch in batches:
        yield batch
        then()


def _is_test_at(step: int, row: Row) -> bool:
    return row["step"] == step and row["split"] == "test"


def _finite(window: Sequence[Mapping[str, Array | float]], last_step: int) -> list[Metrics]:
    """The metrics of consecutive steps as numbers.

    Raises:
      Diverged: A loss is not finite.
    """
    rows = [
        {name: float(value) for name, value in metrics.items()}
        for metrics in jax.device_get(window)
    ]
    for step, row in enumerate(rows, last_step - len(rows) + 1):
        if not math.isfinite(row["loss"]):
            raise Diverged(step)
    return rows


def _summary(rows: Sequence[Metrics]) -> Metrics:
    """The mean of each metric over steps, and how many images were skipped in all."""
    skipped = sum(row.get("skipped", 0) for row in rows)
    means = {name: fmean(row[name] for row in rows) for name in rows[0] if name != "skipped"}
    return means | {"skipped": int(skipped)}
