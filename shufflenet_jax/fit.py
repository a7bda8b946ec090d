"""A whole training run: from the first step, or the last checkpoint, to the final evaluation."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from flax import nnx

from shufflenet_jax.checkpoint import Checkpoints, Restored
from shufflenet_jax.data import (
    AUTO_WORKERS,
    MEMORY_GB,
    NEVER_SKIPPED,
    Batch,
    Broken,
    Dataset,
    fits,
)
from shufflenet_jax.devices import Devices, is_lead, share
from shufflenet_jax.errors import InputError
from shufflenet_jax.evaluation import Answers, Evaluation, make_evaluate
from shufflenet_jax.feed import Feed
from shufflenet_jax.finetuning import head_of
from shufflenet_jax.inputs import Streamed
from shufflenet_jax.interruption import Interruption
from shufflenet_jax.intervals import DEFAULT_INTERVALS, Intervals, Timetable
from shufflenet_jax.memory import compile_to_fit
from shufflenet_jax.metrics import Hyperparameters, MetricsLog, Row
from shufflenet_jax.predictions import write_predictions
from shufflenet_jax.profile import Profile
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.record import Diverged, Preempted, Record
from shufflenet_jax.resident import Resident
from shufflenet_jax.train import create_state, make_train_step

__all__ = ["Diverged", "Intervals", "Preempted", "Progress", "fit"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
      step: Steps taken, of total.
      total: Steps of the whole run.
      loss: Mean training loss since the last report.
      rate: Steps a second since the last report.
      waiting: Share of the time since then in which the devices had to wait for images.
    """

    step: int
    total: int
    loss: float
    rate: float
    waiting: float = 0.0


