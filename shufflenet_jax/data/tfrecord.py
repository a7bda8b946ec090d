"""Files of TFRecords, read without TensorFlow.

A record is its length (8 bytes, the least first), a checksum of these, its contents, and a checksum
of those; each is a CRC-32C, rotated by 15 bits and with a constant added
(https://www.tensorflow.org/tutorials/load_data/tfrecord).
"""

import itertools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from shufflenet_jax.errors import InputError

_HEAD, _TAIL = struct.Struct("<QI"), struct.Struct("<I")

_MASK = 0xA282EAD8


def records(path: Path) -> Iterator[bytes]:
    """Reads the records of a file one by one, and holds each against its checksums.

    Raises:
      InputError: The file is cut off or damaged, or cannot be read; it is named, and the record.
    """
    try:
        with path.open("rb") as file:
            for number in itertools.count():
                if (content := _next(file, f"{path}, record {number}")) is None:
                    return
                yield content
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _next(file: BinaryIO, place: str) -> bytes | None:
    """The next record; None at the end."""
    head = file.read(_HEAD.size)
    if not head:
        return None
    length = 0
    if len(head) == _HEAD.size:
        length, checksum = _HEAD.unpack(head)
        # Before so much is read, which may be anything.
        if checksum != masked_crc(head[:8]):
            raise InputError(f"{place} is damaged: copy the file anew")
    content, tail = file.read(length), file.read(_TAIL.size)
    if len(head) != _HEAD.size or len(content) != length or len(tail) != _TAIL.size:
        raise InputError(f"{place} is cut off: copy the file anew")
    if _TAIL.unpack(tail) != (masked_crc(content),):
        raise InputError(f"{place} is damaged: copy the file anew")
    return content


def masked_crc(content: bytes) -> int:
    """The checksum of some bytes."""
    import google_crc32c

    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF
