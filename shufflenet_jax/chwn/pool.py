"""Max pooling as the largest of shifted images, and its gradient."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from shufflenet_jax.chwn import direct
from shufflenet_jax.chwn.gradient import WithGradient
from shufflenet_jax.chwn.window import Window

_NO_TAP = 255


def _max_of_shifts(x: Array, *, window: Window) -> Array:
    return _argmax_of_shifts(x, window)[0]


def _argmax_of_shifts(x: Array, window: Window) -> tuple[Array, Array]:
    """The largest of each window, and the first tap where it stands."""
    best, *others = window.shifts(x, fill=-jnp.inf)
    where = jnp.zeros(best.shape, jnp.uint8)
    for tap, other in enumerate(others, 1):
        where = jnp.where(other > best, jnp.uint8(tap), where)
        best = jnp.maximum(best, other)
    return best, where


def _forward(x: Array, *, window: Window) -> tuple[Array, tuple[Array, Array]]:
    best, where = _argmax_of_shifts(x, window)
    return best, (where, x)


def _backward(saved: tuple[Array, Array], dy: Array, *, window: Window) -> tuple[Array]:
    where, x = saved
    size = window.size

    def weigh(rows: np.ndarray, columns: np.ndarray, dy: Array, where: Array) -> Array:
        there = (rows[:, None] < size) & (columns < size)
        tap = np.where(there, size * rows[:, None] + columns, _NO_TAP).astype(np.uint8)
        return jnp.where(where == tap[None, None, :, None, :, None], dy, jnp.zeros((), dy.dtype))

    return (window.unshift(weigh, (dy, where), x.shape),)


def _direct(x: Array, *, window: Window) -> Array:
    return direct.max_pool(x, window)


max_pool = WithGradient(_max_of_shifts, _forward, _backward, plain=_direct)
"""Max pooling of (c, h, w, b); the gradient goes to the first of equal values."""
