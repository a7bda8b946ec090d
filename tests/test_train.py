"""The recipe, the training step, evaluation and whole runs."""

import dataclasses
import json
import re
import struct

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax._src.array import ArrayImpl
from runs import differences
from tensorboardX.proto.event_pb2 import Event, SessionLog
from unchecked import unchecked

from shufflenet_jax import InputError, Network, PlainUnit, Stem, chwn, shufflenet
from shufflenet_jax.data import Batch, Preprocessing, eval_batches, load
from shufflenet_jax.evaluation import make_evaluate
from shufflenet_jax.fit import Diverged, Intervals, Preempted, fit
from shufflenet_jax.layers import BatchNorm
from shufflenet_jax.metrics import MetricsLog, read_metrics
from shufflenet_jax.predictions import NOT_ASKED, read_predictions
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.train import create_state, make_train_step, normalise

TINY = Preprocessing(image_size=16, crop="shift", flip=False, color=0.0, lighting=0.0)
RECIPE = Recipe(epochs=1, batch_size=64, learning_rate=0.05, preprocessing=TINY)


def tiny():
    return shufflenet(
        width=0.25,
        num_classes=10,
        repeats=(1, 1, 1),
        stem=Stem(stride=2, max_pool=False),
        rngs=nnx.Rngs(0),
    )


def small(seed=0):
    """A network with batch normalisation that compiles quickly: for whole runs."""
    return Network(
        PlainUnit,
        channels=(8,),
        repeats=(1,),
        conv1_channels=4,
        num_classes=10,
        stem=Stem(stride=2, max_pool=False),
        rngs=nnx.Rngs(seed),
    )


class Linear(nnx.Module):
    """Compiles at once: for what is the same whatever the network."""

    def __init__(self):
        self.classifier = nnx.Linear(16 * 16 * 3, 10, rngs=nnx.Rngs(0))

    def __call__(self, images, *, train=False):
        del train
        return self.classifier(images.reshape(len(images), -1))


def random_batch(size=16, seed=0):
    rng = np.random.default_rng(seed)
    return Batch(
        image=rng.integers(0, 256, (size, 16, 16, 3)).astype(np.uint8),
        label=rng.integers(0, 10, size).astype(np.int32),
        mask=np.ones(size, bool),
    )


def test_seeds_of_a_network_are_one_program():
    optimizer = RECIPE.make_optimizer(steps=10)
    graphdef, state = create_state(small(), optimizer)

    def program(seed):
        train_step = make_train_step(graphdef, optimizer, 0.0, seed)
        return train_step.lower(state, random_batch()).as_text()

    assert program(0) == program(1)


def test_learning_rate_falls_linearly_to_zero():
    schedule = Recipe(learning_rate=0.5).schedule(steps=100)
    rates = np.array([schedule(step) for step in (0, 25, 50, 99, 100)])
    np.testing.assert_allclose(rates, [0.5, 0.375, 0.25, 0.005, 0.0], atol=1e-7)


def test_paper_recipe_is_300_000_steps():
    assert Recipe().steps(1_281_167) == pytest.approx(3e5, rel=2e-3)


def test_optimizer_is_nesterov_sgd_with_decay_of_kernels_only():
    """Against the update written out, as in Sutskever et al. 2013 with a linear rate."""
    recipe = Recipe(learning_rate=0.5, momentum=0.9, weight_decay=0.1)
    params = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 3.0)}
    optimizer = recipe.make_optimizer(steps=10)
    state, expected = optimizer.init(params), {"kernel": 3.0, "bias": 3.0}
    velocity = {"kernel": 0.0, "bias": 0.0}
    for step in range(3):
        grads = jax.tree.map(jnp.ones_like, params)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for name, decay in (("kernel", 0.1), ("bias", 0.0)):
            gradient = 1 + decay * expected[name]
            velocity[name] = 0.9 * velocity[name] + gradient
            rate = 0.5 * (1 - step / 10)
            expected[name] -= rate * (gradient + 0.9 * velocity[name])
    np.testing.assert_allclose(params["kernel"], expected["kernel"], rtol=1e-5)
    np.testing.assert_allclose(params["bias"], expected["bias"], rtol=1e-5)


