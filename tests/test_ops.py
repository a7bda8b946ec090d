"""Channel shuffle and the grouped and depthwise convolutions, and the forms of the operations."""

from functools import cache

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
    back = jax.jit(lambda x: channel_shuffle(channel_shuffle(x, groups), per_group))(x)
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


def test_an_axis_that_there_is_not_is_named():
    for axis in (7, 4, -5):
        with pytest.raises(InputError, match=f"an array of 4 axes has no axis {axis}"):
            channel_shuffle(jnp.zeros((1, 1, 1, 12)), 3, axis=axis)


MAPS = jnp.zeros((2, 5, 5, 12))


@pytest.mark.parametrize("name", ["direct", "matmul"])
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: grouped_pointwise(MAPS, jnp.zeros((1, 1, 12, 6)), 3),
            r"maps of \(2, 5, 5, 12\) need a kernel of \(1, 1, 4, 6\), not \(1, 1, 12, 6\)",
        ),
        (
            lambda: grouped_pointwise(MAPS, jnp.zeros((3, 3, 4, 6)), 3),
            r"need a kernel of \(1, 1, 4, 6\), not \(3, 3, 4, 6\)",
        ),
        (
            lambda: grouped_pointwise(MAPS, jnp.zeros((4, 6)), 3),
            r"need a kernel of \(1, 1, 4, 6\), not \(4, 6\)",
        ),
        (
            lambda: grouped_pointwise(MAPS, jnp.zeros((1, 1, 4, 6), jnp.bfloat16), 3),
            "maps of float32 need a kernel of that type, not bfloat16",
        ),
        (
            lambda: depthwise(MAPS, jnp.zeros((3, 3, 1, 24))),
            r"maps of \(2, 5, 5, 12\) need a kernel of \(3, 3, 1, 12\), not \(3, 3, 1, 24\)",
        ),
        (
            lambda: depthwise(MAPS, jnp.zeros((3, 2, 1, 12))),
            r"need a kernel of \(3, 3, 1, 12\), not \(3, 2, 1, 12\)",
        ),
        (lambda: depthwise(MAPS, jnp.zeros((3, 3, 1, 12)), 0), "a stride is at least 1, not 0"),
        (
            lambda: depthwise(jnp.zeros((2, 5, 5, 12), jnp.int32), jnp.zeros((3, 3, 1, 12))),
            "maps are float32, bfloat16, float16, not int32",
        ),
        (
            lambda: depthwise(jnp.zeros((5, 5, 12)), jnp.zeros((3, 3, 1, 12))),
            r"not of shape \(5, 5, 12\); one alone is a batch of 1",
        ),
        (
            lambda: chwn.conv(jnp.zeros((12, 5, 5, 2)), jnp.zeros((3, 3, 4, 6))),
            r"a kernel of \(3, 3, 4, 6\) in 1 groups is for 4 channels, not 12",
        ),
        (
            lambda: chwn.pointwise(jnp.zeros((12, 5, 5, 2)), jnp.zeros((3, 2, 5))),
            r"weights of \(3, 2, 5\) are for 15 channels, not 12",
        ),
        (
            lambda: chwn.conv(jnp.zeros((4, 2, 9, 1)), jnp.zeros((5, 5, 4, 6)), padding=0),
            "a window of 5x5 is larger than maps of 2x9 that are padded by 0 and 0",
        ),
        (
            lambda: chwn.max_pool(jnp.zeros((4, 2, 1, 1)), padding=(0, 1)),
            "a window of 3x3 is larger than maps of 2x1 that are padded by 0 and 1",
        ),
        (
            lambda: chwn.avg_pool(jnp.zeros((4, 1, 1, 1)), 2, padding=(0, 0)),
            "a window of 2x2 is larger than maps of 1x1 that are padded by 0 and 0",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_named_in_both_forms(name, call, message):
    with form(name), pytest.raises(InputError, match=message):
        call()


@given(groups, st.integers(1, 3), st.integers(1, 3), shapes)
def test_grouped_pointwise_is_the_direct_convolution(groups, inputs, outputs, shape):
    x = normal(0, (*shape, groups * inputs))
    kernel = normal(1, (1, 1, inputs, groups * outputs))
    ours, expected = jax.jit(
        lambda x, k: (grouped_pointwise(x, k, groups), nhwc_conv(x, k, 1, groups))
    )(x, kernel)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@given(st.integers(1, 5), st.sampled_from([1, 2]), shapes)
def test_depthwise_is_the_direct_convolution(channels, stride, shape):
    x, kernel = normal(0, (*shape, channels)), normal(1, (3, 3, 1, channels))
    ours, expected = jax.jit(
        lambda x, k: (depthwise(x, k, stride), nhwc_conv(x, k, stride, channels))
    )(x, kernel)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@cache
def both_forms(function):
    """Values and gradients of arguments, in the fast form, and in the direct one in float32."""

    def value_and_gradients(name, arguments, dtype):
        with form(name):
            y, pullback = jax.vjp(function, *arguments)
            cotangent = normal(9, y.shape, dtype).astype(y.dtype)
            undifferentiated = function(*arguments) if name == "matmul" else y
            return [undifferentiated, y, *pullback(cotangent)]

    @jax.jit
    def both(*arguments):
        dtype = arguments[0].dtype
        wide = [each.astype(jnp.float32) for each in arguments]
        return [
            value_and_gradients(name, given, dtype)
            for name, given in (("matmul", arguments), ("direct", wide))
        ]

    return both


def assert_forms_agree(function, arguments, summed, rounded=0):
    """Value and all gradients of the fast form, against those of the direct one in float32.

    The value twice, since what is not differentiated may be computed in another way.

    Args:
      function: Of arrays, returns one array.
      arguments: Standard normal, of one dtype.
      summed: The most products n that any value or gradient is a sum of. Partial sums are about
        sqrt(n) large and each is rounded; added one by one, n such errors of random sign make up
        n rounding units, added pairwise sqrt(n).
      rounded: How many partial sums of a value, and of the gradient of the first argument, are
        rounded to the dtype where that has 16 bits; their errors of half a unit of the last place
        have random signs. All else is summed in float32 and rounded once.
    """
    dtype = arguments[0].dtype
    single = float(jnp.finfo(jnp.float32).eps) * (8 * summed**0.5 + summed)
    for index, (fast, direct) in enumerate(zip(*both_forms(function)(*arguments), strict=True)):
        assert fast.dtype == dtype
        fast, direct = np.asarray(fast, np.float64), np.asarray(direct, np.float64)
        tolerance = single
        if dtype != jnp.float32:
            errors = 1 + (rounded if index <= 2 else 0) ** 0.5
            tolerance += 0.51 * errors * float(jnp.finfo(dtype).eps) * np.abs(direct).max()
        difference = np.abs(fast - direct)
        assert difference.max() <= tolerance, (index, difference.max(), tolerance)


dtypes = st.sampled_from([jnp.float32, jnp.bfloat16])
strides = st.sampled_from([1, 2])


@given(groups, st.integers(1, 3), st.integers(1, 3), strides, shapes, dtypes)
def test_fast_pointwise_with_gradients(groups, inputs, outputs, stride, shape, dtype):
    batch, height, width = shape
    x = normal(0, (groups * inputs, height, width, batch), dtype)
    kernel = normal(1, (1, 1, inputs, groups * outputs), dtype)
    summed = max(inputs, outputs, batch * height * width)
    assert_forms_agree(lambda x, k: chwn.conv(x, k, stride, groups), (x, kernel), summed)


@pytest.mark.slow
@given(st.integers(2, 4), st.sampled_from([1, 3, 5]), strides, shapes, dtypes)
def test_fast_depthwise_with_gradients(channels, size, stride, shape, dtype):
    batch, height, width = shape
    x = normal(0, (channels, height, width, batch), dtype)
    kernel = normal(1, (size, size, 1, channels), dtype)
    summed = max(size * size, batch * height * width)
    assert_forms_agree(
        lambda x, k: chwn.conv(x, k, stride, channels), (x, kernel), summed, rounded=size * size
    )


@given(st.sampled_from([(3, 8, 1), (8, 4, 1), (8, 12, 2)]), strides, shapes, dtypes)
def test_other_3x3_convolutions_with_gradients(channels, stride, shape, dtype):
    (inputs, outputs, groups), (batch, height, width) = channels, shape
    x = normal(0, (inputs, height, width, batch), dtype)
    kernel = normal(1, (3, 3, inputs // groups, outputs), dtype)
    summed = max(9 * inputs, 9 * outputs, batch * height * width)
    rounded = 0
    if inputs == 3:  # an image's sums
        rounded = 9 * inputs
    elif groups == 1 and min(height, width) < 3:  # smaller than the window: nine shifts, summed
        rounded = 9
    assert_forms_agree(lambda x, k: chwn.conv(x, k, stride, groups), (x, kernel), summed, rounded)


windows = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3)).map(
    lambda each: (each[0], each[1], (min(each[2], each[0] - 1), min(each[3], each[0] - 1)))
)


@given(st.sampled_from([chwn.max_pool, chwn.avg_pool]), windows, shapes, dtypes)
def test_fast_pools_with_gradient(pool, window, shape, dtype):
    batch, height, width = shape
    x = normal(0, (4, height + 3, width + 3, batch), dtype)
    assert_forms_agree(lambda x: pool(x, *window), (x,), 16, rounded=16)


@given(windows, shapes)
def test_fast_depthwise_with_any_padding(window, shape):
    (size, stride, (padding, _)), (batch, height, width) = window, shape
    x, kernel = normal(0, (3, height + 3, width + 3, batch)), normal(1, (size, size, 1, 3))
    summed = max(size * size, x[0].size)
    assert_forms_agree(lambda x, k: chwn.conv(x, k, stride, 3, padding), (x, kernel), summed)


@given(
    st.sampled_from([(3, 1), (6, 1), (6, 2)]),
    st.sampled_from([1, 3, 5]),
    strides,
    st.integers(0, 2),
    shapes,
)
def test_other_convolutions_with_any_padding(channels, size, stride, padding, shape):
    (inputs, groups), (batch, height, width) = channels, shape
    x = normal(0, (inputs, height + 4, width + 4, batch))
    kernel = normal(1, (size, size, inputs // groups, 4))
    summed = max(6 * size * size, x[0].size)
    assert_forms_agree(lambda x, k: chwn.conv(x, k, stride, groups, padding), (x, kernel), summed)


@given(shapes, dtypes)
def test_fast_sum_and_mean_with_gradients(shape, dtype):
    batch, height, width = shape
    x, y = (normal(seed, (4, height, width, batch), dtype) for seed in range(2))
    assert_forms_agree(chwn.add_relu, (x, y), 2)
    assert_forms_agree(chwn.add_relu, (x, -x), 2)  # without a gradient where the sum is zero
    assert_forms_agree(chwn.global_avg_pool, (x,), height * width)


def test_max_pool_gives_ties_to_the_first():
    """As XLA's own gradient does: a constant image sends each gradient to one corner."""
    x = jnp.ones((1, 5, 5, 1))
    assert_forms_agree(chwn.max_pool, (x,), 9)


@given(shapes, dtypes, st.booleans())
def test_fast_batch_norm_with_gradients(shape, dtype, joined):
    batch, height, width = shape
    count = batch * (height + 3) * width
    x = 2 * normal(0, (5, height + 3, width, batch), dtype) + jnp.asarray(0.5, dtype)
    scale, bias = normal(1, (5,)), normal(2, (5,))

    def output(x, scale, bias, shortcut=None):
        wide = scale.astype(jnp.float32), bias.astype(jnp.float32)
        return chwn.batch_norm(x, *wide, 1e-5, shortcut=shortcut)[0]

    arguments = (x, scale.astype(dtype), bias.astype(dtype))
    if joined:
        # Far from zero, so that a rounding error does not decide which gradients the ReLU passes.
        sign = jnp.sign(normal(3, x.shape, dtype))
        arguments += (16 * sign,)
    # The gradient divides by the deviation, which for a few values can be small.
    deviation = float(np.asarray(x, np.float64).std(axis=(1, 2, 3)).min())
    assert_forms_agree(
        output, arguments, 16 * count / min(1.0, deviation) ** 4, rounded=int(joined)
    )


def test_the_shortcut_of_batch_norm_is_added_before_a_relu():
    x, shortcut = normal(0, (3, 4, 5, 6)), normal(1, (3, 4, 5, 6))
    scale, bias = normal(2, (3,)), normal(3, (3,))
    for name in ("direct", "matmul"):
        with form(name):
            alone, *expected = chwn.batch_norm(x, scale, bias, 1e-5)
            joined, *statistics = chwn.batch_norm(x, scale, bias, 1e-5, shortcut=shortcut)
        np.testing.assert_allclose(joined, np.maximum(shortcut + alone, 0), atol=1e-6)
        np.testing.assert_array_equal(statistics, expected)


def test_batch_norm_statistics():
    x = normal(0, (3, 4, 5, 6))
    for name in ("direct", "matmul"):
        with form(name):
            _, mean, var = jax.jit(lambda x: chwn.batch_norm(x, jnp.ones(3), jnp.zeros(3), 1e-5))(x)
        np.testing.assert_allclose(mean, np.mean(x, (1, 2, 3)), atol=1e-6)
        np.testing.assert_allclose(var, np.var(x, (1, 2, 3)), rtol=1e-5)


def test_unknown_form_is_refused():
    with pytest.raises(InputError, match="unknown form 'fast'"), form("fast"):
        pass


def test_a_function_is_traced_anew_in_another_form():
    """Also within another that is jitted, and where an operation is replaced."""
    x, kernel = normal(0, (4, 5, 5, 1)), normal(1, (3, 3, 1, 4))
    traced = []

    def conv(x, kernel, window, groups):
        traced.append(groups)
        return chwn.DIRECT.conv(x, kernel, window, groups) + 1

    inner = jax.jit(lambda x: chwn.conv(x, kernel, groups=4))
    outer = jax.jit(lambda x: 2 * inner(x))
    third = chwn.DIRECT._replace(conv=conv)
    programs = {}
    for chosen in ("direct", "matmul", third, "direct", third):
        with form(chosen):
            y, doubled = inner(x), outer(x)
            programs[chosen] = inner.lower(x).as_text()
        expected = nhwc_conv(chwn.to_nhwc(x), kernel, 1, 4) + float(chosen is third)
        np.testing.assert_allclose(chwn.to_nhwc(y), expected, atol=1e-5)
        np.testing.assert_allclose(doubled, 2 * y, rtol=1e-6)
    assert traced == [4]
    assert "stablehlo.convolution" in programs["direct"]
    assert "stablehlo.convolution" not in programs["matmul"]
    assert len(set(programs.values())) == 3
    assert chwn.active_form() == chwn.MATMUL  # as before, on a CPU


def test_forms_have_all_operations():
    """What a new form does not replace is the form's that it is made of."""
    assert not set(chwn.DIRECT._replace(conv=None)) & set(chwn.MATMUL) - {chwn.DIRECT.pointwise}
