"""A whole training run: from the first step, or the last checkpoint, to the final evaluation."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array

from shufflenet_jax.checkpoint import Checkpoints
from shufflenet_jax.data import NEVER_SKIPPED, Broken, Dataset, eval_batches, train_batches
from shufflenet_jax.errors import InputError
from shufflenet_jax.metrics import MetricsLog
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.train import Evaluation, State, create_state, make_evaluate, make_train_step


class Diverged(Exception):
    """The loss was no longer a number."""

    def __init__(self, step: int):
        super().__init__(f"the loss was not finite at step {step}")
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
) -> Evaluation:
    """Trains a network and returns its evaluation on every test image.

    A run that was killed continues from its last checkpoint when it is called again with the same
    arguments, and ends with the same bits as one that was not.

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

    Raises:
      Diverged: The loss was no longer finite; the step is named.
      InputError: An image is broken, or more are than may be skipped.
    """
    epoch = max(1, len(dataset.train) // recipe.batch_size)
    total = recipe.steps(len(dataset.train))
    optimizer, schedule = recipe.optimizer(total), recipe.schedule(total)
    graphdef, state = create_state(network, optimizer)
    # Whole batches never meet the masked program: where no image is broken, that some may be
    # changes no bit.
    train_step, masked_step = (
        make_train_step(graphdef, optimizer, recipe.label_smoothing, seed, masked=masked)
        for masked in (False, True)
    )
    evaluate = make_evaluate(graphdef)
    directory.mkdir(parents=True, exist_ok=True)
    skipped = {
        split: broken.skipped(split, len(examples), directory)
        for split, examples in (("train", dataset.train), ("test", dataset.test))
    }

    def test(state: State) -> Evaluation:
        batches = eval_batches(
            dataset.test,
            recipe.preprocessing,
            batch_size=recipe.batch_size,
            num_workers=num_workers,
            skipped=skipped["test"],
        )
        return evaluate(state, batches)

    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(closing(Checkpoints(directory / "checkpoints")))
        state = checkpoints.restore(state) or state
        start = int(state.step)
        metrics = stack.enter_context(closing(MetricsLog(directory, start)))
        batches = train_batches(
            dataset.train,
            recipe.preprocessing,
            batch_size=recipe.batch_size,
            seed=seed,
            steps=total,
            start_step=start,
            num_workers=num_workers,
            skipped=skipped["train"],
        )
        evaluation = None
        window, since = [], time.monotonic()
        for step, batch in enumerate(batches, start + 1):
            advance = train_step if batch.mask.all() else masked_step
            state, step_metrics = advance(state, batch)
            window.append(step_metrics)
            last = step == total
            saves = last or step % (intervals.checkpoint * epoch) == 0
            # A row never spans a checkpoint, so that a resumed run writes the same rows.
            if saves or step % intervals.log == 0:
                row = _summary(window, step)
                if broken.policy == "error":
                    del row["skipped"]
                metrics.write(step, "train", **row, learning_rate=float(schedule(step - 1)))
                now = time.monotonic()
                on_progress(Progress(step, total, row["loss"], len(window) / (now - since)))
                window, since = [], now
            if last or step % (intervals.evaluate * epoch) == 0:
                evaluation = test(state)
                row = dataclasses.asdict(evaluation)
                if broken.policy == "skip":
                    row["skipped"] = len(dataset.test) - evaluation.examples
                metrics.write(step, "test", **row)
                since = time.monotonic()
            if saves:
                checkpoints.save(state)
    return evaluation or test(state)


def _summary(window: list[dict[str, Array]], last_step: int) -> dict[str, float | int]:
    """The mean of each metric over consecutive steps up to last_step, and the skipped images."""
    rows = jax.device_get(window)
    for step, row in enumerate(rows, last_step - len(rows) + 1):
        if not math.isfinite(row["loss"]):
            raise Diverged(step)
    skipped = sum(int(row.pop("skipped", 0)) for row in rows)
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return means | {"skipped": skipped}
