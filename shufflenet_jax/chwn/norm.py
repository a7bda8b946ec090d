"""Batch normalisation as one multiply-add an element, backward too."""

import math
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from shufflenet_jax.chwn import direct
from shufflenet_jax.chwn.axis import Axis, mean_over
from shufflenet_jax.chwn.fusion import CompiledApart
from shufflenet_jax.chwn.gradient import WithGradient
from shufflenet_jax.chwn.layout import per_channel

_Normalised = tuple[Array, Array, Array]


def _forward(
    x: Array, scale: Array, bias: Array, *shortcut: Array, epsilon: float, axis: Axis | None
) -> tuple[_Normalised, tuple[Array, ...]]:
    count = x.size // x.shape[0]
    mean = mean_over(axis, _sum_per_channel(x) / count)
    var = mean_over(axis, _sum_per_channel(x, x) / count) - jnp.square(mean)
    var = jnp.maximum(var, 0)
    deviation = lax.rsqrt(var + epsilon)
    gain = scale * deviation
    saved = x, scale, mean, deviation
    if not shortcut:
        return (_affine(x, gain, bias - mean * gain), mean, var), saved
    y = _affine_add_relu(x, gain, bias - mean * gain, *shortcut)
    return (y, mean, var), (*saved, y)


def _backward(
    saved: tuple[Array, ...],
    cotangents: tuple[Array, ...],
    *,
    epsilon: float,
    axis: Axis | None,
) -> tuple[Array, ...]:
    del epsilon
    x, scale, mean, deviation, *after_relu = saved
    dy, _, _ = cotangents  # the statistics carry no gradient
    for y in after_relu:
        dy = jnp.where(y > 0, dy, 0)
    count = x.size // x.shape[0]
    dbias = _sum_per_channel(dy)
    dscale = (_sum_per_channel(dy, x) - mean * dbias) * deviation
    # dx = gain (dy - mean(dy) - normalised x mean(dy normalised x)), ordered by x. The means are
    # those of the whole batch, whereas dscale and dbias are what this part of it adds.
    gain = scale * deviation
    slope = -gain * deviation * mean_over(axis, dscale) / count
    offset = -gain * mean_over(axis, dbias) / count - slope * mean
    wide = dy.astype(jnp.float32) * per_channel(gain) + _wide_affine(x, slope, offset)
    dx = wide.astype(x.dtype)
    return (dx, dscale, dbias, dy) if after_relu else (dx, dscale, dbias)


def _affine(x: Array, gain: Array, offset: Array) -> Array:
    return _wide_affine(x, gain, offset).astype(x.dtype)


def _affine_add_relu_of_rows(x: Array, gain: Array, offset: Array, shortcut: Array) -> Array:
    rows = len(x), -1
    normalised = x.reshape(rows).astype(jnp.float32) * gain[:, None] + offset[:, None]
    return jnp.maximum(shortcut.reshape(rows) + normalised.astype(x.dtype), 0).reshape(x.shape)


def _affine_add_relu_of_maps(x: Array, gain: Array, offset: Array, shortcut: Array) -> Array:
    return direct.add_relu(shortcut, _affine(x, gain, offset))


# XLA takes an addition to be free: within a program, each unit would add up the branches of all
# units of its stage before it once more.
_affine_add_relu = CompiledApart(_affine_add_relu_of_rows, differentiated=_affine_add_relu_of_maps)


def _wide_affine(x: Array, gain: Array, offset: Array) -> Array:
    return x.astype(jnp.float32) * per_channel(gain) + per_channel(offset)


def _sum_per_channel(*factors: Array) -> Array:
    """Sums a product over all but the channels, in float32 whatever the factors are."""
    return jnp.sum(math.prod(factor.astype(jnp.float32) for factor in factors), (1, 2, 3))


def _normalise(*arrays: Array, **options: Any) -> _Normalised:
    return _forward(*arrays, **options)[0]


def _direct(
    x: Array, scale: Array, bias: Array, *shortcut: Array, epsilon: float, axis: Axis | None
) -> _Normalised:
    return direct.batch_norm(x, scale, bias, epsilon, axis, *shortcut)


batch_norm = WithGradient(_normalise, _forward, _backward, plain=_direct)
"""Normalised maps, means and variances, all computed in float32.

With a fourth array of maps the first is relu(that + the normalised maps).
"""
