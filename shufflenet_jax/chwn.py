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
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
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


def per_channel(values: Float[Array, " c"]) -> Float[Array, "c 1 1 1"]:
    """One value a channel, shaped to be added to or multiplied with (c, h, w, b)."""
    return values.reshape(-1, 1, 1, 1)


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
        return _direct_conv(x, kernel, window, groups)
    if groups == x.shape[0] == kernel.shape[-1]:
        depthwise = partial(_shifted_depthwise, window=window)
        return _alone(depthwise)(x, kernel[:, :, 0, :])
    if size == 1 and padding == 0:
        return pointwise(x[:, ::stride, ::stride], by_group(kernel, groups))
    if groups > 1:
        return _conv_by_groups(x, kernel, window, groups)
    if kernel.shape[2] <= 4:
        return _conv_of_few_channels(x, kernel, window)
    if min(x.shape[1:3]) < size:
        # XLA's own takes 100 times as long as it should on a map smaller than the window.
        return _matmul_of_shifts(x, kernel, window)
    return _dense_conv(x, kernel, window)


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
    return _max_of_shifts(x, window)


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
    return _alone(partial(_shifted_depthwise, window=window))(x, kernel)


def add_relu(x: Float[Array, "c h w b"], y: Float[Array, "c h w b"]) -> Float[Array, "c h w b"]:
    """relu(x + y), where a shortcut joins a branch."""
    if active_form() == "direct":
        return _add_relu(x, y)
    return _alone(_add_relu_of_rows, _add_relu)(x, y)


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
        return _direct_batch_norm(x, scale, bias, epsilon, axis_name)
    return _affine_batch_norm(x, scale, bias, epsilon, axis_name)


class Window(NamedTuple):
    """A square window that moves over a map: its size and step, and the padding of the map."""

    size: int
    stride: int
    padding: tuple[int, int]

    def of_all_axes(self):
        """Sizes, strides and padding for (c, h, w, b), as `lax.reduce_window` takes them."""
        return (
            (1, self.size, self.size, 1),
            (1, self.stride, self.stride, 1),
            ((0, 0), self.padding, self.padding, (0, 0)),
        )

    def places(self, length: int) -> int:
        """How many windows fit into a padded axis."""
        return (length + sum(self.padding) - self.size) // self.stride + 1


