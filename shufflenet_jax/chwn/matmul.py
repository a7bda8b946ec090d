"""The form of matrix products and shifted images, which is fast on a CPU."""

import jax.numpy as jnp
from jaxtyping import Array

from shufflenet_jax.chwn import dense, direct, norm, pool
from shufflenet_jax.chwn.axis import Axis
from shufflenet_jax.chwn.depthwise import SMALL, depthwise, of_small_maps
from shufflenet_jax.chwn.form import Form
from shufflenet_jax.chwn.fusion import CompiledApart
from shufflenet_jax.chwn.layout import by_group
from shufflenet_jax.chwn.window import Window


def conv(x: Array, kernel: Array, window: Window, groups: int) -> Array:
    """A convolution, in the way that is fastest for its kind."""
    size, stride, padding = window
    _, height, width, _ = x.shape
    if groups == x.shape[0] == kernel.shape[-1]:
        if height * width <= SMALL:
            return of_small_maps(x, kernel[:, :, 0, :], window)
        return depthwise(x, kernel[:, :, 0, :], window=window)
    if size == 1 and padding == (0, 0):
        return direct.pointwise(x[:, ::stride, ::stride], by_group(kernel, groups))
    if groups > 1:
        return dense.conv_by_groups(x, kernel, window, groups)
    if kernel.shape[2] <= 4:
        return dense.conv_of_few_channels(x, kernel, window)
    if min(height, width) < size:
        # XLA's own takes 100 times as long as it should on a map smaller than the window.
        return dense.matmul_of_shifts(x, kernel, window=window)
    return dense.conv(x, kernel, window=window)


def max_pool(x: Array, window: Window) -> Array:
    """The largest of shifted images."""
    return pool.max_pool(x, window=window)


def avg_pool(x: Array, window: Window) -> Array:
    """A depthwise convolution whose weights are all equal."""
    size = window.size
    kernel = jnp.full_like(x, 1 / size**2, shape=(size, size, x.shape[0]))
    return depthwise(x, kernel, window=window)


def global_avg_pool(x: Array) -> Array:
    """The sums as a product with a vector of ones."""
    if x.dtype != jnp.float32:
        # Such a product would have to add up in float32, and so would multiply in its gradient.
        return direct.global_avg_pool(x)
    channels, height, width, batch = x.shape
    sums = jnp.einsum(
        "cnb,n->cb",
        x.reshape(channels, -1, batch),
        jnp.ones(height * width, x.dtype),
        preferred_element_type=jnp.float32,
    )
    return sums / (height * width)


def batch_norm(
    x: Array,
    scale: Array,
    bias: Array,
    epsilon: float,
    axis: Axis | None,
    shortcut: Array | None,
) -> tuple[Array, Array, Array]:
    """One multiply-add an element, backward too."""
    arrays = (x, scale, bias) if shortcut is None else (x, scale, bias, shortcut)
    return norm.batch_norm(*arrays, epsilon=epsilon, axis=axis)


def _add_relu_of_rows(x: Array, y: Array) -> Array:
    # Rows as long as can be: a loop over one image's width and batch of 1 is not vectorised.
    rows = len(x), -1
    return jnp.maximum(x.reshape(rows) + y.reshape(rows), 0).reshape(x.shape)


add_relu = CompiledApart(_add_relu_of_rows, differentiated=direct.add_relu)
"""relu(x + y)."""

MATMUL = Form(conv, direct.pointwise, max_pool, avg_pool, add_relu, global_avg_pool, batch_norm)
"""The default on a CPU."""
