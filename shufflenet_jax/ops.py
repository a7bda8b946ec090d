"""The paper's operations as pure functions on NHWC arrays (section 3.1)."""

from jaxtyping import Array, Float, Shaped

from shufflenet_jax import chwn
from shufflenet_jax.errors import InputError


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
    """
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
    x: Float[Array, "b h w c"], kernel: Float[Array, "1 1 i o"], groups: int
) -> Float[Array, "b h w o"]:
    """The grouped 1x1 convolution: group n of the outputs sees only group n of the inputs.

    Args:
      x: Feature maps.
      kernel: Weights as `nnx.Conv` keeps them, i = c / groups.
      groups: Number of groups; must divide c and o.

    Raises:
      InputError: groups does not divide the channels.
    """
    check_groups(x.shape[-1], groups)
    check_groups(kernel.shape[-1], groups)
    return chwn.to_nhwc(chwn.conv(chwn.from_nhwc(x), kernel, groups=groups))


def depthwise(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"], stride: int = 1
) -> Float[Array, "b h2 w2 c"]:
    """The depthwise convolution, padded by (k - 1) / 2 on each side: one filter a channel."""
    return chwn.to_nhwc(chwn.conv(chwn.from_nhwc(x), kernel, stride, groups=x.shape[-1]))


def check_groups(channels: int, groups: int) -> None:
    """Raises InputError, naming both numbers, unless the groups divide the channels."""
    if groups < 1 or channels % groups:
        raise InputError(f"{channels} channels do not divide into {groups} groups")