def _direct_conv(x: Array, kernel: Array, window: Window, groups: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (window.stride, window.stride),
        (window.padding, window.padding),
        dimension_numbers=_DIMENSIONS,
        feature_group_count=groups,
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dense_conv(x: Array, kernel: Array, window: Window) -> Array:
    """A convolution without groups: XLA's own, but for the gradient of the kernel."""
    return _direct_conv(x, kernel, window, groups=1)


def _dense_conv_forward(x: Array, kernel: Array, window: Window):
    return _dense_conv(x, kernel, window), (x, kernel)


def _dense_conv_backward(window: Window, saved: tuple[Array, Array], dy: Array):
    x, kernel = saved
    _, gradient_of = jax.vjp(lambda x: _direct_conv(x, kernel, window, groups=1), x)
    return *gradient_of(dy), _dense_kernel_gradient(x, dy, window).astype(kernel.dtype)


_dense_conv.defvjp(_dense_conv_forward, _dense_conv_backward)


def _dense_kernel_gradient(x: Array, dy: Array, window: Window) -> Array:
    """Returns (k, k, i, o): one matrix product a row of taps, of their shifts stacked, with dy."""
    size, shifts = window.size, list(_shifts(x, window))
    rows = [jnp.concatenate(shifts[start : start + size]) for start in range(0, size**2, size)]
    products = [
        jnp.einsum(
            "in,on->io",
            row.reshape(row.shape[0], -1),
            dy.reshape(dy.shape[0], -1),
            preferred_element_type=jnp.float32,
        )
        for row in rows
    ]
    return jnp.stack(products).reshape(size, size, x.shape[0], dy.shape[0])


def _conv_by_groups(x: Array, kernel: Array, window: Window, groups: int) -> Array:
    """A convolution in groups whose kernel is larger than 1x1: a dense one each, on (b, h, w, c).

    The gradients of one call with `feature_group_count` are where XLA is slowest of all.
    """
    maps, kernels = jnp.split(to_nhwc(x), groups, -1), jnp.split(kernel, groups, -1)
    parts = [
        lax.conv_general_dilated(
            part,
            weights,
            (window.stride, window.stride),
            (window.padding, window.padding),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        for part, weights in zip(maps, kernels, strict=True)
    ]
    return from_nhwc(jnp.concatenate(parts, -1))


def _matmul_of_shifts(x: Array, kernel: Array, window: Window) -> Array:
    """A convolution as the k k shifts of its input stacked, then one matrix product."""
    out_channels = kernel.shape[-1]
    columns = jnp.concatenate(list(_shifts(x, window)))
    y = kernel.reshape(-1, out_channels).T @ columns.reshape(columns.shape[0], -1)
    return y.reshape(out_channels, *columns.shape[1:])


def _alone(
    function: Callable[..., Array], differentiated: Callable[..., Array] | None = None
) -> Callable[..., Array]:
    """Makes XLA compile a function apart from what stands around it, unless it is differentiated.

    XLA on a CPU would fuse it with the reshape to a matrix that the next matrix product asks for,
    and then find each value's row and column by division, several times slower than without. While
    training, what it can share with the gradient is worth more.

    Args:
      function: Of arrays. It may not call `jax.nn.relu`, `jnp.where` or other functions that JAX
        jits: they would be compiled apart in turn.
      differentiated: What is computed instead while training, another form of the same function.
    """
    compiled = jax.jit(function)

    @jax.custom_vjp
    def alone(*arguments: Array) -> Array:
        with set_xla_metadata(inlineable="false"):
            return compiled(*arguments)

    def forward(*arguments: Array):
        return jax.vjp(differentiated or function, *arguments)

    def backward(pullback: Callable[[Array], tuple[Array, ...]], dy: Array):
        return pullback(dy)

    alone.defvjp(forward, backward)
    return alone


def _add_relu(x: Array, y: Array) -> Array:
    return jax.nn.relu(x + y)


def _add_relu_of_rows(x: Array, y: Array) -> Array:
    # Rows as long as can be: a loop over one image's width and batch of 1 is not vectorised.
    rows = len(x), -1
    return jnp.maximum(x.reshape(rows) + y.reshape(rows), 0).reshape(x.shape)


def _conv_of_few_channels(x: Array, kernel: Array, window: Window) -> Array:
    """A convolution of an image: a sum over taps and channels; in training a matrix product.

    The gradient of the kernel is a matrix product with all shifts of the image anyway.
    """
    product = partial(_matmul_of_shifts, window=window)
    if kernel.size // kernel.shape[-1] > 27:
        return product(x, kernel)
    return _alone(partial(_sum_of_shifts, window=window), product)(x, kernel)


def _sum_of_shifts(x: Array, kernel: Array, window: Window) -> Array:
    """A convolution as one multiply-add for each tap and input channel."""
    taps = kernel.reshape(-1, *kernel.shape[2:])
    return sum(
        weights.reshape(-1, 1, 1, 1) * channel
        for shift, tap in zip(_shifts(x, window), taps, strict=True)
        for channel, weights in zip(jnp.split(shift, len(x)), tap, strict=True)
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shifted_depthwise(x: Array, kernel: Array, window: Window) -> Array:
    """A depthwise convolution: k k shifted images, each times one weight a channel."""
    return sum(shift * tap for shift, tap in zip(_shifts(x, window), _taps(kernel), strict=True))


def _shifted_depthwise_forward(x: Array, kernel: Array, window: Window):
    return _shifted_depthwise(x, kernel, window), (x, kernel)


def _shifted_depthwise_backward(window: Window, saved: tuple[Array, Array], dy: Array):
    x, kernel = saved
    if window.stride == 1:
        before, after = (window.size - 1 - edge for edge in window.padding)
        dx = _shifted_depthwise(dy, kernel[::-1, ::-1], Window(window.size, 1, (before, after)))
    else:
        # One row and one column of zeros more, for the taps that there are not.
        taps = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0)))

        def weigh(rows: np.ndarray, columns: np.ndarray, dy: Array) -> Array:
            weights = jnp.moveaxis(taps[np.ix_(rows, columns)], 2, 0)
            return dy * weights[:, None, :, None, :, None]

        dx = _unshift(weigh, (dy,), window, x.shape)
    return dx, _depthwise_kernel_gradient(x, dy, window).astype(kernel.dtype)


