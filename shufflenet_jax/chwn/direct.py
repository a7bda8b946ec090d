"""The direct form: one call of `jax.lax` or `jax.numpy` for each operation."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from shufflenet_jax.chwn.axis import Axis
from shufflenet_jax.chwn.form import Form
from shufflenet_jax.chwn.layout import per_channel
from shufflenet_jax.chwn.window import Window

_DIMENSIONS = ("CHWN", "HWIO", "CHWN")


def conv(x: Array, kernel: Array, window: Window, groups: int = 1) -> Array:
    """A convolution, of any kind."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (window.stride, window.stride),
        (window.padding, window.padding),
        dimension_numbers=_DIMENSIONS,
        feature_group_count=groups,
    )


def pointwise(x: Array, weights: Array) -> Array:
    """A 1x1 convolution, weights by group: one matrix product each, (o2, i) by (i, h w b)."""
    groups, _, in_channels = weights.shape
    y = jnp.einsum("goi,gin->gon", weights, x.reshape(groups, in_channels, -1))
    return y.reshape(-1, *x.shape[1:])


def max_pool(x: Array, window: Window) -> Array:
    """The largest value of each window."""
    # NumPy's, which is no tracer under jit: XLA has a gradient for this very value only.
    return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, *window.of_all_axes())


def avg_pool(x: Array, window: Window) -> Array:
    """The mean of each window, in which padding counts as zeros."""
    total = lax.reduce_window(x, np.zeros((), x.dtype), lax.add, *window.of_all_axes())
    return total / window.size**2


def add_relu(x: Array, y: Array) -> Array:
    """relu(x + y)."""
    return jax.nn.relu(x + y)


def global_avg_pool(x: Array) -> Array:
    """The mean over each map."""
    return jnp.mean(x, (1, 2))


def batch_norm(
    x: Array,
    scale: Array,
    bias: Array,
    epsilon: float,
    axis: Axis | None,
    shortcut: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Normalised maps, means and variances, all computed in float32; then what is added, in x's."""
    wide = x.astype(jnp.float32)
    mean, var = jnp.mean(wide, (1, 2, 3)), jnp.var(wide, (1, 2, 3))
    if axis:
        part, mean = mean, axis.mean(mean)
        var = axis.mean(var + jnp.square(part - mean))
    centred = (wide - per_channel(mean)) * lax.rsqrt(per_channel(var) + epsilon)
    y = (centred * per_channel(scale) + per_channel(bias)).astype(x.dtype)
    y = y if shortcut is None else add_relu(shortcut, y)
    return y, lax.stop_gradient(mean), lax.stop_gradient(var)


DIRECT = Form(conv, pointwise, max_pool, avg_pool, add_relu, global_avg_pool, batch_norm)
"""The plain form: what the other is tested against, and the default on accelerators."""