@pytest.mark.parametrize(("gradient", "clipped"), [(0.3, 0.3), (3.0, 0.5)])
def test_gradients_are_clipped_by_the_norm_of_all(gradient, clipped):
    """Four values of 0.3 have a norm of 0.6, below 1; four of 3.0 are scaled down to 0.5 each."""
    optimizer = Recipe(
        learning_rate=1.0, momentum=0.0, weight_decay=0.0, clip_norm=1.0
    ).make_optimizer(steps=10)
    params = {"kernel": jnp.zeros((1, 2)), "bias": jnp.zeros(2)}
    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    for update in jax.tree.leaves(updates):
        np.testing.assert_allclose(update, -clipped, rtol=1e-5)


NO_NUMBERS = (float("nan"), float("inf"), -0.1, "0.1", None, True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[(field, value) for field in ("epochs", "batch_size") for value in (0, 1.5, *NO_NUMBERS)],
        *[
            (field, value)
            for field in ("learning_rate", "weight_decay", "clip_norm")
            for value in (-1.0, *NO_NUMBERS)
        ],
        *[
            (field, value)
            for field in ("momentum", "label_smoothing")
            for value in (1, *NO_NUMBERS)
        ],
        ("batch_norm", "local"),
        ("batch_norm", None),
        ("precision", "float16"),
        ("precision", None),
        ("preprocessing", {"image_size": 16}),
    ],
)
def test_impossible_recipes_are_refused(field, value):
    with pytest.raises(InputError, match=re.escape(f", not {value!r}")) as caught:
        unchecked(Recipe, **{field: value})
    assert str(caught.value).startswith(f"{field} must be ")
    assert "\n" not in str(caught.value)


def test_numbers_may_be_whole():
    assert unchecked(Recipe, learning_rate=1).schedule(steps=2)(1) == 0.5


@pytest.mark.slow
def test_loss_falls_on_one_batch():
    optimizer = RECIPE.make_optimizer(steps=60)
    graphdef, state = create_state(tiny(), optimizer)
    train_step = make_train_step(graphdef, optimizer, label_smoothing=0.0)
    batch, losses = random_batch(), []
    for _ in range(60):
        state, metrics = train_step(state, batch)
        losses.append(metrics["loss"].item())
    assert losses[0] > 2
    assert losses[-1] < 0.1
    assert metrics["top1_error"] == 0
    assert state.step == 60


class OneNorm(nnx.Module):
    """A linear network after one batch normalisation, of the pixels."""

    def __init__(self):
        self.norm = BatchNorm(3, rngs=nnx.Rngs(0))
        self.classifier = Linear()

    def __call__(self, images, *, train=False):
        normal = self.norm(chwn.from_nhwc(images), use_running_average=not train)
        return self.classifier(chwn.to_nhwc(normal))


