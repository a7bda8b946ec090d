"""Recipes other than the paper's: schedules, optimizers, scaled rates, averaged weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import arrays_of, differences
from sweeps import SHRUNK
from test_train import RECIPE, OneNorm, random_batch, train

from experiments.__main__ import main
from shufflenet_jax import InputError
from shufflenet_jax import train as module
from shufflenet_jax.checkpoint import read_weights
from shufflenet_jax.data import eval_batches, load
from shufflenet_jax.evaluation import make_evaluate
from shufflenet_jax.fit import Preempted
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.train import compiler_options, create_state, make_train_step


def rates(steps=100, **changes):
    schedule = Recipe(epochs=10, learning_rate=0.5, **changes).schedule(steps)
    return np.array([schedule(step) for step in range(steps)])


def test_the_rate_warms_up_and_then_falls():
    plain, warm, cosine, both = (
        rates(),
        rates(warmup=2.0),
        rates(decay="cosine"),
        rates(warmup=2.0, decay="cosine"),
    )
    np.testing.assert_allclose(warm[:20], 0.5 * np.arange(1, 21) / 20, rtol=1e-5)
    np.testing.assert_allclose(warm[20:], rates(80), rtol=1e-5)
    np.testing.assert_allclose(cosine, 0.25 * (1 + np.cos(np.pi * np.arange(100) / 100)), rtol=1e-4)
    np.testing.assert_array_equal(both[:20], warm[:20])
    np.testing.assert_allclose(both[20:], rates(80, decay="cosine"), rtol=1e-5)
    assert plain[0] == 0.5
    assert warm[0] > 0.02  # even the first step learns


def test_rates_are_scaled_only_if_asked():
    assert Recipe(batch_size=2048, rate_batch=1024).rate == 0.5
    assert Recipe(batch_size=2048, scale_rate=True).rate == 0.5
    scaled = Recipe(batch_size=2048, scale_rate=True, rate_batch=1024)
    assert scaled.rate == scaled.schedule(10)(0) == 1.0


def test_a_scaled_rate_is_that_of_the_budgets_own_batch_and_said(tmp_path, capsys):
    arguments = ["run", "table3", "--cells", "0.25x-g3", *SHRUNK, "--dry-run"]
    arguments += ["--workdir", str(tmp_path)]
    assert main(arguments) == 0
    assert "learning rate" not in capsys.readouterr().err
    assert main([*arguments, "--config.recipe.scale_rate=true"]) == 0
    said = capsys.readouterr().err
    assert "the learning rate is 0.12 for batches of 128: 0.03 for 32, scaled linearly" in said


def updates(gradients, **changes):
    """Of the first steps, of one kernel and one bias that are 1 before each."""
    changes = {"learning_rate": 0.1, "weight_decay": 0.1, "momentum": 0.8} | changes
    optimizer = Recipe(**changes).make_optimizer(10**9)  # a constant rate
    params = {"kernel": jnp.ones((1, 2)), "bias": jnp.ones(2)}
    state, found = optimizer.init(params), []
    for gradient in gradients:
        grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), params)  # noqa: B023
        update, state = optimizer.update(grads, state, params)
        found.append([float(update[name].ravel()[0]) for name in ("kernel", "bias")])
    return np.array(found)


@pytest.mark.parametrize("name", ["adam", "adamw", "lamb"])
def test_optimizers_are_those_of_their_articles(name):
    """Written out, with beta_1 of 0.8 and beta_2 of 0.999; biases have no penalty."""
    first = second = np.zeros(2)
    expected = []
    penalty = np.array([0.1, 0.0])
    for step, gradient in enumerate((0.5, -1.0, 0.25), 1):
        whole = gradient + (penalty if name == "adam" else 0.0)
        first, second = 0.8 * first + 0.2 * whole, 0.999 * second + 0.001 * whole**2
        direction = first / (1 - 0.8**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        direction = direction + (0 if name == "adam" else penalty)
        if name == "lamb":  # as long as the weights
            direction = direction / np.abs(direction)
        expected.append(-0.1 * direction)
    with jax.numpy_dtype_promotion("standard"):  # within optax
        found = updates((0.5, -1.0, 0.25), optimizer=name)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_paper_trains_by_sgd_without_any_of_it():
    recipe = Recipe()
    assert (recipe.optimizer, recipe.decay, recipe.warmup, recipe.ema) == ("sgd", "linear", 0, 0)
    assert (recipe.scale_rate, recipe.rate) == (False, 0.5)
    np.testing.assert_allclose(updates((1.0, 1.0))[0], [-0.1 * 1.8 * 1.1, -0.1 * 1.8], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": "sgdd"}, "optimizer must be sgd, adam, adamw or lamb, not 'sgdd'"),
        ({"decay": "step"}, "decay must be linear or cosine, not 'step'"),
        ({"warmup": 240.0}, "warmup of 240.0 epochs leaves nothing of 240"),
        ({"ema": 1.0}, "ema must be a number in"),
        ({"rate_batch": -1}, "rate_batch must be a number of images, or 0, not -1"),
    ],
)
def test_impossible_recipes_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        Recipe(**changes)


def test_weights_are_averaged_over_the_steps():
    optimizer = RECIPE.make_optimizer(10)
    graphdef, state = create_state(OneNorm(), optimizer, averaged=True)
    step = make_train_step(graphdef, optimizer, 0.0, ema=0.3)
    average = jax.tree.map(np.array, state.average)
    for number in range(4):
        state, _ = step(state, random_batch(seed=number))
        decay = min(0.3, (1 + number) / (10 + number))
        now = {"params": state.params, "batch_stats": state.batch_stats}
        average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, average, now)  # noqa: B023
    jax.tree.map(lambda *each: np.testing.assert_allclose(*each, rtol=1e-5), state.average, average)
    assert decay == 0.3 < 4 / 13 + 1e-9


def test_averages_are_what_a_run_is_judged_by_saves_and_loads(tmp_path):
    """Interrupted and continued, in the same bits."""
    recipe = dataclasses.replace(RECIPE, epochs=2, ema=0.9)
    whole = train(tmp_path / "whole", recipe, network=OneNorm())
    polls = iter([False] * 30 + [True])
    with pytest.raises(Preempted):
        train(tmp_path / "other", recipe, network=OneNorm(), interrupted=lambda: next(polls))
    assert train(tmp_path / "other", recipe, network=OneNorm()) == whole
    assert differences(tmp_path / "whole", tmp_path / "other") == []
    arrays = arrays_of(tmp_path / "whole")
    pairs = [(name, name.replace("['average']", "")) for name in arrays if "['average']" in name]
    assert len(pairs) == 6
    assert all((arrays[one] != arrays[other]).any() for one, other in pairs)
    _, state = create_state(OneNorm(), RECIPE.make_optimizer(10))
    like = {"params": state.params, "batch_stats": state.batch_stats}
    _, read = read_weights(tmp_path / "whole" / "checkpoints", like)
    leaves, _ = jax.tree.flatten_with_path({"average": read})
    for path, leaf in leaves:
        np.testing.assert_array_equal(leaf, arrays[jax.tree_util.keystr(path)])
    # By hand, of all test images.
    graphdef, _ = create_state(OneNorm(), RECIPE.make_optimizer(10))
    batches = eval_batches(load("digits").test, RECIPE.preprocessing, batch_size=449)
    judged = make_evaluate(graphdef)(dataclasses.replace(state, **read), batches).evaluation()
    assert judged.loss == pytest.approx(whole.loss, rel=1e-5)
    plain = train(tmp_path / "plain", dataclasses.replace(recipe, ema=0.0), network=OneNorm())
    assert plain.loss != whole.loss
    assert not any("average" in name for name in arrays_of(tmp_path / "plain"))


def test_gpus_are_told_to_compute_the_same_bits(monkeypatch):
    """XLA knows the option, and what the step says reaches it."""
    optimizer = RECIPE.make_optimizer(10)
    graphdef, state = create_state(OneNorm(), optimizer)
    step = make_train_step(graphdef, optimizer, 0.0, deterministic=True)
    step.lower(state, random_batch()).compile()
    told = []
    monkeypatch.setattr(
        module, "compiler_options", lambda asked: told.append(asked) or {"xla_gpu_nonsense": True}
    )
    for asked in (False, True):
        step = make_train_step(graphdef, optimizer, 0.0, deterministic=asked)
        with pytest.raises(jax.errors.JaxRuntimeError, match="xla_gpu_nonsense"):
            step.lower(state, random_batch()).compile()
    assert told == [False, True]
    monkeypatch.undo()
    assert compiler_options(False) is None
