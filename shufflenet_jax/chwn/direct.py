"""The direct form: one call of `jax.lax` for each operation."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from shufflenet_jax.chwn.layout import per_channel
from shufflenet_jax.chwn.window import Window

_DIMENSIONS = ("CHWN", "HWIO", "CHWN")


def direct_conv(x: Array, kernel: Array, window: Window, groups: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (window.stride, window.stride),
        (window.padding, window.padding),
        dimension_numbers=_DIMENSIONS,
        feature_group_count=groups,
    )


def direct_batch_norm(x: Array, scale: Array, bias: Array, epsilon: float, axis_name: str | None):
    wide = x.astype(jnp.float32)
    mean, var = jnp.mean(wide, (1, 2, 3)), jnp.var(wide, (1, 2, 3))
    if axis_name:
        part, mean = mean, mean_over(axis_name, mean)
        var = mean_over(axis_name, var + jnp.square(part - mean))
    centred = (wide - per_channel(mean)) * lax.rsqrt(per_channel(var) + epsilon)
    y = (centred * per_channel(scale) + per_channel(bias)).astype(x.dtype)
    return y, lax.stop_gradient(mean), lax.stop_gradient(var)


def mean_over(axis_name: str | None, values: Array) -> Array:
    return lax.pmean(values, axis_name) if axis_name else values
