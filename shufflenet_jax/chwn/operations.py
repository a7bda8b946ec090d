"""The operations, each in the form in force."""

from contextlib import AbstractContextManager

import jax
from jaxtyping import Array, Float

from shufflenet_jax.chwn.axis import Axis
from shufflenet_jax.chwn.direct import DIRECT
from shufflenet_jax.chwn.form import Form
from shufflenet_jax.chwn.matmul import MATMUL
from shufflenet_jax.chwn.window import Window
from shufflenet_jax.errors import InputError

FORMS = {"direct": DIRECT, "matmul": MATMUL}
"""The forms by name."""

# Part of what JAX keeps compiled programs by: a function is traced once for every form.
_chosen = jax.make_user_context(None)


def form(chosen: Form | str) -> AbstractContextManager[None]:
    """Uses one form for everything traced inside the block, whatever the platform.

    Args:
      chosen: A form, or the name of one.

    Raises:
      InputError: There is none of that name.
    """
    if isinstance(chosen, str):
        if chosen not in FORMS:
            raise InputError(f"unknown form {chosen!r}: choose 'direct' or 'matmul'")
        chosen = FORMS[chosen]
    return _chosen(chosen)


def active_form() -> Form:
    """The form in force: the one chosen by `form`, else the platform's default."""
    return _chosen.value or (MATMUL if jax.default_backend() == "cpu" else DIRECT)


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

    Raises:
      InputError: The kernel is for other channels, or larger than the maps; both are named.
    """
    size, _, in_channels, out_channels = kernel.shape
    channels = x.shape[0]
    if channels != in_channels * groups:
        raise InputError(
            f"a kernel of {kernel.shape} in {groups} groups is for {in_channels * groups} "
            f"channels, not {channels}"
        )
    if out_channels % groups:
        raise InputError(f"{out_channels} channels do not divide into {groups} groups")
    padding = size // 2 if padding is None else padding
    window = _window(x, size, stride, (padding, padding))
    return active_form().conv(x, kernel, window, groups)


def pointwise(
    x: Float[Array, "c h w b"], weights: Float[Array, "g o2 i"]
) -> Float[Array, "o h w b"]:
    """A grouped 1x1 convolution with weights by group, as `by_group` orders them.

    Raises:
      InputError: The weights are for other channels; both numbers are named.
    """
    groups, _, in_channels = weights.shape
    if x.shape[0] != groups * in_channels:
        raise InputError(
            f"weights of {weights.shape} are for {groups * in_channels} channels, not {x.shape[0]}"
        )
    return active_form().pointwise(x, weights)


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

    Raises:
      InputError: The window is larger than the maps; both sizes are named.
    """
    return active_form().max_pool(x, _window(x, size, stride, padding))


def avg_pool(
    x: Float[Array, "c h w b"],
    size: int = 3,
    stride: int = 2,
    padding: tuple[int, int] = (1, 1),
) -> Float[Array, "c h2 w2 b"]:
    """Average pooling; padding counts as zeros. By default 3x3, stride 2, padded by 1.

    Raises:
      InputError: The window is larger than the maps; both sizes are named.
    """
    return active_form().avg_pool(x, _window(x, size, stride, padding))


def add_relu(x: Float[Array, "c h w b"], y: Float[Array, "c h w b"]) -> Float[Array, "c h w b"]:
    """relu(x + y), where a shortcut joins a branch."""
    return active_form().add_relu(x, y)


def global_avg_pool(x: Float[Array, "c h w b"]) -> Float[Array, "c b"]:
    """The mean over each map."""
    return active_form().global_avg_pool(x)


def batch_norm(
    x: Float[Array, "c h w b"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    epsilon: float,
    axis: Axis | None = None,
    shortcut: Float[Array, "c h w b"] | None = None,
) -> tuple[Float[Array, "c h w b"], Float[Array, " c"], Float[Array, " c"]]:
    """Normalises by the batch's own statistics (Ioffe and Szegedy, arXiv 1502.03167).

    Args:
      x: Feature maps.
      scale, bias: Of each channel, in float32, which is what all is computed in.
      epsilon: Added to the variance.
      axis: The mapped axis over which the batch is spread, for the statistics of all of it;
        None where x is all of it.
      shortcut: Maps of the same shape and type, where a shortcut joins a branch that ends so.

    Returns:
      y = scale (x - mean) / sqrt(var + epsilon) + bias in the type of x, or with a shortcut
      relu(shortcut + y); and the mean and variance of each channel in float32, which carry no
      gradient.
    """
    return active_form().batch_norm(x, scale, bias, epsilon, axis, shortcut)


def _window(x: Array, size: int, stride: int, padding: tuple[int, int]) -> Window:
    """The window, if it has a place in the maps.

    Raises:
      InputError: It has none.
    """
    window = Window(size, stride, padding)
    _, height, width, _ = x.shape
    if min(window.places(height), window.places(width)) < 1:
        before, after = padding
        raise InputError(
            f"a window of {size}x{size} is larger than maps of {height}x{width} that are padded "
            f"by {before} and {after}"
        )
    return window
