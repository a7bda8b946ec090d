"""The operations, each in the form in force."""

import contextlib
import contextvars
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from shufflenet_jax.chwn.dense import (
    conv_by_groups,
    conv_of_few_channels,
    dense_conv,
    matmul_of_shifts,
)
from shufflenet_jax.chwn.depthwise import shifted_depthwise
from shufflenet_jax.chwn.direct import direct_batch_norm, direct_conv
from shufflenet_jax.chwn.fusion import alone
from shufflenet_jax.chwn.norm import affine_batch_norm
from shufflenet_jax.chwn.pool import max_of_shifts
from shufflenet_jax.chwn.window import Window
from shufflenet_jax.errors import InputError

_form: contextvars.ContextVar[str | None] = contextvars.ContextVar("form", default=None)


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


def conv(
    x: Float[Array, "c h w b"],
    kernel: Float[Array, "k k i o"],
    stride: int = 1,
    groups: int = 1,
    padding: int | None = None,
) -> Float[Array, "o h2 w2 b"]:
    """Convolves, by default padded by (k - 1) / 2 on each side as the authors' code does.

    Args:
      x: Feature maps.
      kernel: Weights as `nnx.Conv` keeps them, with i = c / groups.
      stride: Step in both directions; with the default padding h2 = ceil(h / stride).
      groups: Number of groups; group n maps the n-th run of c / groups input channels to the n-th
        run of o / groups output channels.
      padding: Zeros on each side.
    """
    size = kernel.shape[0]
    padding = size // 2 if padding is None else padding
    window = Window(size, stride, (padding, padding))
    if active_form() == "direct":
        return direct_conv(x, kernel, window, groups)
    if groups == x.shape[0] == kernel.shape[-1]:
        depthwise = partial(shifted_depthwise, window=window)
        return alone(depthwise)(x, kernel[:, :, 0, :])
    if size == 1 and padding == 0:
        return pointwise(x[:, ::stride, ::stride], by_group(kernel, groups))
    if groups > 1:
        return conv_by_groups(x, kernel, window, groups)
    if kernel.shape[2] <= 4:
        return conv_of_few_channels(x, kernel, window)
    if min(x.shape[1:3]) < size:
        # XLA's own takes 100 times as long as it should on a map smaller than the window.
        return matmul_of_shifts(x, kernel, window)
    return dense_conv(x, kernel, window)


def by_group(kernel: Float[Array, "1 1 i o"], groups: int) -> Float[Array, "g o2 i"]:
    """Orders the weights of a 1x1 convolution as `pointwise` takes them, with o2 = o / g."""
    in_channels, out_channels = kernel.shape[2:]
    weights = kernel.reshape(in_channels, groups, out_channels // groups)
    return jnp.transpose(weights, (1, 2, 0))


def pointwise(
    x: Float[Array, "c h w b"], weights: Float[Array, "g o2 i"]
) -> Float[Array, "o h w b"]:
    """A grouped 1x1 convolution: one matrix product a group, (o2, i) by (i, h w b)."""
    groups, _, in_channels = weights.shape
    y = jnp.einsum("goi,gin->gon", weights, x.reshape(groups, in_channels, -1))
    return y.reshape(-1, *x.shape[1:])


def max_pool(
    x: Float[Array, "c h w b"],
    size: int = 3,
    stride: int = 2,
    padding: tuple[int, int] = (1, 1),
) -> Float[Array, "c h2 w2 b"]:
    """Max pooling; by default 3x3, stride 2, padded by 1 on each side.

    Args:
      x: Feature maps.
      size, stride: Of the window, in both directions.
      padding: What stands before and after the map, in both directions. It is never the largest.
    """
    window = Window(size, stride, padding)
    if active_form() == "direct":
        # NumPy's, which is no tracer under jit: XLA has a gradient for this very value only.
        return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, *window.of_all_axes())
    return max_of_shifts(x, window)


def avg_pool(
    x: Float[Array, "c h w b"],
    size: int = 3,
    stride: int = 2,
    padding: tuple[int, int] = (1, 1),
) -> Float[Array, "c h2 w2 b"]:
    """Average pooling; padding counts as zeros. By default 3x3, stride 2, padded by 1."""
    window = Window(size, stride, padding)
    if active_form() == "direct":
        total = lax.reduce_window(x, np.zeros((), x.dtype), lax.add, *window.of_all_axes())
        return total / size**2
    kernel = jnp.full_like(x, 1 / size**2, shape=(size, size, x.shape[0]))
    return alone(partial(shifted_depthwise, window=window))(x, kernel)


def add_relu(x: Float[Array, "c h w b"], y: Float[Array, "c h w b"]) -> Float[Array, "c h w b"]:
    """relu(x + y), where a shortcut joins a branch."""
    if active_form() == "direct":
        return _add_relu(x, y)
    return alone(_add_relu_of_rows, _add_relu)(x, y)


def global_avg_pool(x: Float[Array, "c h w b"]) -> Float[Array, "c b"]:
    """The mean over each map."""
    if active_form() == "direct":
        return jnp.mean(x, (1, 2))
    channels, height, width, batch = x.shape
    ones = jnp.full((height * width,), 1 / (height * width), x.dtype)
    return jnp.einsum("cnb,n->cb", x.reshape(channels, -1, batch), ones)


def batch_norm(
    x: Float[Array, "c h w b"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    epsilon: float,
    axis_name: str | None = None,
) -> tuple[Float[Array, "c h w b"], Float[Array, " c"], Float[Array, " c"]]:
    """Normalises by the batch's own statistics (Ioffe and Szegedy, arXiv 1502.03167).

    Args:
      x: Feature maps.
      scale, bias: Of each channel.
      epsilon: Added to the variance.
      axis_name: The mapped axis over which the batch is spread, for the statistics of all of it;
        None where x is all of it.

    Returns:
      scale (x - mean) / sqrt(var + epsilon) + bias, and the mean and variance of each channel,
      which carry no gradient.
    """
    if active_form() == "direct":
        return direct_batch_norm(x, scale, bias, epsilon, axis_name)
    return affine_batch_norm(x, scale, bias, epsilon, axis_name)


def _add_relu(x: Array, y: Array) -> Array:
    return jax.nn.relu(x + y)


def _add_relu_of_rows(x: Array, y: Array) -> Array:
    # Rows as long as can be: a loop over one image's width and batch of 1 is not vectorised.
    rows = len(x), -1
    return jnp.maximum(x.reshape(rows) + y.reshape(rows), 0).reshape(x.shape)