_shifted_depthwise.defvjp(_shifted_depthwise_forward, _shifted_depthwise_backward)


def _depthwise_kernel_gradient(x: Array, dy: Array, window: Window) -> Array:
    """Returns (k, k, c): tap (i, j) sums x[s p + i, s q + j] dy[p, q] over p, q and the batch.

    For each j, a matrix product of all rows of x, moved by j, with all rows of dy; the rows that
    belong together stand on its diagonals. That is more arithmetic than k k sums of products, but
    for those XLA writes out all k k shifts of x, which takes longer.
    """
    size, stride, _ = window
    channels, _, width, batch = x.shape
    rows = dy.shape[1]
    padded = _padded(x, window)
    height = padded.shape[1]
    span = stride * (window.places(width) - 1) + 1
    moved = [
        lax.slice(padded, (0, 0, j, 0), (channels, height, j + span, batch), (1, 1, stride, 1))
        for j in range(size)
    ]
    products = jnp.einsum(
        "cpn,cqn->cpq",
        jnp.concatenate(moved, axis=1).reshape(channels, size * height, -1),
        dy.reshape(channels, rows, -1),
        preferred_element_type=jnp.float32,
    ).reshape(channels, size, height, rows)
    each = np.arange(rows)
    sums = [products[:, :, stride * each + i, each].sum(-1) for i in range(size)]
    return jnp.stack(sums).swapaxes(1, 2)


def _taps(kernel: Array) -> Array:
    """The k k weights of a depthwise kernel, each (c, 1, 1, 1)."""
    return kernel.reshape(-1, kernel.shape[-1], 1, 1, 1)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_of_shifts(x: Array, window: Window) -> Array:
    return _argmax_of_shifts(x, window)[0]


def _argmax_of_shifts(x: Array, window: Window) -> tuple[Array, Array]:
    """The largest of each window, and the first tap where it stands."""
    best, *others = _shifts(x, window, fill=-jnp.inf)
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

    return (_unshift(weigh, (dy, where), window, x.shape),)


_NO_TAP = 255

_max_of_shifts.defvjp(_max_of_shifts_forward, _max_of_shifts_backward)


def _direct_batch_norm(x: Array, scale: Array, bias: Array, epsilon: float, axis_name: str | None):
    wide = x.astype(jnp.float32)
    mean, var = jnp.mean(wide, (1, 2, 3)), jnp.var(wide, (1, 2, 3))
    if axis_name:
        part, mean = mean, _mean_over(axis_name, mean)
        var = _mean_over(axis_name, var + jnp.square(part - mean))
    centred = (wide - per_channel(mean)) * lax.rsqrt(per_channel(var) + epsilon)
    y = (centred * per_channel(scale) + per_channel(bias)).astype(x.dtype)
    return y, lax.stop_gradient(mean), lax.stop_gradient(var)


def _mean_over(axis_name: str | None, values: Array) -> Array:
    return lax.pmean(values, axis_name) if axis_name else values


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _affine_batch_norm(x: Array, scale: Array, bias: Array, epsilon: float, axis_name: str | None):
    """Batch normalisation as one multiply-add an element, backward too."""
    return _affine_batch_norm_forward(x, scale, bias, epsilon, axis_name)[0]


