"""Convolution, pooling and layout as the networks use them inside: activations as (c, h, w, b).

With channels first and the batch last, the slice of one group is contiguous and the fastest axis is
long, so on a CPU a grouped 1x1 convolution is a batched matrix product and a depthwise one is nine
multiply-adds of shifted images. XLA's own lowering of a convolution with `feature_group_count` is
several times slower there: `python -m experiments bench` measures by how much.

Two forms compute the same functions:

* ``direct``: `lax.conv_general_dilated` and `lax.reduce_window`, one call each. The reference that
  the tests hold the other form against, what `complexity` counts, and the default on accelerators.
* ``matmul``: matrix products and shifts. The default on a CPU.

`form` overrides the choice while a network is traced: ``with form("direct"): ...``.
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from shufflenet_jax.errors import InputError

_form: contextvars.ContextVar[str | None] = contextvars.ContextVar("form", default=None)
_DIMENSIONS = ("CHWN", "HWIO", "CHWN")


@contextlib.contextmanager
def form(name: str) -> Iterator[None]:
    """Uses one form for everything traced inside the block, whatever the platform."""
    if name not in ("direct", "matmul"):
        raise InputError(f"unknown form {name!r}: choose 'direct' or 'matmul'")
    token = _form.set(name)
    try:
        yield
    finally:
        _form.reset(token)


def active_form() -> str:
    """The form in force: the one chosen by `form`, else the platform's default."""
    return _form.get() or ("matmul" if jax.default_backend() == "cpu" else "direct")


def from_nhwc(x: Float[Array, "b h w c"]) -> Float[Array, "c h w b"]:
    """Takes public images or feature maps to the layout used inside."""
    return jnp.transpose(x, (3, 1, 2, 0))


def to_nhwc(x: Float[Array, "c h w b"]) -> Float[Array, "b h w c"]:
    """Takes feature maps back to the public layout."""
    return jnp.transpose(x, (3, 1, 2, 0))


def conv(
    x: Float[Array, "c h w b"],
    kernel: Float[Array, "k k i o"],
    stride: int = 1,
    groups: int = 1,
) -> Float[Array, "o h2 w2 b"]:
    """Convolves, padded by (k - 1) / 2 on each side as the authors' code does.

    Args:
      x: Feature maps.
      kernel: Weights as `nnx.Conv` keeps them, with i = c / groups; k is odd.
      stride: Step in both directions; h2 = ceil(h / stride), likewise w2.
      groups: Number of groups; group n maps the n-th run of c / groups input channels to the n-th
        run of o / groups output channels.
    """
    if active_form() == "direct":
        return _direct_conv(x, kernel, stride, groups)
    size = kernel.shape[0]
    if size == 3 and groups == x.shape[0] == kernel.shape[-1]:
        return _shifted_depthwise(x, kernel[:, :, 0, :], stride)
    if size == 1:
        return _matmul_pointwise(x[:, ::stride, ::stride], kernel[0, 0], groups)
    if kernel.shape[2] <= 4 and groups == 1:
        return _matmul_of_shifts(x, kernel, stride)
    return _direct_conv(x, kernel, stride, groups)


def max_pool(x: Float[Array, "c h w b"]) -> Float[Array, "c h2 w2 b"]:
    """Max pooling, 3x3, stride 2, padded by 1 on each side."""
    if active_form() == "direct":
        # NumPy's, which is no tracer under jit: XLA has a gradient for this very value only.
        return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, *_POOL_WINDOW)
    return _max_of_shifts(x)


def avg_pool(x: Float[Array, "c h w b"]) -> Float[Array, "c h2 w2 b"]:
    """Average pooling, 3x3, stride 2, padded by 1 on each side; padding counts as zeros."""
    if active_form() == "direct":
        return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, *_POOL_WINDOW) / 9
    return _shifted_depthwise(x, jnp.full((3, 3, x.shape[0]), 1 / 9, x.dtype), 2)


