"""Folding batch normalisation into the convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from shufflenet_jax import InputError, Stem, Unit, abstract, fold
from shufflenet_jax.chwn import form
from shufflenet_jax.layers import BatchNorm, Conv, ConvNorm
from shufflenet_jax.zoo import FAMILIES

SMALL = Stem(stride=2, max_pool=False)
UNITS = {"repeats": (1, 1, 1), "stem": SMALL}
BUDGET = {"mflops": 13, **UNITS}


def trained_looking(state, seed=0):
    """Draws all weights and statistics, none of which are those of a fresh network."""
    random = np.random.default_rng(seed)
    # Positive, what is scaled by or divided by.
    ranges = {"var": (0.5, 2), "scale": (0.5, 1.5)}

    def drawn(path, leaf):
        name = path[-1].key
        if leaf.ndim > 1:
            fan_in = np.prod(leaf.shape[:-1])
            return jnp.asarray(random.normal(0, (2 / fan_in) ** 0.5, leaf.shape), jnp.float32)
        low, high = ranges.get(name, (-0.5, 0.5))
        return jnp.asarray(random.uniform(low, high, leaf.shape), jnp.float32)

    return jax.tree.map_with_path(drawn, nnx.to_pure_dict(state))


def batch_norms(network):
    return [each for _, each in nnx.iter_modules(network) if isinstance(each, BatchNorm)]


def assert_folds(network, images):
    """In evaluation, folded and not; both in one program, which folds as it is traced."""
    graphdef, state = nnx.split(network)
    assert batch_norms(network)

    @jax.jit
    def both(leaves, images):
        network = nnx.merge(graphdef, leaves)
        folded = fold(network)
        assert not batch_norms(folded)
        assert batch_norms(network)  # it is as it was
        return folded(images), network(images)

    folded, whole = both(trained_looking(state), images)
    scale = np.abs(whole).max()
    assert scale > 0.01
    np.testing.assert_allclose(folded, whole, atol=2e-5 * scale)
    return folded


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("shufflenet", {"channels": (24, 48, 96), "conv1_channels": 12, **UNITS}),
        ("shufflenet_se", {"channels": (48, 96, 192), "conv1_channels": 12, **UNITS}),
        ("vgg_like", BUDGET),
        ("resnet", BUDGET),
        ("resnext", BUDGET),
        ("xception_like", BUDGET),
        ("mobilenet_v1", {"width": 0.125, "stem": SMALL}),
        pytest.param("mobilenet_v2", {"stem": SMALL}, marks=pytest.mark.slow),
        pytest.param("resnet50", {"stem": SMALL}, marks=pytest.mark.slow),
        pytest.param("resnext50_32x4d", {"stem": SMALL}, marks=pytest.mark.slow),
        pytest.param("googlenet", {"auxiliary": False}, marks=pytest.mark.slow),
    ],
)
def test_a_folded_network_computes_the_same_without_batch_norm(name, arguments):
    network = abstract(FAMILIES[name].constructor, num_classes=5, **arguments)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 16, 16, 3)), jnp.float32)
    with form("direct"):
        direct = assert_folds(network, images)
    if name == "shufflenet":
        with form("matmul"):
            np.testing.assert_allclose(assert_folds(network, images), direct, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["vgg16", "alexnet", "alexnet_one_tower", "squeezenet", "lenet5"])
def test_networks_without_batch_norm_fold_to_themselves(name):
    network = abstract(FAMILIES[name].constructor)
    assert not batch_norms(network)
    assert nnx.split(fold(network)) == nnx.split(network)


class Own(Unit):
    """A module of a user's: boxes in lists and dicts, one of them used twice, one with a bias.

    Its last normalisation is of no convolution.
    """

    def __init__(self, *, rngs):
        self.first = ConvNorm(4, 6, 3, bias=True, epsilon=0.1, rngs=rngs)
        self.many = nnx.List([nnx.List([ConvNorm(6, 6, stride=2, rngs=rngs)])])
        self.named = nnx.Dict({"wide": ConvNorm(6, 6, padding=1, groups=3, rngs=rngs)})
        self.again = self.named["wide"]
        self.alone = BatchNorm(6, rngs=rngs)

    def forward(self, x, *, train):
        x = self.many[0][0](self.first(x, train=train), train=train)
        x = self.again(self.named["wide"](x, train=train), train=train)
        return self.alone(x, use_running_average=not train)


def test_boxes_are_folded_wherever_they_stand():
    graphdef, state = nnx.split(abstract(Own))
    maps = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 5, 4)), jnp.float32)

    @jax.jit
    def both(leaves):
        own = nnx.merge(graphdef, leaves)
        folded = fold(own)
        assert batch_norms(folded) == [folded.alone]
        assert folded.again is folded.named["wide"]
        with pytest.raises(InputError, match="a folded network is for evaluation only"):
            folded(maps, train=True)
        return own(maps), folded(maps)

    whole, folded = both(trained_looking(state))
    np.testing.assert_allclose(folded, whole, atol=1e-5)
    root = fold(ConvNorm(4, 6, rngs=nnx.Rngs(0)))
    assert not batch_norms(root)
    assert isinstance(root, ConvNorm)


def test_what_is_folded_is_a_copy():
    network = ConvNorm(2, 2, 3, bias=True, rngs=nnx.Rngs(0))
    network.norm.mean[...] = jnp.ones(2)
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(network)))
    folded = fold(network)
    assert isinstance(network.conv, Conv)
    assert network.conv is not folded.conv
    after = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(network)))
    jax.tree.map(np.testing.assert_array_equal, after, before)
