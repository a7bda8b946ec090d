"""A form of the operations: one way to compute each of them."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array

from shufflenet_jax.chwn.axis import Axis
from shufflenet_jax.chwn.window import Window


class Form(NamedTuple):
    """All operations on (c, h, w, b), as functions; `shufflenet_jax.chwn` says what each returns.

    A form with another way to compute some of them is ``DIRECT._replace(conv=...)``. What it is
    called with has been checked.

    Attributes:
      conv: Called with maps, kernel, window and groups.
      pointwise: Called with maps and weights, as `by_group` orders them.
      max_pool, avg_pool: Called with maps and window.
      add_relu: Called with two equal shapes of maps.
      global_avg_pool: Called with maps.
      batch_norm: Called with maps, scale, bias, epsilon, an `Axis` or None, and the maps of a
        shortcut or None.
    """

    conv: Callable[[Array, Array, Window, int], Array]
    pointwise: Callable[[Array, Array], Array]
    max_pool: Callable[[Array, Window], Array]
    avg_pool: Callable[[Array, Window], Array]
    add_relu: Callable[[Array, Array], Array]
    global_avg_pool: Callable[[Array], Array]
    batch_norm: Callable[
        [Array, Array, Array, float, Axis | None, Array | None], tuple[Array, Array, Array]
    ]
