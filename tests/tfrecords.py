"""Copies of small data sets as TFRecords, in the forms that ImageNet comes in.

``python tests/tfrecords.py NAME SOURCE DATA_DIR`` converts one, a file in every fifth of a second.
"""

import struct
import sys
import time
from pathlib import Path

from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2
from test_data import encoded, noise

from shufflenet_jax.data import convert, prepare
from shufflenet_jax.data.tfrecord import masked_crc


def example(**features) -> bytes:
    """An example as TensorFlow writes it."""
    made = tf_example_pb2.Example()
    for name, value in features.items():
        feature = made.features.feature[name]
        if isinstance(value, int):
            feature.int64_list.value.append(value)
        else:
            feature.bytes_list.value.append(value)
    return made.SerializeToString(deterministic=True)


def write(path: Path, records) -> None:
    with path.open("wb") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length + struct.pack("<I", masked_crc(length)))
            file.write(record + struct.pack("<I", masked_crc(record)))


def picture(index: int) -> bytes:
    return encoded(Image.fromarray(noise(9, 12, index)), "JPEG")


COUNTS = {"train": (3, 2, 4, 1), "validation": (2, 3)}
"""Images in each file of each split."""


def images(split):
    """Of each file of a split, number, label and name of its images; labels are any of 1,000."""
    first = 0 if split == "train" else 100
    for count in COUNTS[split]:
        yield [
            (n, n * 97 % 1000, f"{split}_{n}.JPEG".encode()) for n in range(first, first + count)
        ]
        first += count


def tfds_copy(root: Path) -> Path:
    """As TFDS writes it."""
    root.mkdir(parents=True)
    for split, counts in COUNTS.items():
        for index, file in enumerate(images(split)):
            name = f"imagenet2012-{split}.tfrecord-{index:05}-of-{len(counts):05}"
            write(
                root / name,
                [example(image=picture(n), label=label, file_name=key) for n, label, key in file],
            )
    return root


def inception_copy(root: Path) -> Path:
    """As the scripts of Inception write it, where classes count from 1."""
    root.mkdir(parents=True)
    for split, counts in COUNTS.items():
        for index, file in enumerate(images(split)):
            records = []
            for n, label, key in file:
                features = {
                    "image/encoded": picture(n),
                    "image/class/label": label + 1,
                    "image/filename": key,
                    "image/format": b"JPEG",
                    "image/height": 9,
                }
                records.append(example(**features))
            write(root / f"{split}-{index:05}-of-{len(counts):05}", records)
    return root


if __name__ == "__main__":
    name, source, data_dir = sys.argv[1:]
    converted = convert._converted

    def slowly(*arguments):
        time.sleep(0.2)
        found = converted(*arguments)
        print(arguments[1].name, flush=True)
        return found

    convert._converted = slowly
    convert.IMAGENET_IMAGES = {split: sum(counts) for split, counts in COUNTS.items()}
    prepare(name, Path(data_dir), from_tfrecord=Path(source))
