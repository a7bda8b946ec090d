"""Channel shuffle and the grouped and depthwise convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from shufflenet_jax import InputError, channel_shuffle, chwn, depthwise, grouped_pointwise
from shufflenet_jax.chwn import form

shapes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
groups = st.sampled_from([1, 2, 3, 4, 8])


def normal(seed, shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def nhwc_conv(x, kernel, stride, groups):
    """The definition, in the layout and with the call that any JAX user would write."""
    edge = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(edge, edge)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@given(groups, st.integers(1, 5))
def test_shuffle_is_the_transposition_of_the_paper(groups, per_group):
    channels = groups * per_group
    shuffled = np.asarray(channel_shuffle(jnp.arange(channels), groups))
    for group in range(groups):
        for index in range(per_group):
            assert shuffled[index * groups + group] == group * per_group + index


@given(groups, st.integers(1, 5), shapes)
def test_shuffle_is_undone_by_shuffling_with_the_other_factor(groups, per_group, shape):
    x = normal(0, (*shape, groups * per_group))
    back = channel_shuffle(channel_shuffle(x, groups), per_group)
    np.testing.assert_array_equal(back, x)


def test_shuffle_moves_any_axis_alike():
    x = normal(0, (2, 3, 4, 12))
    first = channel_shuffle(jnp.moveaxis(x, -1, 0), 3, axis=0)
    np.testing.assert_array_equal(jnp.moveaxis(first, 0, -1), channel_shuffle(x, 3))


def test_groups_that_do_not_divide_name_both_numbers():
    with pytest.raises(InputError, match="240 channels do not divide into 7 groups"):
        channel_shuffle(jnp.zeros((1, 1, 1, 240)), 7)
    with pytest.raises(InputError, match="10 channels do not divide into 4 groups"):
        grouped_pointwise(jnp.zeros((1, 1, 1, 8)), jnp.zeros((1, 1, 2, 10)), 4)


@given(groups, st.integers(1, 3), st.integers(1, 3), shapes)
def test_grouped_pointwise_is_the_direct_convolution(groups, inputs, outputs, shape):
    x = normal(0, (*shape, groups * inputs))
    kernel = normal(1, (1, 1, inputs, groups * outputs))
    expected = nhwc_conv(x, kernel, 1, groups)
    np.testing.assert_allclose(grouped_pointwise(x, kernel, groups), expected, atol=1e-5)


@given(st.integers(1, 5), st.sampled_from([1, 2]), shapes)
def test_depthwise_is_the_direct_convolution(channels, stride, shape):
    x, kernel = normal(0, (*shape, channels)), normal(1, (3, 3, 1, channels))
    expected = nhwc_conv(x, kernel, stride, channels)
    np.testing.assert_allclose(depthwise(x, kernel, stride), expected, atol=1e-5)


CONVOLUTIONS = {
    "pointwise": (1, 24, 36, 1, 3),
    "pointwise, stride 2": (1, 24, 36, 2, 4),
    "depthwise": (3, 12, 12, 1, 12),
    "depthwise, stride 2": (3, 12, 12, 2, 12),
    "first": (3, 3, 12, 2, 1),
    "dense": (3, 8, 12, 1, 1),
    "grouped 3x3": (3, 8, 12, 2, 2),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 6, 6), (3, 7, 5)])
def test_fast_forms_equal_the_direct_form_with_all_gradients(case, size):
    kernel_size, inputs, outputs, stride, groups = CONVOLUTIONS[case]
    batch, height, width = size
    x = normal(0, (inputs, height, width, batch))
    kernel = normal(1, (kernel_size, kernel_size, inputs // groups, outputs))
    weights = normal(2, (outputs, -(-height // stride), -(-width // stride), batch))

    def value_and_gradients(name):
        def weighted(x, kernel):
            with form(name):
                y = chwn.conv(x, kernel, stride, groups)
            return jnp.sum(y * weights), y

        (_, y), gradients = jax.value_and_grad(weighted, (0, 1), has_aux=True)(x, kernel)
        return y, *gradients

    for fast, direct in zip(
        value_and_gradients("matmul"), value_and_gradients("direct"), strict=True
    ):
        # Sums of up to 250 products of unit normals, in another order.
        np.testing.assert_allclose(fast, direct, atol=250**0.5 * 1e-6, rtol=1e-5)


@pytest.mark.parametrize("pool", [chwn.max_pool, chwn.avg_pool])
@pytest.mark.parametrize("size", [(1, 1), (6, 6), (7, 5)])
def test_fast_pools_equal_the_direct_form_with_gradient(pool, size):
    x = normal(0, (4, *size, 3))

    def value_and_gradient(name):
        with form(name):
            y, pullback = jax.vjp(pool, x)
            return y, pullback(normal(1, y.shape))[0]

    for fast, direct in zip(
        value_and_gradient("matmul"), value_and_gradient("direct"), strict=True
    ):
        np.testing.assert_allclose(fast, direct, atol=1e-6)


def test_unknown_form_is_refused():
    with pytest.raises(InputError, match="unknown form 'fast'"), form("fast"):
        pass
