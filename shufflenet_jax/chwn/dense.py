"""Convolutions that are not depthwise, as matrix products and dense convolutions."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from shufflenet_jax.chwn.direct import direct_conv
from shufflenet_jax.chwn.fusion import alone
from shufflenet_jax.chwn.layout import from_nhwc, to_nhwc
from shufflenet_jax.chwn.window import Window


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def dense_conv(x: Array, kernel: Array, window: Window) -> Array:
    """A convolution without groups: XLA's own, but for the gradient of the kernel."""
    return direct_conv(x, kernel, window, groups=1)


def _dense_conv_forward(x: Array, kernel: Array, window: Window):
    return dense_conv(x, kernel, window), (x, kernel)


def _dense_conv_backward(window: Window, saved: tuple[Array, Array], dy: Array):
    x, kernel = saved
    _, gradient_of = jax.vjp(lambda x: direct_conv(x, kernel, window, groups=1), x)
    return *gradient_of(dy), _dense_kernel_gradient(x, dy, window).astype(kernel.dtype)


dense_conv.defvjp(_dense_conv_forward, _dense_conv_backward)


def _dense_kernel_gradient(x: Array, dy: Array, window: Window) -> Array:
    """Returns (k, k, i, o): one matrix product a row of taps, of their shifts stacked, with dy."""
    size, shifts = window.size, list(window.shifts(x))
    rows = [jnp.concatenate(shifts[start : start + size]) for start in range(0, size**2, size)]
    products = [
        jnp.einsum(
            "in,on->io",
            row.reshape(row.shape[0], -1),
            dy.reshape(dy.shape[0], -1),
            preferred_element_type=jnp.float32,
        )
        for row in rows
    ]
    return jnp.stack(products).reshape(size, size, x.shape[0], dy.shape[0])


def conv_by_groups(x: Array, kernel: Array, window: Window, groups: int) -> Array:
    """A convolution in groups whose kernel is larger than 1x1: a dense one each, on (b, h, w, c).

    The gradients of one call with `feature_group_count` are where XLA is slowest of all.
    """
    maps, kernels = jnp.split(to_nhwc(x), groups, -1), jnp.split(kernel, groups, -1)
    parts = [
        lax.conv_general_dilated(
            part,
            weights,
            (window.stride, window.stride),
            (window.padding, window.padding),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        for part, weights in zip(maps, kernels, strict=True)
    ]
    return from_nhwc(jnp.concatenate(parts, -1))


def matmul_of_shifts(x: Array, kernel: Array, window: Window) -> Array:
    """A convolution as the k k shifts of its input stacked, then one matrix product."""
    out_channels = kernel.shape[-1]
    columns = jnp.concatenate(list(window.shifts(x)))
    y = kernel.reshape(-1, out_channels).T @ columns.reshape(columns.shape[0], -1)
    return y.reshape(out_channels, *columns.shape[1:])


def conv_of_few_channels(x: Array, kernel: Array, window: Window) -> Array:
    """A convolution of an image: a sum over taps and channels; in training a matrix product.

    The gradient of the kernel is a matrix product with all shifts of the image anyway.
    """
    product = partial(matmul_of_shifts, window=window)
    if kernel.size // kernel.shape[-1] > 27:
        return product(x, kernel)
    return alone(partial(_sum_of_shifts, window=window), product)(x, kernel)


def _sum_of_shifts(x: Array, kernel: Array, window: Window) -> Array:
    """A convolution as one multiply-add for each tap and input channel."""
    taps = kernel.reshape(-1, *kernel.shape[2:])
    return sum(
        weights.reshape(-1, 1, 1, 1) * channel
        for shift, tap in zip(window.shifts(x), taps, strict=True)
        for channel, weights in zip(jnp.split(shift, len(x)), tap, strict=True)
    )
