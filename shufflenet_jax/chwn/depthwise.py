"""Depthwise convolutions as multiply-adds of shifted images, and their gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from shufflenet_jax.chwn.window import Window


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def shifted_depthwise(x: Array, kernel: Array, window: Window) -> Array:
    """A depthwise convolution: k k shifted images, each times one weight a channel."""
    return sum(shift * tap for shift, tap in zip(window.shifts(x), _taps(kernel), strict=True))


def _shifted_depthwise_forward(x: Array, kernel: Array, window: Window):
    return shifted_depthwise(x, kernel, window), (x, kernel)


def _shifted_depthwise_backward(window: Window, saved: tuple[Array, Array], dy: Array):
    x, kernel = saved
    if window.stride == 1:
        before, after = (window.size - 1 - edge for edge in window.padding)
        dx = shifted_depthwise(dy, kernel[::-1, ::-1], Window(window.size, 1, (before, after)))
    else:
        # One row and one column of zeros more, for the taps that there are not.
        taps = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0)))

        def weigh(rows: np.ndarray, columns: np.ndarray, dy: Array) -> Array:
            weights = jnp.moveaxis(taps[np.ix_(rows, columns)], 2, 0)
            return dy * weights[:, None, :, None, :, None]

        dx = window.unshift(weigh, (dy,), x.shape)
    return dx, _depthwise_kernel_gradient(x, dy, window).astype(kernel.dtype)


shifted_depthwise.defvjp(_shifted_depthwise_forward, _shifted_depthwise_backward)


def _depthwise_kernel_gradient(x: Array, dy: Array, window: Window) -> Array:
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


def _taps(kernel: Array) -> Array:
    """The k k weights of a depthwise kernel, each (c, 1, 1, 1)."""
    return kernel.reshape(-1, kernel.shape[-1], 1, 1, 1)
