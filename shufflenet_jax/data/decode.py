"""From an encoded image to RGB, by pinned decoders of PIL, so that pixels do not differ by machine.

JPEG, PNG, WebP, BMP and TIFF are read, whatever the name of the file says. Of several frames or
pages the first is read. Transparency is ignored, and so is EXIF orientation; a TIFF's is not.
"""

import contextlib
import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from shufflenet_jax.errors import InputError

KINDS = "JPEG, PNG, WebP, BMP or TIFF"

# PIL guards servers against tiny files that decode to gigabytes: it warns from 89 million pixels
# on, and refuses 179 million. Here a file is the user's own, and this keeps one to 0.8 GB as RGB.
MOST_PIXELS = 2**28

# What PIL's decoders raise on damaged bytes; a broken PNG is a SyntaxError.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    struct.error,
    OverflowError,
)

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
      InputError: It is intact, but has too many pixels, or pixels that are no colours.
    """
    try:
        yield
    except (InputError, UserWarning):
        raise
    except _Unusable as error:
        raise InputError(f"cannot use image {key}: {error}") from error
    except Image.DecompressionBombError as error:
        # Raised for a WebP, which PIL decodes as it opens it.
        raise InputError(f"cannot use image {key}: it is too large: scale it down") from error
    except _DAMAGE as error:
        raise BrokenImage(f"cannot read image {key}: not an intact {KINDS}") from error


class _Unusable(Exception):
    """Why an intact image cannot be used, and what to do."""


def decode(encoded: bytes, key: str) -> Image.Image:
    """Decodes an image of any kind to RGB, at its full size.

    Raises:
      BrokenImage: The image is damaged; the message names ``key``.
      InputError: It is intact, but has too many pixels, or pixels that are no colours.
    """
    with naming(key):
        return rgb(opened(encoded))


def opened(encoded: bytes) -> ImageFile.ImageFile:
    """Reads the header of an image."""
    # Image.open would warn of sizes, and look into what cameras wrote, which it warns of too.
    if encoded.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile(io.BytesIO(_bare_jpeg(encoded)))
    if encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile(io.BytesIO(_bare_png(encoded)))
    if encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile(io.BytesIO(encoded))
    if encoded.startswith(b"BM"):
        return BmpImagePlugin.BmpImageFile(io.BytesIO(encoded))
    if encoded.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return TiffImagePlugin.TiffImageFile(io.BytesIO(encoded))
    raise Image.UnidentifiedImageError(f"not a {KINDS}")


def rgb(image: Image.Image) -> Image.Image:
    """Decodes an image that has been opened to 8 bits of RGB.

    Of 16-bit intensities the upper byte is kept, as PIL does of 16-bit colours. Where no
    intensity of an image reaches 256, it holds 8-bit values, as masks often do: they are kept.
    """
    if image.width * image.height > MOST_PIXELS:
        raise _Unusable(
            f"{image.width} x {image.height} pixels are more than {MOST_PIXELS}: scale it down"
        )
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        least, greatest = values.min(), values.max()
        if least < 0 or greatest >= 1 << 16:
            raise _Unusable("its intensities do not fit into 16 bits: convert it to 8 bits")
        image = Image.fromarray((values if greatest < 256 else values >> 8).astype(np.uint8))
    elif image.mode in ("F", "LAB"):
        raise _Unusable(f"its pixels are of PIL's mode {image.mode}: convert it to 8 bits of RGB")
    elif "transparency" in image.info:
        # PIL warns where a palette with transparency becomes RGB in one step.
        image = image.convert("RGBA")
    return image.convert("RGB")


def _bare_jpeg(encoded: bytes) -> bytes:
    """A JPEG without EXIF, profiles and comments; what is damaged stays as it is."""
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
