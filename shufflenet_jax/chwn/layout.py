"""The layout used inside, (c, h, w, b), and the public one, (b, h, w, c)."""

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
