"""Batch normalisation as one multiply-add an element, backward too."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from shufflenet_jax.chwn.direct import mean_over
from shufflenet_jax.chwn.layout import per_channel


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def affine_batch_norm(x: Array, scale: Array, bias: Array, epsilon: float, axis_name: str | None):
    """Batch normalisation as one multiply-add an element, backward too."""
    return _affine_batch_norm_forward(x, scale, bias, epsilon, axis_name)[0]


def _affine_batch_norm_forward(
    x: Array, scale: Array, bias: Array, epsilon: float, axis_name: str | None
):
    count = x.size // x.shape[0]
    mean = mean_over(axis_name, _sum_per_channel(x) / count)
    var = mean_over(axis_name, _sum_per_channel(x, x) / count) - jnp.square(mean)
    var = jnp.maximum(var, 0)
    deviation = lax.rsqrt(var + epsilon)
    gain = scale * deviation
    y = _affine(x, gain, bias - mean * gain)
    return (y, mean, var), (x, scale, mean, deviation)


def _affine_batch_norm_backward(
    epsilon: float, axis_name: str | None, saved: tuple[Array, ...], cotangents
):
    del epsilon
    x, scale, mean, deviation = saved
    dy, _, _ = cotangents  # the statistics carry no gradient
    count = x.size // x.shape[0]
    dbias = _sum_per_channel(dy)
    dscale = (_sum_per_channel(dy, x) - mean * dbias) * deviation
    # dx = gain (dy - mean(dy) - normalised x mean(dy normalised x)), ordered by x. The means are
    # those of the whole batch, whereas dscale and dbias are what this part of it adds.
    gain = scale * deviation
    slope = -gain * deviation * mean_over(axis_name, dscale) / count
    offset = -gain * mean_over(axis_name, dbias) / count - slope * mean
    dx = per_channel(gain).astype(x.dtype) * dy + _affine(x, slope, offset)
    return dx, dscale, dbias


affine_batch_norm.defvjp(_affine_batch_norm_forward, _affine_batch_norm_backward)


def _affine(x: Array, gain: Array, offset: Array) -> Array:
    return x * per_channel(gain).astype(x.dtype) + per_channel(offset).astype(x.dtype)


def _sum_per_channel(*factors: Array) -> Array:
    """Sums a product over all but the channels, in float32 whatever the factors are."""
    return jnp.sum(math.prod(factor.astype(jnp.float32) for factor in factors), (1, 2, 3))
