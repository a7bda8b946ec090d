"""Max pooling as the largest of shifted images, and its gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from shufflenet_jax.chwn.window import Window


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_of_shifts(x: Array, window: Window) -> Array:
    return _argmax_of_shifts(x, window)[0]


def _argmax_of_shifts(x: Array, window: Window) -> tuple[Array, Array]:
    """The largest of each window, and the first tap where it stands."""
    best, *others = window.shifts(x, fill=-jnp.inf)
    where = jnp.zeros(best.shape, jnp.uint8)
    for tap, other in enumerate(others, 1):
        where = jnp.where(other > best, jnp.uint8(tap), where)
        best = jnp.maximum(best, other)
    return best, where


def _max_of_shifts_forward(x: Array, window: Window):
    best, where = _argmax_of_shifts(x, window)
    return best, (where, x)


def _max_of_shifts_backward(window: Window, saved: tuple[Array, Array], dy: Array):
    where, x = saved
    size = window.size

    def weigh(rows: np.ndarray, columns: np.ndarray, dy: Array, where: Array) -> Array:
        there = (rows[:, None] < size) & (columns < size)
        tap = np.where(there, size * rows[:, None] + columns, _NO_TAP).astype(np.uint8)
        return jnp.where(where == tap[None, None, :, None, :, None], dy, jnp.zeros((), dy.dtype))

    return (window.unshift(weigh, (dy, where), x.shape),)


_NO_TAP = 255


max_of_shifts.defvjp(_max_of_shifts_forward, _max_of_shifts_backward)
