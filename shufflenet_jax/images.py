"""Images: what networks accept, and how bytes become it."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

from shufflenet_jax.errors import InputError
from shufflenet_jax.pixels import PIXEL_MEAN, PIXEL_STD

Images = Shaped[Array, "..."] | Shaped[np.ndarray, "..."]
"""What a network is called with. It says what it takes of it, where it does not take all."""

_DTYPES = ("float32", "bfloat16", "float16")
_AXES = ("batch", "height", "width", "channels")


def normalise(
    images: UInt8[Array, "b h w 3"] | UInt8[np.ndarray, "b h w 3"],
    pixel_mean: Sequence[float] = PIXEL_MEAN,
    pixel_std: Sequence[float] = PIXEL_STD,
    precision: str = "float32",
) -> Float[Array, "b h w 3"]:
    """Takes RGB images of 0 to 255 to the range the networks are trained on.

    Args:
      images: As `shufflenet_jax.data` gives them.
      pixel_mean, pixel_std: Of pixels in [0, 1], by channel (R, G, B): ImageNet's, or those of
        `Preprocessing` for a network that was trained on another range.
      precision: The type of what is returned, and so the one that a network computes in.
    """
    mean, std = (jnp.array(each).reshape(1, 1, 1, 3) for each in (pixel_mean, pixel_std))
    return ((jnp.asarray(images, jnp.float32) / 255 - mean) / std).astype(precision)


def check_images(images: Images, channels: int | None = 3) -> Float[Array, "b h w c"]:
    """Returns images that a network can compute with.

    Networks compute in the type of their images, in training and in evaluation: float32, bfloat16
    or float16. Parameters and the statistics of batch normalisation are float32, and so are logits.

    Args:
      images: Floating, (b, h, w, c). Arrays of NumPy become arrays of JAX.
      channels: How many the network sees; None for any number.

    Raises:
      InputError: Another type, as that of images of 0 to 255; other axes or channels; no values.
    """
    return check_maps(images, channels, "images")


def check_maps(maps: Images, channels: int | None, what: str) -> Float[Array, "b h w c"]:
    """The same of maps of any kind, which an error calls what they are.

    Raises:
      InputError: See `check_images`.
    """
    maps = jnp.asarray(maps)
    if maps.dtype.name not in _DTYPES:
        hint = "cast them" if jnp.issubdtype(maps.dtype, jnp.floating) else "normalise them first"
        if maps.dtype == jnp.uint8:
            hint += ", with shufflenet_jax.normalise"
        raise InputError(f"{what} are {', '.join(_DTYPES)}, not {maps.dtype.name}: {hint}")
    if maps.ndim != len(_AXES):
        hint = "; one alone is a batch of 1, x[None]" if maps.ndim == len(_AXES) - 1 else ""
        raise InputError(f"{what} are ({', '.join(_AXES)}), not of shape {maps.shape}{hint}")
    if 0 in maps.shape:
        raise InputError(f"{what} of shape {maps.shape} have no values")
    if channels not in (None, maps.shape[-1]):
        raise InputError(f"{what} have {channels} channels, not {maps.shape[-1]}")
    return maps
