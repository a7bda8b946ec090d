"""Training in bfloat16: what is computed in it, what stays float32, and how near the two are."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend import core

from shufflenet_jax import Network, ShuffleUnit, Stem, chwn, zoo
from shufflenet_jax.data import Batch
from shufflenet_jax.evaluation import make_evaluate
from shufflenet_jax.initialisation import initialise
from shufflenet_jax.models.mobilenet import InvertedUnit
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.train import ManyHeaded, create_state, make_train_step, split
from shufflenet_jax.units import ResidualUnit, SqueezeExcitation

FORMS = ("matmul", pytest.param("direct", marks=pytest.mark.slow))

PRODUCTS = ("dot_general", "conv_general_dilated")


def products(jaxpr, head=False):
    """Of every matrix product and convolution: the types of what it multiplies, and whether it is
    of the classifier.
    """
    for equation in jaxpr.eqns:
        names = str(equation.source_info.name_stack).replace("(", "/").replace(")", "/").split("/")
        within = head or "head" in names
        if equation.primitive.name in PRODUCTS:
            yield {str(each.aval.dtype) for each in equation.invars}, within
        for inner in core.jaxprs_in_params(equation.params):
            yield from products(inner, within)


def assert_multiplies_in_bfloat16(jaxpr):
    found = list(products(jaxpr))
    assert sum(not head for _, head in found) > 2
    for types, head in found:
        assert types == {"bfloat16"} or (head and types == {"float32"})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", sorted(zoo.BUILT_IN))
def test_networks_multiply_in_bfloat16(name, form):
    """In training and in evaluation, all but the classifier, whose logits are float32."""
    graphdef, params, batch_stats = split(zoo.build(name, {}, num_classes=10))
    size = 32 if name == "lenet5" else 64
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.bfloat16)

    def evaluated(params, batch_stats, images):
        return nnx.merge(graphdef, params, batch_stats, copy=True)(images, train=False)

    def trained(params, batch_stats, images):
        network = nnx.merge(graphdef, params, batch_stats, copy=True)
        if isinstance(network, ManyHeaded):
            return [logits for _, logits in network.heads(images, jax.random.key(0))]
        return network(images, train=True), nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))

    with chwn.form(form):
        for forward in (evaluated, trained):
            traced = jax.make_jaxpr(forward)(params, batch_stats, images)
            assert_multiplies_in_bfloat16(traced.jaxpr)
            assert {each.dtype.name for each in traced.out_avals} == {"float32"}


def mixed():
    """Every kind of layer in three units; started with nothing at zero."""
    shuffled = partial(SqueezeExcitation, unit=partial(ShuffleUnit, groups=3))
    network = Network(
        InvertedUnit,
        first_unit=shuffled,
        last_unit=partial(ResidualUnit, groups=4),
        channels=(48, 96),
        repeats=(2, 1),
        conv1_channels=24,
        num_classes=10,
        stem=Stem(stride=2, max_pool=True),
        rngs=nnx.Rngs(0),
    )
    initialise(network, "he", nnx.Rngs(0))
    return network


def random_batch():
    rng = np.random.default_rng(0)
    return Batch(
        image=rng.integers(0, 256, (32, 32, 32, 3)).astype(np.uint8),
        label=rng.integers(0, 10, 32).astype(np.int32),
        mask=np.ones(32, bool),
    )


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_learns_as_float32(form):
    """Loss and gradients of a whole network, told from the first update of SGD with a rate of 1.

    Rounding to 8 bits is seen in each gradient; a wrong one would be off by as much as it is long.
    """
    optimizer = Recipe(learning_rate=1.0, momentum=0.0, weight_decay=0.0).make_optimizer(10**6)
    graphdef, state = create_state(mixed(), optimizer)
    found = {}
    for precision in ("float32", "bfloat16"):
        step = make_train_step(graphdef, optimizer, 0.0, precision=precision)
        with chwn.form(form):
            if precision == "bfloat16":
                leaves, structure = jax.tree.flatten((state, random_batch()))
                traced = jax.make_jaxpr(lambda *each: step(*structure.unflatten(each)))(*leaves)  # noqa: B023
                assert_multiplies_in_bfloat16(traced.jaxpr)
            moved, metrics = step(jax.tree.map(jnp.copy, state), random_batch())
        for leaf in (*jax.tree.leaves((moved.params, moved.batch_stats)), metrics["loss"]):
            assert leaf.dtype == jnp.float32
        found[precision] = metrics["loss"], moved
    (loss, wide), (near, narrow) = found["float32"], found["bfloat16"]
    assert 1e-8 < abs(near - loss) / loss < 3e-4
    gradients = [
        jax.tree.map(lambda new, old: np.asarray(old - new), moved.params, state.params)
        for moved in (wide, narrow)
    ]
    size, error = map(jax.tree.leaves, (gradients[0], jax.tree.map(np.subtract, *gradients)))
    size, error = (np.array([*map(np.linalg.norm, each)]) for each in (size, error))
    whole = np.linalg.norm(size)
    assert 0.005 < np.linalg.norm(error) / whole < 0.12
    assert (error / (size + 0.01 * whole)).max() < 0.5
    statistics = [jax.tree.leaves(each.batch_stats) for each in (wide, narrow)]
    for one, other in zip(*statistics, strict=True):
        np.testing.assert_allclose(one, other, rtol=0.02, atol=0.01)


def test_bfloat16_evaluates_as_float32():
    graphdef, state = create_state(mixed(), Recipe().make_optimizer(10))
    wide, narrow = (
        make_evaluate(graphdef, precision=precision)(state, [random_batch()])
        for precision in ("float32", "bfloat16")
    )
    assert wide.loss.dtype == narrow.loss.dtype == np.float32
    assert 1e-4 < np.abs(wide.loss - narrow.loss).max() < 0.1
