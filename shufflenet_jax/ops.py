"""The paper's operations as pure functions (section 3.1).

The units are built of `channel_shuffle`. `grouped_pointwise` and `depthwise` are for code of your
own on NHWC arrays: units reach the same convolutions through `shufflenet_jax.layers.Conv`, which
spares them the way from NHWC and back.
"""

from jaxtyping import Array, Float, Shaped

from shufflenet_jax import chwn
from shufflenet_jax.errors import InputError
from shufflenet_jax.images import Images, check_maps


def channel_shuffle(x: Shaped[Array, "..."], groups: int, axis: int = -1) -> Shaped[Array, "..."]:
    """Mixes the channels of all groups (section 3.1, figure 1): (g, n) transposed to (n, g).

    Channel ``i * n + j``, the j-th of group i, moves to ``j * groups + i``. With c / groups in
    place of groups it undoes itself.

    >>> import jax.numpy as jnp
    >>> channel_shuffle(jnp.arange(6.0), groups=2)
    Array([0., 3., 1., 4., 2., 5.], dtype=float32)

    Args:
      x: Any array; NHWC feature maps by default.
      groups: Number of groups g; must divide the channels.
      axis: Where the channels are.

    Raises:
      InputError: groups does not divide the channels, or there is no such axis.
    """
    if not -x.ndim <= axis < x.ndim:
        raise InputError(f"an array of {x.ndim} axes has no axis {axis}")
    axis %= x.ndim
    channels = x.shape[axis]
    check_groups(channels, groups)
    split = (*x.shape[:axis], groups, channels // groups, *x.shape[axis + 1 :])
    return x.reshape(split).swapaxes(axis, axis + 1).reshape(x.shape)


def no_shuffle(x: Shaped[Array, "..."], groups: int, axis: int = -1) -> Shaped[Array, "..."]:
    """Leaves the channels where they are: the "off" column of Table 3."""
    del groups, axis
    return x


def grouped_pointwise(
    x: Images, kernel: Shaped[Array, "..."], groups: int
) -> Float[Array, "b h w o"]:
    """The grouped 1x1 convolution: group n of the outputs sees only group n of the inputs.

    Args:
      x: Feature maps, (b, h, w, c).
      kernel: Weights as `nnx.Conv` keeps them, (1, 1, i, o) with i = c / groups.
      groups: Number of groups; must divide c and o.

    Raises:
      InputError: groups does not divide the channels, or x or kernel has another shape.
    """
    x = check_maps(x, None, "maps")
    channels, outputs = x.shape[-1], kernel.shape[-1] if kernel.ndim else 0
    check_groups(channels, groups)
    check_groups(outputs, groups)
    _check_kernel(kernel, (1, 1, channels // groups, outputs), x)
    return chwn.to_nhwc(chwn.conv(chwn.from_nhwc(x), kernel, groups=groups))


def depthwise(
    x: Images, kernel: Shaped[Array, "..."], stride: int = 1
) -> Float[Array, "b h2 w2 c"]:
    """The depthwise convolution, padded by k // 2 on each side: one filter a channel.

    Args:
      x: Feature maps, (b, h, w, c).
      kernel: Weights as `nnx.Conv` keeps them, (k, k, 1, c).
      stride: Step in both directions.

    Raises:
      InputError: x or kernel has another shape, or there is no such stride.
    """
    x = check_maps(x, None, "maps")
    size = kernel.shape[0] if kernel.ndim else 1
    _check_kernel(kernel, (size, size, 1, x.shape[-1]), x)
    if stride < 1:
        raise InputError(f"a stride is at least 1, not {stride}")
    return chwn.to_nhwc(chwn.conv(chwn.from_nhwc(x), kernel, stride, groups=x.shape[-1]))


def check_groups(channels: int, groups: int) -> None:
    """Raises InputError, naming both numbers, unless the groups divide the channels."""
    if groups < 1 or channels % groups:
        raise InputError(f"{channels} channels do not divide into {groups} groups")


def _check_kernel(kernel: Array, shape: tuple[int, ...], x: Array) -> None:
    """Raises InputError unless the kernel has the shape and the type that the maps ask for."""
    if kernel.shape != shape:
        raise InputError(f"maps of {x.shape} need a kernel of {shape}, not {kernel.shape}")
    if kernel.dtype != x.dtype:
        raise InputError(f"maps of {x.dtype} need a kernel of that type, not {kernel.dtype}")
