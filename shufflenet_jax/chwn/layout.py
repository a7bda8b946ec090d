"""The layout used inside, (c, h, w, b), the public one, (b, h, w, c), and weights by group."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def from_nhwc(x: Float[Array, "b h w c"]) -> Float[Array, "c h w b"]:
    """Takes public images or feature maps to the layout used inside."""
    return jnp.transpose(x, (3, 1, 2, 0))


def to_nhwc(x: Float[Array, "c h w b"]) -> Float[Array, "b h w c"]:
    """Takes feature maps back to the public layout."""
    return jnp.transpose(x, (3, 1, 2, 0))


def per_channel(values: Float[Array, " c"]) -> Float[Array, "c 1 1 1"]:
    """One value a channel, shaped to be added to or multiplied with (c, h, w, b)."""
    return values.reshape(-1, 1, 1, 1)


def by_group(kernel: Float[Array, "1 1 i o"], groups: int) -> Float[Array, "g o2 i"]:
    """Orders the weights of a 1x1 convolution as `pointwise` takes them, with o2 = o / g."""
    in_channels, out_channels = kernel.shape[2:]
    weights = kernel.reshape(in_channels, groups, out_channels // groups)
    return jnp.transpose(weights, (1, 2, 0))
