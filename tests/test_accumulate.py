"""Steps in micro-batches, and batch normalisation by groups of images."""

import dataclasses
from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from shufflenet_jax import InputError, Network, PlainUnit, ShuffleUnit, Stem, chwn
from shufflenet_jax.data import Batch
from shufflenet_jax.devices import ONE_DEVICE
from shufflenet_jax.images import check_images
from shufflenet_jax.initialisation import initialise
from shufflenet_jax.layers import BatchNorm, Classifier, Conv, dropout
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.train import create_state, make_train_step

BATCH = 16
SGD = Recipe(learning_rate=0.1).make_optimizer(10)


class NoNorm(nnx.Module):
    """A convolution and a classifier: what is lost of an image depends on no other."""

    def __init__(self, rate=0.0):
        self.rate = rate
        self.conv = Conv(3, 8, 3, stride=2, bias=True, rngs=nnx.Rngs(0))
        self.classifier = Classifier(8, 10, rngs=nnx.Rngs(0))
        initialise(self, "he", nnx.Rngs(0))

    def __call__(self, images, *, train=False, key=None):
        del train
        x = jax.nn.relu(self.conv(chwn.from_nhwc(check_images(images))))
        return self.classifier(dropout(chwn.global_avg_pool(x).T, self.rate, key))

    def heads(self, images, key):
        return [(1.0, self(images, train=True, key=key))]


def normalised(unit=PlainUnit, channels=8):
    network = Network(
        unit,
        channels=(channels,),
        repeats=(2,),
        conv1_channels=6,
        num_classes=10,
        stem=Stem(stride=2, max_pool=False),
        rngs=nnx.Rngs(0),
    )
    initialise(network, "he", nnx.Rngs(0))
    return network


def random_batch(masked=()):
    rng = np.random.default_rng(0)
    mask = np.ones(BATCH, bool)
    mask[list(masked)] = False
    return Batch(
        image=rng.integers(0, 256, (BATCH, 16, 16, 3)).astype(np.uint8),
        label=rng.integers(0, 10, BATCH).astype(np.int32),
        mask=mask,
    )


def step(network, batch, **options):
    """The state after a step, of which the update is linear in the gradients, and the metrics."""
    graphdef, state = create_state(network, SGD)
    state, metrics = make_train_step(graphdef, SGD, 0.1, **options)(state, batch)
    return {"params": state.params, "batch_stats": state.batch_stats, "metrics": metrics}


def assert_equal(found, expected, **tolerance):
    """But for rounding."""
    tolerance = {"rtol": 1e-4, "atol": 1e-6} | tolerance
    jax.tree.map(partial(np.testing.assert_allclose, **tolerance), found, expected)


@pytest.mark.parametrize("masked", [(), (0, 1, 2, 4, 8, 12, 5)])
def test_micro_batches_learn_as_the_whole_batch(masked):
    """Also where images are masked, unevenly, and in one micro-batch all: every fourth image."""
    options = {"masked": bool(masked)}
    batch = random_batch(masked)
    whole = step(NoNorm(), batch, **options)
    assert_equal(step(NoNorm(), batch, accumulate=4, **options), whole)
    if masked:
        assert whole["metrics"]["skipped"] == len(masked)
        with pytest.raises(AssertionError, match="Not equal"):
            assert_equal(step(NoNorm(), random_batch(), masked=True), whole)


def test_batch_normalisation_sees_a_micro_batch():
    """Those of every fourth image are groups of neighbours once the images are sorted so."""
    batch = random_batch()
    order = np.arange(BATCH).reshape(-1, 4).T.ravel()
    found = step(normalised(), batch, accumulate=4)
    expected = step(normalised(), jax.tree.map(lambda leaf: leaf[order], batch), batch_norm="4")
    assert_equal(found, expected)
    with pytest.raises(AssertionError, match="Not equal"):
        assert_equal(found, step(normalised(), batch))


def test_micro_batches_drop_other_values():
    """Of equal images, of which each micro-batch has one."""
    one = jax.tree.map(lambda leaf: leaf[:1], random_batch())
    batch = jax.tree.map(lambda leaf: np.repeat(leaf, 4, axis=0), one)
    assert_equal(step(NoNorm(), batch, accumulate=4), step(NoNorm(), one))
    dropping = step(NoNorm(rate=0.5), batch, accumulate=4)["params"]
    parts = [step(NoNorm(rate=0.5), one, seed=seed)["params"] for seed in range(3)]
    for part in parts:  # all would be alike if all dropped the same
        assert np.abs(dropping["classifier"]["kernel"] - part["classifier"]["kernel"]).max() > 1e-4


def program(**options):
    graphdef, state = create_state(NoNorm(), SGD)
    train_step = make_train_step(graphdef, SGD, 0.1, **options)
    return str(jax.make_jaxpr(lambda *each: train_step(*each))(state, random_batch()))


def test_a_whole_batch_is_no_loop():
    assert program(accumulate=1) == program()
    assert "scan" not in program()
    assert "scan" in program(accumulate=2)


@pytest.mark.parametrize("form", ["matmul", "direct"])
@pytest.mark.parametrize("with_shortcut", [False, True])
def test_groups_are_normalised_by_themselves(form, with_shortcut):
    rng = np.random.default_rng(0)
    x, shortcut = rng.normal(2, 3, (2, 6, 3, 3, 8)).astype(np.float32)
    norm = BatchNorm(6, rngs=nnx.Rngs(0))
    norm.parts = 4
    maps = {"shortcut": jnp.asarray(shortcut)} if with_shortcut else {}
    with chwn.form(form):
        y = norm(jnp.asarray(x), use_running_average=False, **maps)
    parts = x.reshape(6, 3, 3, 4, 2)
    mean, var = (of(parts, axis=(1, 2, 4), keepdims=True) for of in (np.mean, np.var))
    expected = ((parts - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    if with_shortcut:
        expected = np.maximum(shortcut + expected, 0)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(norm.mean[...], 0.1 * mean.mean((1, 2, 3, 4)), rtol=1e-4)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * var.mean((1, 2, 3, 4)), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["matmul", "direct"])
def test_groups_learn_as_separate_batches(form):
    """Gradients too: the mean of the steps of each group."""
    batch, unit = random_batch(), partial(ShuffleUnit, groups=2)
    with chwn.form(form):
        found = step(normalised(unit, 24), batch, batch_norm="4")
        parts = [
            step(normalised(unit, 24), jax.tree.map(itemgetter(part), batch))
            for part in (slice(start, start + 4) for start in range(0, BATCH, 4))
        ]
    expected = jax.tree.map(lambda *each: sum(each) / len(each), *parts)
    assert_equal(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"accumulate": 3}, "batch_size 64 does not divide into accumulate=3 micro-batches"),
        ({"accumulate": 0}, "accumulate must be an integer of at least 1, not 0"),
        ({"batch_norm": "0"}, "batch_norm must be global, device or a number of images, not '0'"),
        ({"batch_norm": "48"}, "batch_norm=48 does not divide the 64 images that are computed"),
        ({"batch_norm": "32", "accumulate": 4}, "batch_norm=32 does not divide the 16 images"),
    ],
)
def test_batches_that_do_not_divide_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        dataclasses.replace(Recipe(batch_size=64), **changes)


def test_one_device_normalises_any_group_that_divides_its_images():
    assert ONE_DEVICE.normalised_together("16", 64) == (None, 4)
    assert ONE_DEVICE.normalised_together("64", 64) == (None, 1)
    with pytest.raises(InputError, match="over 24 images does not go with 1 devices that compute"):
        ONE_DEVICE.normalised_together("24", 64)
