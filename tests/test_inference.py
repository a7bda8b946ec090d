"""Folding batch normalisation into the convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from shufflenet_jax import Unit, fold, shufflenet
from shufflenet_jax.layers import ConvNorm


def trained_looking(network):
    """Gives every BN statistics and weights that are not those of a fresh network."""
    random = np.random.default_rng(0)
    for _, module in nnx.iter_modules(network):
        if isinstance(module, nnx.BatchNorm):
            for variable, low, high in (
                (module.mean, -1, 1),
                (module.var, 0.5, 2),
                (module.scale, 0.5, 1.5),
                (module.bias, -1, 1),
            ):
                drawn = random.uniform(low, high, variable.shape)
                variable[...] = jnp.asarray(drawn, jnp.float32)
    return network


def test_a_folded_network_computes_the_same_without_batch_norm():
    network = trained_looking(
        shufflenet(width=0.25, num_classes=10, repeats=(2, 1, 1), rngs=nnx.Rngs(0))
    )
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 64, 64, 3)), jnp.float32)
    expected = jax.jit(network)(images)
    folded = fold(network)
    assert not [m for _, m in nnx.iter_modules(folded) if isinstance(m, nnx.BatchNorm)]
    scale = jnp.abs(expected).max()
    np.testing.assert_allclose(jax.jit(folded)(images), expected, atol=2e-5 * scale)
    # The network itself is as it was.
    np.testing.assert_array_equal(jax.jit(network)(images), expected)


class Biased(Unit):
    """A convolution that has a bias although BN follows it."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.box = ConvNorm(4, 6, 3, bias=True, epsilon=0.1, rngs=rngs)
        self.box.conv.bias[...] = jnp.arange(6.0)

    def forward(self, x, *, train):
        return self.box(x, train=train)


def test_a_bias_before_batch_norm_is_folded_too():
    unit = trained_looking(Biased())
    maps = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 5, 4)), jnp.float32)
    np.testing.assert_allclose(fold(unit)(maps), unit(maps), atol=1e-5)