def batch_norm(
    x: Float[Array, "c h w b"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    epsilon: float,
) -> tuple[Float[Array, "c h w b"], Float[Array, " c"], Float[Array, " c"]]:
    """Normalises by the batch's own statistics (Ioffe and Szegedy, arXiv 1502.03167).

    Returns:
      scale (x - mean) / sqrt(var + epsilon) + bias, and the mean and variance of each channel,
      which carry no gradient.
    """
    if active_form() == "direct":
        return _direct_batch_norm(x, scale, bias, epsilon)
    return _affine_batch_norm(x, scale, bias, epsilon)


_POOL_WINDOW = ((1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))


def _direct_conv(x: Array, kernel: Array, stride: int, groups: int) -> Array:
    padding = [(kernel.shape[0] // 2, kernel.shape[0] // 2)] * 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=_DIMENSIONS,
        feature_group_count=groups,
    )


def _matmul_pointwise(x: Array, kernel: Array, groups: int) -> Array:
    """A 1x1 convolution: one matrix product a group, (o, i) by (i, h w b)."""
    channels, *rest = x.shape
    weights = kernel.reshape(channels // groups, groups, -1)
    y = jnp.einsum("igo,gin->gon", weights, x.reshape(groups, channels // groups, -1))
    return y.reshape(-1, *rest)


def _matmul_of_shifts(x: Array, kernel: Array, stride: int) -> Array:
    """A convolution of few input channels: its k k shifts stacked, then one matrix product."""
    size, _, _, out_channels = kernel.shape
    columns = jnp.concatenate(list(_shifts(x, size, stride, jnp.zeros((), x.dtype))))
    y = kernel.reshape(-1, out_channels).T @ columns.reshape(columns.shape[0], -1)
    return y.reshape(out_channels, *columns.shape[1:])


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shifted_depthwise(x: Array, kernel: Array, stride: int) -> Array:
    """A depthwise convolution: k k shifted images, each times one weight a channel."""
    shifts = _shifts(x, kernel.shape[0], stride, jnp.zeros((), x.dtype))
    return sum(shift * tap for shift, tap in zip(shifts, _taps(kernel), strict=True))


def _shifted_depthwise_forward(x: Array, kernel: Array, stride: int):
    return _shifted_depthwise(x, kernel, stride), (x, kernel)


def _shifted_depthwise_backward(stride: int, saved: tuple[Array, Array], dy: Array):
    # Automatic differentiation would pad and add up k k arrays of the size of x.
    x, kernel = saved
    shifts = _shifts(x, kernel.shape[0], stride, jnp.zeros((), x.dtype))
    dkernel = jnp.stack([_sum_per_channel(shift, dy) for shift in shifts])
    if stride == 1:
        dx = _shifted_depthwise(dy, kernel[::-1, ::-1], 1)
    else:
        dx = _unshift([dy * tap for tap in _taps(kernel)], x.shape)
    return dx, dkernel.reshape(kernel.shape).astype(kernel.dtype)


_shifted_depthwise.defvjp(_shifted_depthwise_forward, _shifted_depthwise_backward)


def _taps(kernel: Array) -> Array:
    """The k k weights of a depthwise kernel, each (c, 1, 1, 1)."""
    return kernel.reshape(-1, kernel.shape[-1], 1, 1, 1)


@jax.custom_vjp
def _max_of_shifts(x: Array) -> Array:
    return _argmax_of_shifts(x)[0]


def _argmax_of_shifts(x: Array) -> tuple[Array, Array]:
    """The largest of each 3x3 window at stride 2, and the first tap where it stands."""
    best, *others = _shifts(x, 3, 2, jnp.array(-jnp.inf, x.dtype))
    where = jnp.zeros(best.shape, jnp.uint8)
    for tap, other in enumerate(others, 1):
        where = jnp.where(other > best, jnp.uint8(tap), where)
        best = jnp.maximum(best, other)
    return best, where


def _max_of_shifts_forward(x: Array):
    best, where = _argmax_of_shifts(x)
    return best, (where, x)


def _max_of_shifts_backward(saved: tuple[Array, Array], dy: Array):
    where, x = saved
    taps = [jnp.where(where == tap, dy, jnp.zeros((), dy.dtype)) for tap in range(9)]
    return (_unshift(taps, x.shape),)


_max_of_shifts.defvjp(_max_of_shifts_forward, _max_of_shifts_backward)


def _direct_batch_norm(x: Array, scale: Array, bias: Array, epsilon: float):
    wide = x.astype(jnp.float32)
    mean, var = jnp.mean(wide, (1, 2, 3)), jnp.var(wide, (1, 2, 3))
    centred = (wide - _per_channel(mean)) * lax.rsqrt(_per_channel(var) + epsilon)
    y = (centred * _per_channel(scale) + _per_channel(bias)).astype(x.dtype)
    return y, lax.stop_gradient(mean), lax.stop_gradient(var)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _affine_batch_norm(x: Array, scale: Array, bias: Array, epsilon: float):
    """Batch normalisation as one multiply-add an element, backward too."""
    return _affine_batch_norm_forward(x, scale, bias, epsilon)[0]


def _affine_batch_norm_forward(x: Array, scale: Array, bias: Array, epsilon: float):
    count = x.size // x.shape[0]
    mean = _sum_per_channel(x) / count
    var = jnp.maximum(_sum_per_channel(x, x) / count - jnp.square(mean), 0)
    deviation = lax.rsqrt(var + epsilon)
    gain = scale * deviation
    y = _affine(x, gain, bias - mean * gain)
    return (y, mean, var), (x, scale, mean, deviation)


def _affine_batch_norm_backward(epsilon: float, saved: tuple[Array, ...], cotangents):
    del epsilon
    x, scale, mean, deviation = saved
    dy, _, _ = cotangents  # the statistics carry no gradient
    count = x.size // x.shape[0]
    dbias = _sum_per_channel(dy)
    dscale = (_sum_per_channel(dy, x) - mean * dbias) * deviation
    # dx = gain (dy - mean(dy) - normalised x mean(dy normalised x)), ordered by x.
    gain = scale * deviation
    slope = -gain * deviation * dscale / count
    offset = -gain * dbias / count - slope * mean
    dx = _per_channel(gain).astype(x.dtype) * dy + _affine(x, slope, offset)
    return dx, dscale, dbias


_affine_batch_norm.defvjp(_affine_batch_norm_forward, _affine_batch_norm_backward)


def _affine(x: Array, gain: Array, offset: Array) -> Array:
    return x * _per_channel(gain).astype(x.dtype) + _per_channel(offset).astype(x.dtype)


def _per_channel(values: Array) -> Array:
    return values.reshape(-1, 1, 1, 1)


def _sum_per_channel(*factors: Array) -> Array:
    """Sums a product over all but the channels, in float32 whatever the factors are."""
    return jnp.sum(math.prod(factor.astype(jnp.float32) for factor in factors), (1, 2, 3))


def _shifts(x: Array, size: int, stride: int, fill: Array) -> Iterator[Array]:
    """The size x size windows of x, tap by tap in row-major order: each (c, h2, w2, b)."""
    channels, height, width, batch = x.shape
    edge = size // 2
    padded = lax.pad(x, fill, ((0, 0, 0), (edge, edge, 0), (edge, edge, 0), (0, 0, 0)))
    span_h = stride * ((height - 1) // stride) + 1
    span_w = stride * ((width - 1) // stride) + 1
    for i in range(size):
        for j in range(size):
            limits = (channels, i + span_h, j + span_w, batch)
            yield lax.slice(padded, (0, i, j, 0), limits, (1, stride, stride, 1))


def _unshift(taps: list[Array], shape: tuple[int, ...]) -> Array:
    """The transpose of `_shifts` for 3x3 windows at stride 2, (c, h2, w2, b) nine times to shape.

    Tap (i, j) of output (p, q) belongs to input (2 p + i - 1, 2 q + j - 1). So even rows of the
    input get taps i = 1, and odd ones i = 2 of their own and i = 0 of the next output; likewise
    columns.
    """
    channels, height, width, batch = shape

    def rows(j: int, odd: bool) -> Array:
        return taps[6 + j] + _next(taps[j], axis=1) if odd else taps[3 + j]

    def quarter(odd_row: bool, odd_column: bool) -> Array:
        if odd_column:
            return rows(2, odd_row) + _next(rows(0, odd_row), axis=2)
        return rows(1, odd_row)

    halves = [jnp.stack([quarter(odd, False), quarter(odd, True)], axis=3) for odd in (False, True)]
    whole = jnp.stack(halves, axis=2)
    _, half_height, half_width, _ = taps[0].shape
    x = whole.reshape(channels, 2 * half_height, 2 * half_width, batch)
    return x[:, :height, :width]


def _next(x: Array, axis: int) -> Array:
    """The values one further along an axis, and zero after the last."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (-1, 1, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), edges)
