"""Colour jitter and lighting of training images, on the devices.

To PIL they cost more than decoding and cropping together. Here a small program of its own does them
to a whole batch, in the same bits, whatever the devices and however many.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from shufflenet_jax.data import Colors
from shufflenet_jax.data.colors import BRIGHTNESS, CONTRAST

_Planes = list[Float[Array, "b n"]]


def recolored(images: UInt8[Array, "b h w 3"], colors: Colors) -> UInt8[Array, "b h w 3"]:
    """Changes brightness, contrast and saturation, in the order of each image, and adds light.

    As PIL's ImageEnhance: an image is blended with black, with its mean gray, or with its own
    grays, and each time cut to whole levels from 0 to 255.
    """
    count, height, width, _ = images.shape
    pixels = images.reshape(count, height * width, 3)
    planes = [pixels[..., channel].astype(jnp.float32) for channel in range(3)]
    # Only the contrast asks for a mean: of the image as it is then, after none to two changes.
    is_before = jnp.cumulative_sum((colors.order == CONTRAST).astype(jnp.int32), axis=-1) == 0
    before = colors._replace(factor=jnp.where(is_before, colors.factor, jnp.float32(1)))
    mean = _rounded_mean(_gray(_changed(planes, before, jnp.zeros((count, 1)), 2)), height)
    planes = _changed(planes, colors, mean, 3)
    light = colors.light.astype(jnp.float32)
    planes = [
        jnp.clip(plane + light[:, channel, None], 0, 255) for channel, plane in enumerate(planes)
    ]
    # One number a pixel, as XLA would otherwise compute all three channels for each of them.
    packed = (planes[0] + 2**8 * planes[1] + 2**16 * planes[2]).astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(packed, jnp.uint8)[..., :3].reshape(images.shape)


def _changed(planes: _Planes, colors: Colors, mean: Float[Array, "b 1"], stages: int) -> _Planes:
    """The planes after the first changes, of which there are so many."""
    for stage in range(stages):
        what, factor = colors.order[:, stage, None], colors.factor[:, stage, None]
        even = jnp.where(what == BRIGHTNESS, jnp.float32(0), mean)
        base = jnp.where((what == BRIGHTNESS) | (what == CONTRAST), even, _gray(planes))
        planes = [jnp.floor(jnp.clip(base + factor * (plane - base), 0, 255)) for plane in planes]
    return planes


def _gray(planes: _Planes) -> Float[Array, "b n"]:
    """ITU-R 601-2 luma in whole levels, by PIL's weights, of which all sums fit into float32."""
    red, green, blue = planes
    return jnp.floor((19595 * red + 38470 * green + 7471 * blue + 2**15) / 2**16)


def _rounded_mean(gray: Float[Array, "b n"], rows: int) -> Float[Array, "b 1"]:
    """The mean of an image, to the nearest whole level; of halves, the upper one."""
    count, size = gray.shape
    width = size // rows
    # In two parts, as the sum of a large image does not fit into an integer: width * whole + rest.
    sums = gray.astype(jnp.int32).reshape(count, rows, width).sum(axis=2)
    rest = (sums % width).sum(axis=1, keepdims=True)
    whole = (sums // width).sum(axis=1, keepdims=True) + rest // width
    left = width * (whole % rows) + rest % width
    return (whole // rows + (2 * left >= size).astype(jnp.int32)).astype(jnp.float32)
