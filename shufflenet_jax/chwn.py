"""Convolution, pooling and layout as the networks use them inside: activations as (c, h, w, b).

With channels first and the batch last, the slice of one group is contiguous and the fastest axis is
long, so on a CPU a grouped 1x1 convolution is a batched matrix product and a depthwise one is nine
multiply-adds of shifted images. XLA's own lowering of a convolution with `feature_group_count` is
several times slower there (see the benchmark in the README).

Two forms compute the same functions:

* ``direct``: `lax.conv_general_dilated` and `lax.reduce_window`, one call each. The reference that
  the tests hold the other form against, what `complexity` counts, and the default on accelerators.
* ``matmul``: matrix products and shifts. The default on a CPU.

`form` overrides the choice while a network is traced: ``with form("direct"): ...``.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax
import jax.numpy as jnp
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
    depthwise = groups == x.shape[0] == kernel.shape[-1]
    if active_form() == "direct":
        return _direct_conv(x, kernel, stride, groups)
    if depthwise:
        return _shifted_depthwise(x, kernel[:, :, 0, :], stride)
    if kernel.shape[0] == 1:
        return _matmul_pointwise(x[:, ::stride, ::stride], kernel[0, 0], groups)
    if kernel.shape[2] <= 4 and groups == 1:
        return _matmul_of_shifts(x, kernel, stride)
    return _direct_conv(x, kernel, stride, groups)


def max_pool(x: Float[Array, "c h w b"]) -> Float[Array, "c h2 w2 b"]:
    """Max pooling, 3x3, stride 2, padded by 1 on each side."""
    lowest = jnp.array(-jnp.inf, x.dtype)
    if active_form() == "direct":
        return lax.reduce_window(x, lowest, lax.max, *_POOL_WINDOW)
    # The gradient of nine maxima is three times faster on a CPU than that of a reduce_window.
    first, *others = _shifts(x, 3, 2, lowest)
    for other in others:
        first = jnp.maximum(first, other)
    return first


def avg_pool(x: Float[Array, "c h w b"]) -> Float[Array, "c h2 w2 b"]:
    """Average pooling, 3x3, stride 2, padded by 1 on each side; padding counts as zeros."""
    zero = jnp.zeros((), x.dtype)
    if active_form() == "direct":
        return lax.reduce_window(x, zero, lax.add, *_POOL_WINDOW) / 9
    return sum(_shifts(x, 3, 2, zero)) / 9


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


def _shifted_depthwise(x: Array, kernel: Array, stride: int) -> Array:
    """A depthwise convolution: k k shifted images, each times one weight a channel."""
    taps = kernel.reshape(-1, kernel.shape[-1], 1, 1, 1)
    zero = jnp.zeros((), x.dtype)
    shifts = _shifts(x, kernel.shape[0], stride, zero)
    return sum(shift * tap for shift, tap in zip(shifts, taps, strict=True))


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
