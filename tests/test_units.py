"""Figure 2's units: their arithmetic, and what shuffling connects."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from shufflenet_jax import BottleneckUnit, InputError, ShuffleUnit, channel_shuffle, no_shuffle


def unit(in_channels, out_channels, stride, **options):
    return ShuffleUnit(in_channels, out_channels, stride, rngs=nnx.Rngs(0), **options)


def images(channels, seed=0, size=6):
    return jnp.asarray(
        np.random.default_rng(seed).normal(size=(2, size, size, channels)), jnp.float32
    )


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 8])
def test_channel_arithmetic(groups):
    """Bottleneck of a quarter of the output; at stride 2 the branch makes what is missing."""
    wide = 24 * groups * 4
    narrow = 8 * groups
    same, down = unit(wide, wide, 1, groups=groups), unit(narrow, wide, 2, groups=groups)
    assert same.reduce.kernel.shape == (1, 1, wide // groups, wide // 4)
    assert same.depthwise.kernel.shape == (3, 3, 1, wide // 4)
    assert same.expand.kernel.shape == (1, 1, wide // 4 // groups, wide)
    assert down.reduce.kernel.shape == (1, 1, narrow // groups, wide // 4)
    assert down.expand.kernel.shape == (1, 1, wide // 4 // groups, wide - narrow)
    assert jax.eval_shape(same, images(wide)).shape == (2, 6, 6, wide)
    assert jax.eval_shape(down, images(narrow)).shape == (2, 3, 3, wide)
    assert jax.eval_shape(down, images(narrow, size=7)).shape == (2, 4, 4, wide)


def reference(unit, x):
    """Figure 2 written out in NHWC from library calls, in training mode."""

    def conv(x, layer, stride=1):
        edge = layer.kernel.shape[0] // 2
        return jax.lax.conv_general_dilated(
            x,
            layer.kernel[...],
            (stride, stride),
            [(edge, edge)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=layer.groups,
        )

    def norm(x):
        mean, var = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2), keepdims=True)
        return (x - mean) / jnp.sqrt(var + 1e-5)

    y = jax.nn.relu(norm(conv(x, unit.reduce)))
    y = unit.mix(y, unit.groups)
    y = norm(conv(y, unit.depthwise, unit.stride))  # no ReLU here
    y = norm(conv(y, unit.expand))
    if unit.stride == 1:
        return jax.nn.relu(x + y)
    window = ((1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    pooled = jax.lax.reduce_window(x, jnp.float32(0), jax.lax.add, *window) / 9
    return jax.nn.relu(jnp.concatenate([pooled, y], axis=-1))


@pytest.mark.parametrize("mix", [channel_shuffle, no_shuffle])
@pytest.mark.parametrize(("in_channels", "stride"), [(48, 1), (24, 2)])
def test_unit_computes_figure_2(mix, in_channels, stride):
    built = unit(in_channels, 48, stride, groups=3, mix=mix)
    x = images(in_channels)
    np.testing.assert_allclose(built(x, train=True), reference(built, x), atol=2e-5)


def test_bottleneck_unit_is_figure_2a():
    built = BottleneckUnit(16, 16, 1, rngs=nnx.Rngs(0))
    assert built.reduce.groups == built.expand.groups == 1
    np.testing.assert_allclose(
        built(images(16), train=True), reference(built, images(16)), atol=2e-5
    )


def influence(mix, units=2, channels=24, groups=3):
    """Which input channels the gradient of each output channel reaches: bool (outputs, inputs)."""
    chain = [
        ShuffleUnit(channels, channels, 1, groups=groups, mix=mix, rngs=nnx.Rngs(seed))
        for seed in range(units)
    ]

    def outputs(x):
        for each in chain:
            x = each(x, train=False)
        return x.sum((0, 1, 2))

    jacobian = jax.jacobian(outputs)(images(channels, seed=1))
    return np.asarray(jnp.abs(jacobian).sum((1, 2, 3)) > 0)


def test_no_gradient_crosses_groups_without_shuffle():
    same_group = np.kron(np.eye(3, dtype=bool), np.ones((8, 8), bool))
    assert not influence(no_shuffle)[~same_group].any()


def test_gradient_crosses_groups_with_shuffle():
    same_group = np.kron(np.eye(3, dtype=bool), np.ones((8, 8), bool))
    assert influence(channel_shuffle)[~same_group].all()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((24, 24, 3), {"groups": 1}, "stride is 1 or 2, not 3"),
        ((24, 48, 1), {"groups": 1}, "24 in, 48 out"),
        ((48, 48, 2), {"groups": 1}, "48 in, 48 out"),
        ((136, 136, 1), {"groups": 4}, "34 channels do not divide into 4 groups"),
        ((12, 96, 2), {"groups": 8, "first_groups": 1}, "84 channels do not divide into 8 groups"),
    ],
)
def test_impossible_units_say_why(arguments, options, message):
    with pytest.raises(InputError, match=message):
        partial(unit, **options)(*arguments)
