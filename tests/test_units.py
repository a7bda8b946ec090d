"""Units: their arithmetic against library calls, and what shuffling connects."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from shufflenet_jax import (
    BottleneckUnit,
    InputError,
    InvertedUnit,
    PlainUnit,
    ResidualUnit,
    SeparableUnit,
    ShuffleUnit,
    SqueezeExcitation,
    channel_shuffle,
    no_shuffle,
)
from shufflenet_jax.initialisation import initialise
from shufflenet_jax.layers import BatchNorm


def awake(built):
    """Starts a residual unit with a branch that is not zero."""
    initialise(built, "he", nnx.Rngs(0))
    return built


def unit(in_channels, out_channels, stride, **options):
    return awake(ShuffleUnit(in_channels, out_channels, stride, rngs=nnx.Rngs(0), **options))


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
    assert same.reduce.conv.kernel.shape == (1, 1, wide // groups, wide // 4)
    assert same.depthwise.conv.kernel.shape == (3, 3, 1, wide // 4)
    assert same.expand.conv.kernel.shape == (1, 1, wide // 4 // groups, wide)
    assert down.reduce.conv.kernel.shape == (1, 1, narrow // groups, wide // 4)
    assert down.expand.conv.kernel.shape == (1, 1, wide // 4 // groups, wide - narrow)
    assert jax.eval_shape(same, images(wide)).shape == (2, 6, 6, wide)
    assert jax.eval_shape(down, images(narrow)).shape == (2, 3, 3, wide)
    assert jax.eval_shape(down, images(narrow, size=7)).shape == (2, 4, 4, wide)


def conv(x, box, stride=1):
    """The convolution of a box of figure 2, in NHWC by the library call."""
    layer = box.conv
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
    """Fresh batch normalisation in training."""
    mean, var = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2), keepdims=True)
    return (x - mean) / jnp.sqrt(var + 1e-5)


def pooled(x):
    """The shortcut of figure 2 (c)."""
    window = (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    return jax.lax.reduce_window(x, jnp.float32(0), jax.lax.add, *window) / 9


def both(built, expected, x):
    """What a unit computes in training, and what is expected of it: one program, for speed."""

    @jax.jit
    def program(x):
        return nnx.clone(built)(x, train=True), expected(x)

    return program(x)


def reference(unit, x):
    """Figure 2 written out in NHWC from library calls, in training mode."""
    y = jax.nn.relu(norm(conv(x, unit.reduce)))
    y = unit.mix(y, unit.groups)
    y = norm(conv(y, unit.depthwise, unit.stride))  # no ReLU here
    y = norm(conv(y, unit.expand))
    if unit.stride == 1:
        return jax.nn.relu(x + y)
    return jax.nn.relu(jnp.concatenate([pooled(x), y], axis=-1))


@pytest.mark.parametrize("mix", [channel_shuffle, no_shuffle])
@pytest.mark.parametrize(("in_channels", "stride"), [(48, 1), (24, 2)])
def test_unit_computes_figure_2(mix, in_channels, stride):
    built = unit(in_channels, 48, stride, groups=3, mix=mix)
    ours, theirs = both(built, partial(reference, built), images(in_channels))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_bottleneck_unit_is_figure_2a():
    built = awake(BottleneckUnit(16, 16, 1, rngs=nnx.Rngs(0)))
    assert built.reduce.conv.groups == built.expand.conv.groups == 1
    ours, theirs = both(built, partial(reference, built), images(16))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("in_channels", "stride"), [(32, 1), (16, 1), (16, 2)])
def test_residual_unit_is_resnets_and_with_groups_resnexts(in_channels, stride, groups):
    built = awake(ResidualUnit(in_channels, 32, stride, ratio=2, groups=groups, rngs=nnx.Rngs(0)))
    assert built.spatial.conv.kernel.shape == (3, 3, 16 // groups, 16)

    def expected(x):
        y = jax.nn.relu(norm(conv(x, built.reduce)))
        y = jax.nn.relu(norm(conv(y, built.spatial, stride)))
        y = norm(conv(y, built.expand))
        shortcut = x if in_channels == 32 else norm(conv(x, built.project, stride))
        return jax.nn.relu(shortcut + y)

    ours, theirs = both(built, expected, images(in_channels))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize(("in_channels", "stride"), [(20, 1), (8, 2)])
def test_residual_unit_with_shufflenets_shortcut(in_channels, stride):
    """Its bottleneck of 10 is raised to 16, for 16 groups."""
    built = awake(
        ResidualUnit(in_channels, 20, stride, ratio=2, groups=16, pooled=True, rngs=nnx.Rngs(0))
    )
    assert built.spatial.conv.kernel.shape == (3, 3, 1, 16)

    def expected(x):
        y = jax.nn.relu(norm(conv(x, built.reduce)))
        y = norm(conv(jax.nn.relu(norm(conv(y, built.spatial, stride))), built.expand))
        return jax.nn.relu(x + y if stride == 1 else jnp.concatenate([pooled(x), y], axis=-1))

    ours, theirs = both(built, expected, images(in_channels))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_plain_unit_is_two_convolutions(stride):
    built = PlainUnit(8, 12, stride, rngs=nnx.Rngs(0))

    def expected(x):
        y = jax.nn.relu(norm(conv(x, built.first, stride)))
        return jax.nn.relu(norm(conv(y, built.second)))

    ours, theirs = both(built, expected, images(8))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def sharpen(built, scale=4.0):
    """Scales what batch normalisation returns, so that ReLU6 and sigmoid differ from their like."""
    for _, module in nnx.iter_modules(built):
        if isinstance(module, BatchNorm):
            module.scale[...] = jnp.full_like(module.scale[...], scale)
    return scale


@pytest.mark.parametrize("stride", [1, 2])
def test_separable_unit_is_depthwise_then_pointwise(stride):
    built = SeparableUnit(8, 12, stride, rngs=nnx.Rngs(0))
    scale = sharpen(built)

    def expected(x):
        y = jax.nn.relu(scale * norm(conv(x, built.depthwise, stride)))
        return jax.nn.relu(scale * norm(conv(y, built.pointwise)))

    ours, theirs = both(built, expected, images(8))
    assert theirs.max() > 6
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("expansion", [1, 6])
@pytest.mark.parametrize(("out_channels", "stride"), [(8, 1), (12, 1), (8, 2)])
def test_inverted_unit_adds_only_where_the_shape_stays(out_channels, stride, expansion):
    built = InvertedUnit(8, out_channels, stride, expansion=expansion, rngs=nnx.Rngs(0))
    scale = sharpen(built)

    def expected(x):
        y = x
        if expansion > 1:
            y = jax.nn.relu6(scale * norm(conv(y, built.expand)))
        y = jax.nn.relu6(scale * norm(conv(y, built.depthwise, stride)))
        most = y.max()
        y = scale * norm(conv(y, built.reduce))  # linear
        return x + y if (out_channels, stride) == (8, 1) else y, most

    ours, (theirs, most) = both(built, expected, images(8))
    assert most == 6
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_squeeze_and_excitation_weights_the_whole_output():
    built = SqueezeExcitation(16, 32, 2, unit=ShuffleUnit, reduction=4, groups=2, rngs=nnx.Rngs(0))

    def expected(x):
        y = reference(built.unit, x)
        hidden = jnp.maximum(y.mean((1, 2)) @ built.squeeze.kernel[...], 0)
        weights = 1 / (1 + jnp.exp(-hidden @ built.excite.kernel[...]))
        assert hidden.shape == (2, 8)
        return y * weights[:, None, None], weights

    ours, (theirs, weights) = both(built, expected, images(16))
    assert weights.std() > 0.05
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    with pytest.raises(InputError, match="24 channels do not divide into 16 groups"):
        SqueezeExcitation(24, 24, 1, unit=ShuffleUnit, groups=2, rngs=nnx.Rngs(0))


def influence(mix, units=2, channels=24, groups=3):
    """Which input channels the gradient of each output channel reaches: bool (outputs, inputs)."""
    chain = [
        awake(ShuffleUnit(channels, channels, 1, groups=groups, mix=mix, rngs=nnx.Rngs(seed)))
        for seed in range(units)
    ]

    def outputs(x):
        for each in chain:
            x = each(x, train=False)
        return x.sum((0, 1, 2))

    jacobian = jax.jit(jax.jacobian(outputs))(images(channels, seed=1))
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
