"""A part of an encoded image as a square of pixels: decoded, no finer than needed, and resized.

A JPEG is decoded by simplejpeg, which has libjpeg-turbo's code of its own, in the exact form that
gives every machine the same pixels; they are PIL's, bit by bit, in a third of the time. It is
resized by cykooz-resizer, in a quarter of the time, whose integers are the same with every kind of
vector instructions, and seldom more than one level from PIL's, of 255. Images of other kinds, and
what simplejpeg finds fault with, are decoded and resized by PIL. Which of the two decides is the
file alone.
"""

import math
from collections.abc import Callable

import numpy as np
import simplejpeg
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, Resizer
from cykooz_resizer import ResizeOptions as Options
from jaxtyping import UInt8
from PIL import Image

from shufflenet_jax.data.decode import is_jpeg, limit, opened, rgb

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""

_Pixels = UInt8[np.ndarray, "h w 3"]

# How much finer than asked for an image is before it is resized properly; what is finer still
# is first thinned out by whole factors, which is cheap.
_REDUCING_GAP = 2

# What libjpeg decodes to RGB by itself.
_COLORS = ("YCbCr", "Gray", "RGB")

# Bicubic as in fb.resnet.torch's transforms.lua, whose recipe ResNeXt's is: Catmull and Rom's.
_BICUBIC = ResizeAlg.convolution(FilterType.catmull_rom)


def cut_out(
    encoded: bytes, choose: Callable[[tuple[int, int]], Box], size: int
) -> UInt8[np.ndarray, "s s 3"]:
    """Decodes the part of an image that is chosen, given width and height, and resizes it.

    Args:
      encoded: See `shufflenet_jax.data.decode`, also for what is raised; to be called within its
        `naming`.
      choose: Called once.
      size: Height and width of the result, in pixels.
    """
    extent = _jpeg_size(encoded)
    if extent is None:
        image = opened(encoded)
        return _by_pil(image, choose(image.size), size)
    box = choose(extent)
    factor = _factor(extent, box, size)
    pixels = _decoded(encoded, extent, factor)
    if pixels is None:
        return _by_pil(opened(encoded), box, size)
    left, top, right, bottom = (each / factor for each in box)
    return _resized(pixels, (left, top, right, bottom), size)


def _jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG that simplejpeg can decode to RGB; None of all else."""
    if not is_jpeg(encoded):
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(encoded)
    except ValueError:
        return None
    return (width, height) if colors in _COLORS else None


def _factor(extent: tuple[int, int], box: Box, size: int) -> int:
    """By how much smaller a JPEG is decoded, which is faster: 1, 2, 4 or 8."""
    least = (
        math.ceil(extent[0] * _REDUCING_GAP * size / (box[2] - box[0])),
        math.ceil(extent[1] * _REDUCING_GAP * size / (box[3] - box[1])),
    )
    most = min(extent[0] // least[0], extent[1] // least[1])
    return next((factor for factor in (8, 4, 2) if factor <= most), 1)


def _decoded(encoded: bytes, extent: tuple[int, int], factor: int) -> _Pixels | None:
    """The pixels of a JPEG; None where it is not intact, which PIL may take otherwise."""
    width, height = (math.ceil(each / factor) for each in extent)
    limit(width * height)
    try:
        return simplejpeg.decode_jpeg(
            encoded, min_height=height, min_width=width, min_factor=factor
        )
    except ValueError:
        return None


def _resized(pixels: _Pixels, box: Box, size: int) -> UInt8[np.ndarray, "s s 3"]:
    height, width, _ = pixels.shape
    left, top, right, bottom = box[0], box[1], min(box[2], width), min(box[3], height)
    if (left, top, right, bottom) == (0, 0, size, size) == (0, 0, width, height):
        return pixels
    source = ImageData(width, height, PixelType.U8x3, pixels.tobytes())
    target = ImageData(size, size, PixelType.U8x3)
    crop = CropBox(left, top, right - left, bottom - top)
    Resizer().resize(source, target, Options(resize_alg=_BICUBIC, crop_box=crop))
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(size, size, 3)


def _by_pil(image: Image.Image, box: Box, size: int) -> UInt8[np.ndarray, "s s 3"]:
    """Resizes a part of an image that has been opened."""
    image = rgb(image)
    part = box[0], box[1], min(box[2], image.width), min(box[3], image.height)
    return np.asarray(
        image.resize((size, size), Image.Resampling.BICUBIC, box=part, reducing_gap=_REDUCING_GAP)
    )
