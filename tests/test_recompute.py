"""Units that are computed once more for the gradient, in place of being kept."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from shufflenet_jax import Network, PlainUnit, ShuffleUnit, Stem, chwn, shufflenet, zoo
from shufflenet_jax.data import Batch
from shufflenet_jax.devices import ONE_DEVICE
from shufflenet_jax.initialisation import initialise
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.train import TrainStep, create_state, make_train_step, split
from shufflenet_jax.units import SqueezeExcitation, Unit

OPTIMIZER = Recipe(learning_rate=0.1).make_optimizer(10)


def network_of(unit, channels):
    """Units on whole maps, before which there is little."""
    network = Network(
        unit,
        channels=(channels,),
        repeats=(4,),
        strides=(1,),
        conv1_channels=channels,
        num_classes=10,
        stem=Stem(stride=1, max_pool=False),
        rngs=nnx.Rngs(0),
    )
    initialise(network, "he", nnx.Rngs(0))
    return network


def random_batch():
    rng = np.random.default_rng(0)
    return Batch(
        image=rng.integers(0, 256, (16, 16, 16, 3)).astype(np.uint8),
        label=rng.integers(0, 10, 16).astype(np.int32),
        mask=np.ones(16, bool),
    )


def stepped(network, form, **options):
    """The state after a step, its loss, and the bytes that XLA needs for what is computed."""
    graphdef, state = create_state(network, OPTIMIZER)
    state = jax.tree.map(jnp.copy, state)  # the network is used again
    step = make_train_step(graphdef, OPTIMIZER, 0.0, **options)
    with chwn.form(form):
        compiled = step.lower(state, random_batch()).compile()
    state, metrics = TrainStep(compiled, step.key)(state, random_batch())
    return (state.params, state.batch_stats, metrics["loss"]), compiled.memory_analysis()


def assert_equal(found, expected):
    """But for rounding: what stands around a unit is compiled otherwise."""
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found, expected)


def test_the_same_is_learned_in_less_memory():
    network = network_of(PlainUnit, 8)
    kept, most = stepped(network, "matmul")
    found, least = stepped(network, "matmul", recompute=True)
    assert_equal(found, kept)
    assert least.temp_size_in_bytes < 0.6 * most.temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize("form", ["matmul", "direct"])
def test_the_same_is_learned_of_all_kinds_of_layers(form):
    """In micro-batches too."""
    unit = partial(SqueezeExcitation, unit=partial(ShuffleUnit, groups=2), reduction=4)
    network = network_of(unit, 16)
    for options in ({}, {"accumulate": 2}):
        kept, _ = stepped(network, form, **options)
        found, _ = stepped(network, form, recompute=True, **options)
        assert_equal(found, kept)


@pytest.mark.parametrize(
    ("name", "units"), [("googlenet", 9), ("squeezenet", 8), ("shufflenet_se", 16), ("lenet5", 0)]
)
def test_every_unit_is_recomputed(name, units):
    """Once, whatever is within it, and in training alone."""
    graphdef, params, batch_stats = split(zoo.build(name, {}, num_classes=10))
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), np.float32)

    def forward(params, batch_stats, images, train):
        network = nnx.merge(graphdef, params, batch_stats, copy=True)
        network.set_attributes(Unit, recompute=True, raise_if_not_found=False)
        return network(images, train=train)

    for train in (True, False):
        traced = jax.make_jaxpr(partial(forward, train=train))(params, batch_stats, images)
        names = [equation.primitive.name for equation in traced.jaxpr.eqns]
        assert names.count("remat2") == (units if train else 0)


@pytest.mark.slow
def test_shufflenet_takes_less_memory_too():
    """1x g=3 in bfloat16, 16 images of 112 pixels: 158 MB of activations, and 87."""
    network = shufflenet(groups=3, num_classes=10, rngs=nnx.Rngs(0))
    graphdef, state = create_state(network, OPTIMIZER)
    batch = ONE_DEVICE.describe(16, (112, 112, 3))
    taken = []
    for recompute in (False, True):
        step = make_train_step(graphdef, OPTIMIZER, 0.0, precision="bfloat16", recompute=recompute)
        found = step.lower(state, batch).compile().memory_analysis()
        taken.append(found.temp_size_in_bytes)
    assert taken[1] < 0.65 * taken[0]
