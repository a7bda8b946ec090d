"""From an encoded image to RGB, by pinned decoders of PIL, so that pixels do not differ by machine.

Most JPEGs are decoded faster, to the same pixels (`shufflenet_jax.data.part`).

JPEG, PNG, WebP and BMP are read, whatever the name of the file says. Of several frames the first
is read. Transparency and EXIF orientation are ignored. TIFF is not read: its pixels may be of any
kind, of which 8 bits of RGB are not defined. Nor is GIF.
"""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from shufflenet_jax.errors import InputError

KINDS = "JPEG, PNG, WebP or BMP"

# PIL guards servers against tiny files that decode to gigabytes: it warns from 89 million pixels
# on, and refuses 179 million. Here a file is the user's own, and this keeps one to 0.8 GB as RGB.
MOST_PIXELS = 2**28

# What PIL's decoders raise on damaged bytes; a broken PNG is a SyntaxError.
_DAMAGE = (OSError, SyntaxError, ValueError)

# Segments of a JPEG that say nothing about its pixels: APP1 to APP15 but for Adobe's APP14, which
# tells the colours; and comments.
_JPEG_REMARKS = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})

# Chunks of a PNG that say nothing about its pixels, or that hold the later frames of an animation.
_PNG_REMARKS = frozenset(
    {b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"acTL", b"fcTL", b"fdAT"},
)


class BrokenImage(InputError):
    """An image that is damaged, or of a kind that is not read; it may be skipped."""


@contextlib.contextmanager
def naming(key: str) -> Iterator[None]:
    """Around all that decodes an image: an error names it.

    Raises:
      BrokenImage: The image is damaged.
      InputError: It has too many pixels, and may well be intact.
    """
    try:
        yield
    except (_TooLarge, Image.DecompressionBombError) as error:
        # PIL guards WebP by itself: its header is not read apart from its pixels.
        raise InputError(
            f"image {key} has too many pixels to decode: scale it down, or remove it"
        ) from error
    except _DAMAGE as error:
        raise BrokenImage(f"cannot read image {key}: not an intact {KINDS}") from error


class _TooLarge(Exception):
    """An image of more than MOST_PIXELS."""


def decode(encoded: bytes, key: str) -> Image.Image:
    """Decodes an image of any kind to RGB, at its full size.

    Raises:
      BrokenImage: The image is damaged; the message names ``key``.
      InputError: It has too many pixels, and may well be intact.
    """
    with naming(key):
        return rgb(opened(encoded))


def is_jpeg(encoded: bytes) -> bool:
    """Whether the bytes begin as those of a JPEG."""
    return encoded.startswith(b"\xff\xd8\xff")


def limit(pixels: int) -> None:
    """Refuses to decode more pixels than MOST_PIXELS; to be called within `naming`."""
    if pixels > MOST_PIXELS:
        raise _TooLarge


def opened(encoded: bytes) -> ImageFile.ImageFile:
    """Reads the header of an image."""
    # Image.open would warn of sizes, and refuse some.
    if is_jpeg(encoded):
        return JpegImagePlugin.JpegImageFile(io.BytesIO(_bare_jpeg(encoded)))
    if encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile(io.BytesIO(_bare_png(encoded)))
    if encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile(io.BytesIO(encoded))
    if encoded.startswith(b"BM"):
        return BmpImagePlugin.BmpImageFile(io.BytesIO(encoded))
    raise UnidentifiedImageError(f"not a {KINDS}")


def rgb(image: Image.Image) -> Image.Image:
    """Decodes an image that has been opened to 8 bits of RGB.

    Of 16-bit intensities the upper byte is kept, as PIL does of 16-bit colours. Where no
    intensity of an image reaches 256, it holds 8-bit values, as masks often do: they are kept.
    """
    limit(image.width * image.height)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        image = Image.fromarray((values if values.max() < 256 else values >> 8).astype(np.uint8))
    elif "transparency" in image.info:
        # PIL warns where a palette with transparency becomes RGB in one step.
        image = image.convert("RGBA")
    return image.convert("RGB")


def _bare_jpeg(encoded: bytes) -> bytes:
    """A JPEG without EXIF, which PIL reads and may warn of; what is damaged stays as it is."""
    if b"Exif\0\0" not in encoded:
        return encoded
    kept, place = [encoded[:2]], 2
    while place + 4 <= len(encoded) and encoded[place] == 0xFF:
        marker = encoded[place + 1]
        # Not a segment with a length, or the start of the pixels.
        if marker in (0x00, 0x01, 0xDA, 0xFF) or 0xD0 <= marker <= 0xD9:
            break
        end = place + 2 + int.from_bytes(encoded[place + 2 : place + 4], "big")
        if marker not in _JPEG_REMARKS:
            kept.append(encoded[place:end])
        place = end
    kept.append(encoded[place:])
    return b"".join(kept)


def _bare_png(encoded: bytes) -> bytes:
    """A PNG without profiles, text and animation; what is damaged stays as it is."""
    kept, place = [encoded[:8]], 8
    while place + 12 <= len(encoded):
        # A length, a kind, the contents and a checksum.
        end = place + 12 + int.from_bytes(encoded[place : place + 4], "big")
        if end > len(encoded):
            break
        if encoded[place + 4 : place + 8] not in _PNG_REMARKS:
            kept.append(encoded[place:end])
        place = end
    kept.append(encoded[place:])
    return b"".join(kept)
