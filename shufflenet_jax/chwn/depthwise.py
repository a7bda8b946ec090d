"""Depthwise convolutions: multiply-adds of shifted images, or a matrix a channel on small maps."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from shufflenet_jax.chwn import direct
from shufflenet_jax.chwn.fusion import CompiledApart
from shufflenet_jax.chwn.gradient import WithGradient
from shufflenet_jax.chwn.window import Window


def _sum_of_shifts(x: Array, kernel: Array, *, window: Window) -> Array:
    """k k shifted images, each times one weight a channel."""
    taps = kernel.reshape(-1, kernel.shape[-1], 1, 1, 1)
    return sum(shift * tap for shift, tap in zip(window.shifts(x), taps, strict=True))


def _forward(x: Array, kernel: Array, *, window: Window) -> tuple[Array, tuple[Array, Array]]:
    return _sum_of_shifts(x, kernel, window=window), (x, kernel)


def _backward(saved: tuple[Array, Array], dy: Array, *, window: Window) -> tuple[Array, Array]:
    x, kernel = saved
    if window.stride == 1:
        before, after = (window.size - 1 - edge for edge in window.padding)
        mirrored = Window(window.size, 1, (before, after))
        dx = _sum_of_shifts(dy, kernel[::-1, ::-1], window=mirrored)
    else:
        # One row and one column of zeros more, for the taps that there are not.
        taps = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0)))

        def weigh(rows: np.ndarray, columns: np.ndarray, dy: Array) -> Array:
            weights = jnp.moveaxis(taps[np.ix_(rows, columns)], 2, 0)
            return dy * weights[:, None, :, None, :, None]

        dx = window.unshift(weigh, (dy,), x.shape)
    return dx, _kernel_gradient(x, dy, window).astype(kernel.dtype)


def _kernel_gradient(x: Array, dy: Array, window: Window) -> Array:
    """Returns (k, k, c): tap (i, j) sums x[s p + i, s q + j] dy[p, q] over p, q and the batch.

    For each j, a matrix product of all rows of x, moved by j, with all rows of dy; the rows that
    belong together stand on its diagonals. That is more arithmetic than k k sums of products, but
    for those XLA writes out all k k shifts of x, which takes longer.
    """
    size, stride, _ = window
    channels, _, width, batch = x.shape
    rows = dy.shape[1]
    padded = window.pad(x)
    height = padded.shape[1]
    span = stride * (window.places(width) - 1) + 1
    moved = [
        lax.slice(padded, (0, 0, j, 0), (channels, height, j + span, batch), (1, 1, stride, 1))
        for j in range(size)
    ]
    products = jnp.einsum(
        "cpn,cqn->cpq",
        jnp.concatenate(moved, axis=1).reshape(channels, size * height, -1),
        dy.reshape(channels, rows, -1),
        preferred_element_type=jnp.float32,
    ).reshape(channels, size, height, rows)
    each = np.arange(rows)
    sums = [products[:, :, stride * each + i, each].sum(-1) for i in range(size)]
    return jnp.stack(sums).swapaxes(1, 2)


def _direct(x: Array, kernel: Array, *, window: Window) -> Array:
    return direct.conv(x, kernel[:, :, None], window, groups=len(x))


depthwise = CompiledApart(
    _sum_of_shifts, WithGradient(_sum_of_shifts, _forward, _backward, plain=_direct)
)
"""A depthwise convolution of (c, h, w, b) with a kernel of (k, k, c)."""

SMALL = 36
"""Values of a map up to which `of_small_maps` is no slower, and compiles in a fifth of the time."""


def of_small_maps(x: Array, kernel: Array, window: Window) -> Array:
    """For each channel one matrix product, from all values of a map to all of the result."""
    channels, height, width, batch = x.shape
    rows, columns = _under_taps(window, height), _under_taps(window, width)
    seen = jnp.asarray(np.einsum("iph,jqw->ijpqhw", rows, columns), kernel.dtype)
    y = jnp.einsum(
        "cmn,cnb->cmb",
        jnp.einsum("ijc,ijpqhw->cpqhw", kernel, seen).reshape(channels, -1, height * width),
        x.reshape(channels, -1, batch),
    )
    return y.reshape(channels, rows.shape[1], columns.shape[1], batch)


def _under_taps(window: Window, length: int) -> np.ndarray:
    """Returns (k, p, n), of an axis: 1 where tap i of window p stands on value n."""
    taps = np.arange(window.size)[:, None, None] - window.padding[0]
    places = np.arange(window.places(length))[:, None]
    return (np.arange(length) == window.stride * places + taps).astype(np.float32)