def fit(
    network: nnx.Module,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    directory: Path,
    intervals: Intervals = DEFAULT_INTERVALS,
    num_workers: int = AUTO_WORKERS,
    memory_gb: float = MEMORY_GB,
    broken: Broken = NEVER_SKIPPED,
    hyperparameters: Hyperparameters = MappingProxyType({}),
    profile_steps: int = 0,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_row: Callable[[Row], None] = lambda row: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Trains a network and returns its evaluation on every test image.

    All devices of all processes share the work. Each process of several calls this with the same
    arguments and prepares its part of every batch; the lead one writes.

    A run that was killed or interrupted continues from its last checkpoint when it is called again
    with the same arguments, and ends with the same bits as one that was not.

    Args:
      network: Freshly initialised. Its arrays are used up: `shufflenet_jax.load_trained` gives the
        trained network.
      dataset: Train and test images.
      recipe: How to train.
      seed: Of the order of the images, of their augmentation and of dropout.
      directory: Receives metrics.jsonl, events/ and checkpoints/, and in the end predictions.npy,
        what the network says of each test image (`read_predictions`). Where broken images are
        skipped, the rows of metrics say how many, as often as they were met ("skipped").
      intervals: How often to log, evaluate and save.
      num_workers: Processes that prepare images; 0 prepares them in this one, and AUTO_WORKERS
        chooses by cores and device (`shufflenet_jax.inputs.Inputs.workers`).
      memory_gb: Gigabytes of 10^9 bytes that the images of the data set may take on each device.
        If they take less, and training sees them moved and mirrored only, they are decoded once
        and stay there (`Resident`); else, or with 0, they are read anew in every epoch. No bit of
        the result depends on it.
      broken: What is done about images that cannot be read.
      hyperparameters: What TensorBoard shows beside the metrics, to compare runs by.
      profile_steps: Steps to trace, of those that are taken now; see `Profile`, which is given
        profile/ of the directory.
      on_progress: Called at every row of training metrics.
      on_row: Called with every row of metrics, in the process that writes; where a run goes on,
        first with those that it has written before.
      interrupted: Whether to end now; asked before the first step, after every step and every
        batch of an evaluation, and between the parts of images that are decoded to stay. One
        process of several is enough to end all, which happens within a few seconds, at a step on
        which they agree (`Interruption`).

    Raises:
      Diverged: The loss was no longer finite; the step is named.
      Preempted: It was interrupted, and has saved a checkpoint at the step it had reached.
      OSError: The disk is full, or another error of a file; called again once that is mended, it
        goes on from the checkpoint before.
      InputError: An image is broken, or more are than may be skipped; the batch size does not
        divide among the devices and micro-batches, or not as batch normalisation asks for; broken
        images may be skipped, but there are several processes; the checkpoints are of another
        network; a training step needs more memory than a device has.
    """
    devices = Devices.all()
    devices.check(recipe.batch_size, recipe.accumulate, recipe.batch_norm)
    if broken.policy == "skip" and share().count > 1:
        raise InputError(
            "broken images can be skipped by a single process only: set data.broken=error"
        )
    total = recipe.steps(len(dataset.train))
    timetable = Timetable(intervals, len(dataset.train), recipe.batch_size, total)
    head = head_of(network) if recipe.backbone_rate != 1 else None
    optimizer, schedule = recipe.make_optimizer(total, head), recipe.schedule(total)
    graphdef, state = create_state(network, optimizer, averaged=recipe.ema > 0)
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
            accumulate=recipe.accumulate,
            precision=recipe.precision,
            recompute=recipe.recompute,
            deterministic=recipe.deterministic,
            ema=recipe.ema,
            preprocessing=recipe.preprocessing,
            learnable=None if recipe.backbone_rate else head,
            devices=devices,
        )
        for masked in (False, True)
    )
    evaluate = make_evaluate(
        graphdef, devices, recipe.preprocessing, recipe.precision, recipe.deterministic
    )
    directory.mkdir(parents=True, exist_ok=True)
    skipped = {
        split: broken.skipped(split, len(examples), directory)
        for split, examples in (("train", dataset.train), ("test", dataset.test))
    }

    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(closing(Checkpoints(directory / "checkpoints")))
        restored = checkpoints.restore(state) or Restored(state, [], [])
        start, logs = int(restored.state.step), []
        if is_lead():
            log = MetricsLog(directory, restored.rows, start, hyperparameters)
            logs = [stack.enter_context(closing(log)).write, lambda row, aside: on_row(row)]
            for row in restored.rows:
                on_row(row)
        restored = restored._replace(state=devices.replicate(restored.state))
        record = Record(restored, checkpoints, logs, Interruption(interrupted))
        del state, restored  # only the record's is trained; no other takes up memory

        record.go_on_or_save()
        resident = fits(dataset, recipe.preprocessing, memory_gb)
        if start < total:
            shape = recipe.preprocessing.image_shape
            train_step = compile_to_fit(
                train_step,
                record.state,
                devices.describe(recipe.batch_size, shape),
                recipe,
                held=(len(dataset.train) + len(dataset.test)) * math.prod(shape) * resident,
            )
        images = (Resident if resident else Streamed)(
            dataset=dataset,
            preprocessing=recipe.preprocessing,
            batch_size=recipe.batch_size,
            devices=devices,
            num_workers=num_workers,
            skipped=skipped,
            go_on=record.go_on_or_save,
        )

        def test() -> Answers:
            with closing(images.test()) as batches:
                placed = map(devices.place, batches)
                return evaluate(record.state, _each(placed, then=record.go_on_or_save))

        def test_and_log(step: int) -> Answers:
            answers = test()
            row = dataclasses.asdict(answers.evaluation())
            if broken.policy == "skip":
                row["skipped"] = len(dataset.test) - row["examples"]
            record.write(step, "test", row)
            return answers

        answers = None
        # Interrupted in the middle of it.
        if timetable.evaluates(start) and not record.has_test_at(start):
            answers = test_and_log(start)
        feed = Feed(images.train(seed, total, start), devices, start, images.workers("train"))
        stack.enter_context(closing(feed))
        profile = Profile(directory / "profile", profile_steps if is_lead() else 0)
        stack.enter_context(closing(profile))
        for step, (batch, is_whole) in enumerate(feed, start + 1):
            advance = train_step if is_whole else masked_step
            with profile.step(step):
                record.state, metrics = advance(record.state, batch)
            feed.running(metrics["loss"])
            record.window.append(metrics)
            if timetable.logs(step):
                row = record.summarise(step)
                if broken.policy == "error":
                    del row["skipped"]
                row["learning_rate"] = float(schedule(step - 1))
                pace = feed.pace(step)
                record.write(step, "train", row, aside={"waiting": pace.waiting})
                on_progress(Progress(step, total, row["loss"], *pace))
            record.go_on_or_save()
            if timetable.evaluates(step):
                answers = test_and_log(step)
                feed.pause(step)
            if timetable.saves(step):
                record.save()
        answers = answers or test()
        if is_lead():
            write_predictions(directory, answers.predictions(len(dataset.test)))
        return answers.evaluation()


def _each(batches: Iterable[Batch], then: Callable[[], None]) -> Iterator[Batch]:
    """The batches, with a call after the use of each."""
    for batch in batches:
        yield batch
        then()
