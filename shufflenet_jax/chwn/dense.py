"""Convolutions larger than 1x1 that are not depthwise, as dense convolutions or matrix products."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from shufflenet_jax.chwn import direct
from shufflenet_jax.chwn.fusion import CompiledApart
from shufflenet_jax.chwn.gradient import WithGradient
from shufflenet_jax.chwn.layout import from_nhwc, to_nhwc
from shufflenet_jax.chwn.window import Window


def _conv(x: Array, kernel: Array, *, window: Window) -> Array:
    return direct.conv(x, kernel, window)


def _forward(x: Array, kernel: Array, *, window: Window) -> tuple[Array, tuple[Array, Array]]:
    return _conv(x, kernel, window=window), (x, kernel)


def _backward(saved: tuple[Array, Array], dy: Array, *, window: Window) -> tuple[Array, Array]:
    x, kernel = saved
    _, gradient_of = jax.vjp(lambda x: _conv(x, kernel, window=window), x)
    return *gradient_of(dy), _kernel_gradient(x, dy, window).astype(kernel.dtype)


def _kernel_gradient(x: Array, dy: Array, window: Window) -> Array:
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


conv = WithGradient(_conv, _forward, _backward, plain=_conv)
"""A convolution without groups: XLA's own, but for the gradient of the kernel."""


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


def matmul_of_shifts(x: Array, kernel: Array, *, window: Window) -> Array:
    """A convolution as the k k shifts of its input stacked, then one matrix product."""
    out_channels = kernel.shape[-1]
    columns = jnp.concatenate(list(window.shifts(x)))
    y = kernel.reshape(-1, out_channels).T @ columns.reshape(columns.shape[0], -1)
    return y.reshape(out_channels, *columns.shape[1:])


def conv_of_few_channels(x: Array, kernel: Array, window: Window) -> Array:
    """A convolution of an image: a sum over taps and channels; in training a matrix product.

    The gradient of the kernel is a matrix product with all shifts of the image anyway.
    """
    if kernel.size // kernel.shape[-1] > 27:
        return matmul_of_shifts(x, kernel, window=window)
    return _conv_of_image(x, kernel, window=window)


def _sum_of_shifts(x: Array, kernel: Array, *, window: Window) -> Array:
    """One multiply-add for each tap and input channel."""
    taps = kernel.reshape(-1, *kernel.shape[2:])
    return sum(
        weights.reshape(-1, 1, 1, 1) * channel
        for shift, tap in zip(window.shifts(x), taps, strict=True)
        for channel, weights in zip(jnp.split(shift, len(x)), tap, strict=True)
    )


_conv_of_image = CompiledApart(_sum_of_shifts, differentiated=matmul_of_shifts)