def test_running_statistics_move_a_tenth_of_the_way():
    """To the batch's own."""
    optimizer, batch = RECIPE.make_optimizer(steps=60), random_batch()
    graphdef, state = create_state(OneNorm(), optimizer)
    state, _ = make_train_step(graphdef, optimizer, label_smoothing=0.0)(state, batch)
    pixels = normalise(jnp.asarray(batch.image))
    moved = state.batch_stats["norm"]
    np.testing.assert_allclose(moved["mean"], 0.1 * pixels.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(moved["var"], 0.9 + 0.1 * pixels.var((0, 1, 2)), rtol=1e-4)


def test_label_smoothing_bounds_the_loss_from_below():
    """The least cross-entropy against smoothed targets is their entropy."""
    optimizer = RECIPE.make_optimizer(steps=60)
    graphdef, state = create_state(Linear(), optimizer)
    train_step = make_train_step(graphdef, optimizer, label_smoothing=0.1)
    for _ in range(60):
        state, metrics = train_step(state, random_batch())
    targets = np.full(10, 0.01) + 0.9 * np.eye(10)[0]
    entropy = -(targets * np.log(targets)).sum()
    assert entropy <= metrics["loss"] < entropy + 0.3


@pytest.mark.parametrize("batch_size", [1, 7, 448, 449, 500])
def test_evaluation_counts_every_image_once(batch_size):
    graphdef, state = create_state(Linear(), RECIPE.make_optimizer(steps=60))
    assert_counts_every_image_once(state, make_evaluate(graphdef), batch_size)


def test_evaluation_with_batch_norm_does_too():
    graphdef, state = create_state(small(), RECIPE.make_optimizer(steps=60))
    assert_counts_every_image_once(state, make_evaluate(graphdef), batch_size=7)


def assert_counts_every_image_once(state, evaluate, batch_size):
    """The errors do not depend on how the images fall into batches."""
    digits = load("digits")
    few = digits.test if batch_size > 1 else Some(digits.test, 60)

    def evaluation(size):
        return evaluate(state, eval_batches(few, TINY, batch_size=size))

    one, many = evaluation(len(few)), evaluation(batch_size)
    np.testing.assert_array_equal(one.predictions(len(few)), many.predictions(len(few)))
    whole, parts = one.evaluation(), many.evaluation()
    assert parts.examples == whole.examples == len(few)
    assert parts.top1_error == pytest.approx(whole.top1_error, abs=1e-9)
    assert parts.top5_error == pytest.approx(whole.top5_error, abs=1e-9)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert 0 < whole.top5_error < whole.top1_error < 100


@dataclasses.dataclass(frozen=True)
class Some:
    """The first few of some examples."""

    examples: object
    count: int

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.examples[index]


def test_top_errors_by_hand():
    """Against a sort of the logits."""
    network, batch = Linear(), random_batch(size=50)
    order = np.argsort(-np.asarray(network(normalise(jnp.asarray(batch.image)))), axis=1)
    rank = np.argmax(order == batch.label[:, None], axis=1)
    graphdef, state = create_state(network, RECIPE.make_optimizer(steps=60))
    answers = make_evaluate(graphdef)(state, [batch])
    predictions = answers.predictions(50)
    np.testing.assert_array_equal(predictions["predicted"], order[:, 0])
    np.testing.assert_array_equal(predictions["right"], rank == 0)
    found = answers.evaluation()
    assert found.top1_error == pytest.approx(100 * np.mean(rank > 0))
    assert found.top5_error == pytest.approx(100 * np.mean(rank > 4))


def test_images_that_do_not_count_have_no_prediction():
    graphdef, state = create_state(Linear(), RECIPE.make_optimizer(steps=60))
    batch = random_batch(size=6)
    mask = np.array([True, False, True, True, False, False])  # one is broken, two fill the batch up
    answers = make_evaluate(graphdef)(state, [batch._replace(mask=mask)])
    every = make_evaluate(graphdef)(state, [batch])
    expected = every.predictions(4)
    expected[1] = NOT_ASKED, False
    np.testing.assert_array_equal(answers.predictions(4), expected)
    assert answers.evaluation().examples == 3
    assert answers.evaluation().loss == pytest.approx(every.loss[[0, 2, 3]].mean())


def train(directory, recipe, seed=0, network=None, **options):
    intervals = Intervals(log=5, evaluate=1, checkpoint=1)
    arguments = {"seed": seed, "directory": directory, "intervals": intervals} | options
    return fit(network or small(seed), load("digits"), recipe, **arguments)


TWO_EPOCHS = dataclasses.replace(RECIPE, epochs=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts: its directory, and its last evaluation."""
    directory = tmp_path_factory.mktemp("whole")
    return directory, train(directory, TWO_EPOCHS)


def assert_ends_as(whole, directory):
    expected, evaluation = whole
    assert train(directory, TWO_EPOCHS) == evaluation
    assert differences(expected, directory) == []
    assert len(read_metrics(directory)) > 10
    predictions = read_predictions(directory)
    np.testing.assert_array_equal(predictions, read_predictions(expected))
    test = load("digits").test
    labels = [test[index]["label"] for index in range(len(test))]
    np.testing.assert_array_equal(predictions["right"], predictions["predicted"] == labels)
    assert 100 * (1 - predictions["right"].mean()) == pytest.approx(evaluation.top1_error)


class Interrupted(Exception):
    pass


@pytest.mark.slow
def test_an_interrupted_run_ends_in_the_same_bits(tmp_path, whole):
    def stop_at(step):
        def on_progress(progress):
            if progress.step >= step:
                raise Interrupted

        return on_progress

    # Before the first checkpoint, right at it, and after it.
    for step in (5, 22, 30):
        with pytest.raises(Interrupted):
            train(tmp_path, TWO_EPOCHS, on_progress=stop_at(step))
    assert_ends_as(whole, tmp_path)


@pytest.mark.slow
def test_a_preempted_run_loses_no_step_and_ends_in_the_same_bits(tmp_path, whole):
    """Interrupted at every kind of moment: rows are due at steps 5, 10, ... and at 22."""
    # Of images that are read anew, the question is asked before the first step, after each of 42,
    # and after each batch of the evaluations that follow steps 22, at which the first epoch ends,
    # and 42.
    step, polls, reached = 0, [1, 2, 7, 9, 4, 3, 5, 13, 1, 2, 1], []
    for count in polls:
        asked = iter([False] * (count - 1) + [True])
        with pytest.raises(Preempted) as caught:
            train(tmp_path, TWO_EPOCHS, memory_gb=0.0, interrupted=lambda asked=asked: next(asked))
        assert caught.value.step >= step
        step = caught.value.step
        reached.append(step)
    assert len(set(reached)) > 6
    assert 22 in reached
    assert_ends_as(whole, tmp_path)


@pytest.mark.slow
def test_seeds_differ_and_one_seed_does_not(tmp_path, whole):
    assert_ends_as(whole, tmp_path / "again")
    assert train(tmp_path / "other", TWO_EPOCHS, seed=1).loss != whole[1].loss
    different = "\n".join(differences(whole[0], tmp_path / "other"))
    for place in ("metrics.jsonl", "'params'", "'batch_stats'", "'opt_state'"):
        assert place in different


def evaluated(directory):
    return [row["step"] for row in read_metrics(directory) if row["split"] == "test"]


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "steps"), [(64, [22, 42]), (337, [4, 8]), (1000, [2])])
def test_each_epoch_is_evaluated_and_saved_once(tmp_path, batch_size, steps):
    """Of 1,348 images; a run that is interrupted in an evaluation, and goes on, does so too."""
    recipe = dataclasses.replace(TWO_EPOCHS, batch_size=batch_size)
    saved = []

    def look(_):
        saved.extend(int(path.stem) for path in tmp_path.glob("whole/checkpoints/sha256/*.json"))

    intervals = Intervals(log=1, evaluate=1, checkpoint=1)

    def run(name, **options):
        return train(tmp_path / name, recipe, network=Linear(), intervals=intervals, **options)

    whole = run("whole", on_progress=look)
    assert evaluated(tmp_path / "whole") == steps
    look(None)
    assert sorted(set(saved)) == steps
    # After the question before the first step, those after each, and the first of the evaluation:
    # no more are asked of images that are read anew.
    answers = iter([False] * (steps[0] + 1) + [True] + [False] * 1000)
    with pytest.raises(Preempted) as caught:
        run("other", memory_gb=0.0, interrupted=lambda: next(answers))
    assert caught.value.step == steps[0]
    assert run("other") == whole
    assert differences(tmp_path / "whole", tmp_path / "other") == []


def test_a_run_does_not_go_on_with_another_network(tmp_path):
    train(tmp_path, RECIPE, network=Linear())
    with pytest.raises(InputError, match=r"checkpoints/21 is of another network.* is missing, and"):
        train(tmp_path, RECIPE, network=OneNorm())


def test_a_finished_run_is_evaluated_again_without_training(tmp_path):
    first = train(tmp_path, RECIPE, network=Linear())
    steps = []
    again = train(
        tmp_path,
        RECIPE,
        network=Linear(),
        on_progress=lambda progress: steps.append(progress.step),
    )
    assert again == first
    assert not steps


def test_steps_do_not_wait_for_what_they_compute(tmp_path, monkeypatch):
    """They are asked for rows, evaluations and checkpoints alone."""
    asked, after = [], []
    value = ArrayImpl._value.fget
    monkeypatch.setattr(
        ArrayImpl, "_value", property(lambda array: asked.append(array.shape) or value(array))
    )
    train(
        tmp_path,
        dataclasses.replace(RECIPE, ema=0.9),
        network=Linear(),
        intervals=Intervals(log=10, evaluate=1, checkpoint=1),
        memory_gb=0.0,
        interrupted=lambda: after.append(len(asked)) is not None,
    )
    # Asked before the first step, and then after each; the last has an evaluation as well.
    waited = [step for step in range(1, 21) if after[step] != after[step - 1]]
    assert waited == [10, 20]


def test_divergence_names_the_step(tmp_path):
    recipe = dataclasses.replace(RECIPE, learning_rate=1e30)
    with pytest.raises(Diverged) as caught:
        train(tmp_path, recipe, network=Linear())
    finite = [row["step"] for row in read_metrics(tmp_path) if row["split"] == "train"]
    assert 1 < caught.value.step <= 10
    assert not finite or max(finite) < caught.value.step


ROWS = [{"step": step, "split": "train", "loss": 1 / step} for step in (10, 20, 30)]


def test_metrics_of_a_killed_run(tmp_path):
    """Rows past the checkpoint go, a torn last line goes, the rest stays as it was."""
    log = MetricsLog(tmp_path)
    for row in ROWS:
        log.write(row)
    log.close()
    path = tmp_path / "metrics.jsonl"
    kept = path.read_bytes().splitlines(keepends=True)[:2]
    with path.open("ab") as file:
        file.write(b'{"step": 40, "spl')
    MetricsLog(tmp_path, ROWS[:2], step=20).close()
    assert path.read_bytes() == b"".join(kept)
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20]
    assert json.loads(kept[0]) == {"step": 10, "split": "train", "loss": 0.1}


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda lines: [lines[0], lines[1], lines[2][:-1]], [10, 20]),  # no end of line
        (lambda lines: [lines[0], lines[1], lines[1], lines[2]], [10, 20, 30]),
        (lambda lines: [lines[0], lines[1][:9], lines[1], lines[2]], [10, 30]),
        (lambda lines: [lines[0], b"7\n\n[]\n{}\n\xff\n", lines[1]], [10, 20]),
        (lambda lines: [lines[0], lines[1], bytes(500)], [10, 20]),
        (lambda lines: [bytes(500), lines[0], lines[1]], [20]),
        (lambda lines: [], []),
    ],
)
def test_whole_rows_are_read_once(tmp_path, damage, left):
    log = MetricsLog(tmp_path)
    for row in ROWS:
        log.write(row)
    log.close()
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    assert read_metrics(tmp_path) == [row for row in ROWS if row["step"] in left]


def events(file):
    """The records of a file of TensorBoard events, as tensorflow/core/lib/io/record_writer.h."""
    content, found = file.read_bytes(), []
    while content:
        (size,) = struct.unpack("<Q", content[:8])
        found.append(Event.FromString(content[12 : 12 + size]))
        content = content[12 + size + 4 :]
    return found


def test_tensorboard_is_told_every_number_and_what_to_forget(tmp_path):
    for rows, step in ((ROWS[:2], 0), (ROWS[1:], 10)):
        log = MetricsLog(tmp_path, step=step)
        for row in rows:
            log.write(row)
        first, *files = sorted((tmp_path / "events").iterdir(), key=lambda path: path.suffix)
        head, start, *told = events(files[0] if files else first)  # they are on disk already
        assert head.file_version == "brain.Event:2"
        assert (start.step, start.session_log.status) == (step + 1, SessionLog.START)
        assert [
            (event.step, event.summary.value[0].tag, event.summary.value[0].simple_value)
            for event in told
        ] == [(row["step"], "train/loss", np.float32(row["loss"])) for row in rows]
        log.close()