def _affine_batch_norm_forward(
    x: Array, scale: Array, bias: Array, epsilon: float, axis_name: str | None
):
    count = x.size // x.shape[0]
    mean = _mean_over(axis_name, _sum_per_channel(x) / count)
    var = _mean_over(axis_name, _sum_per_channel(x, x) / count) - jnp.square(mean)
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
    slope = -gain * deviation * _mean_over(axis_name, dscale) / count
    offset = -gain * _mean_over(axis_name, dbias) / count - slope * mean
    dx = per_channel(gain).astype(x.dtype) * dy + _affine(x, slope, offset)
    return dx, dscale, dbias


_affine_batch_norm.defvjp(_affine_batch_norm_forward, _affine_batch_norm_backward)


def _affine(x: Array, gain: Array, offset: Array) -> Array:
    return x * per_channel(gain).astype(x.dtype) + per_channel(offset).astype(x.dtype)


def _sum_per_channel(*factors: Array) -> Array:
    """Sums a product over all but the channels, in float32 whatever the factors are."""
    return jnp.sum(math.prod(factor.astype(jnp.float32) for factor in factors), (1, 2, 3))


def _padded(x: Array, window: Window, fill: float = 0.0) -> Array:
    edges = (*window.padding, 0)
    return lax.pad(x, jnp.array(fill, x.dtype), ((0, 0, 0), edges, edges, (0, 0, 0)))


def _shifts(x: Array, window: Window, fill: float = 0.0) -> Iterator[Array]:
    """The values under each tap of the window, in row-major order: each (c, h2, w2, b)."""
    size, stride, _ = window
    channels, height, width, batch = x.shape
    padded = _padded(x, window, fill)
    span_h, span_w = (stride * (window.places(length) - 1) + 1 for length in (height, width))
    for i in range(size):
        for j in range(size):
            limits = (channels, i + span_h, j + span_w, batch)
            yield lax.slice(padded, (0, i, j, 0), limits, (1, stride, stride, 1))


def _unshift(
    weigh: Callable[..., Array], maps: Sequence[Array], window: Window, shape: tuple[int, ...]
) -> Array:
    """The transpose of `_shifts`: what the windows give back to every position of their input.

    Position s n + a of an axis, in phase a, is under tap a + before - s m of window n + m, for a
    few m. So for each pair of m, for rows and columns, one term: the maps, moved, times what
    `weigh` makes of the taps. All phases are computed at once, along axes of their own, which XLA
    turns into one loop without a branch.

    Args:
      weigh: Called with the taps of every phase, for rows and columns, where `window.size` means
        none, and with the maps as (c, h3, 1, w3, 1, b); returns the term, (c, h3, s, w3, s, b).
      maps: Arrays over the windows, (c, h2, w2, b).
      window: The window.
      shape: Of the input, (c, h, w, b).
    """
    channels, height, width, batch = shape
    stride = window.stride
    counts = tuple(-(-length // stride) for length in (height, width))
    moves = {}
    for move in range(-window.size, window.padding[0] + 1):
        taps = np.arange(stride) + window.padding[0] - stride * move
        if np.any(there := (taps >= 0) & (taps < window.size)):
            moves[move] = np.where(there, taps, window.size)
    first, last = min(moves), max(moves)

    def moved(x: Array, down: int, right: int) -> Array:
        ends = (last + count - have for count, have in zip(counts, x.shape[1:3], strict=True))
        edges = [(0, 0, 0), *((-first, end, 0) for end in ends), (0, 0, 0)]
        x = lax.pad(x, jnp.zeros((), x.dtype), edges)
        x = lax.slice_in_dim(x, down - first, down - first + counts[0], axis=1)
        return lax.slice_in_dim(x, right - first, right - first + counts[1], axis=2)

    total = sum(
        weigh(rows, columns, *(moved(x, down, right)[:, :, None, :, None] for x in maps))
        for down, rows in moves.items()
        for right, columns in moves.items()
    )
    whole = total.reshape(channels, stride * counts[0], stride * counts[1], batch)
    return whole[:, :height, :width]
