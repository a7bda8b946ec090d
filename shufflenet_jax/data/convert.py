"""From TFRecords to array_record, without TensorFlow and Apache Beam: one file after the other.

Two kinds of copies are known, those of TFDS (imagenet2012-train.tfrecord-00000-of-01024) and those
of ImageNet that began with Inception (train-00000-of-01024). Records of the first are kept as they
are; of those of the second, image, class and file name are taken. Which were converted is noted
down after each file, so that a conversion that was killed goes on where it was.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shufflenet_jax.data.prepared import FILE_FORMAT
from shufflenet_jax.data.tfrecord import records
from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically

IMAGENET = "imagenet2012"

IMAGENET_IMAGES = {"train": 1_281_167, "validation": 50_000}
"""Images of ImageNet, by which a copy that says nothing of its own is found complete."""

_VERSION = "5.1.0"  # of TFDS's imagenet2012 today

_OF_TFDS = re.compile(r"(\w+)-(\w+)\.tfrecord-(\d{5,})-of-(\d{5,})")
_OF_INCEPTION = re.compile(r"(train|validation)-(\d{5})-of-(\d{5})")

_NOTES = "converted.json"


@dataclass(frozen=True)
class _Copy:
    """A copy of a data set as TFRecords.

    Attributes:
      directory: Where it lies.
      splits: Files of each split, in order.
      is_of_tfds: Which kind it is.
      info: What TFDS has noted of it, if it is there.
    """

    directory: Path
    splits: Mapping[str, Sequence[Path]]
    is_of_tfds: bool
    info: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for files in self.splits.values() for path in files)

    def lengths(self, split: str) -> Sequence[int] | None:
        """Records of each file of a split, if that is known."""
        for each in self.info.get("splits", ()):
            if each["name"] == split and each.get("shardLengths"):
                return [int(length) for length in each["shardLengths"]]
        return None


def convert(name: str, source: Path, data_dir: Path, say: Callable[[str], None]) -> None:
    """Converts a copy to where ``find`` finds it; files that are converted are not read again.

    Args:
      name: Of the data set, without a configuration.
      source: The folder of the files.
      data_dir: Where prepared data sets lie.
      say: Told what is done, a line now and then.

    Raises:
      InputError: There is no whole copy, a file is damaged, or there is too little space.
    """
    copy = _found(name, source)
    version = str(copy.info.get("version", _VERSION))
    target = data_dir / name / version
    partial = target.with_name(f"{version}.incomplete")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        for unfinished in partial.glob(".*"):
            unfinished.unlink()
        notes = _Notes(partial / _NOTES)
        _check_space(copy, partial)
        count = sum(map(len, copy.splits.values()))
        say(
            f"{count} files of {copy.size / 1e9:.1f} GB in {source} are converted to {target}, "
            "which takes as much; given again, the command goes on"
        )
        _write_features(name, copy, partial)
        entries = [
            _converted_split(name, copy, split, partial, notes, say) for split in copy.splits
        ]
        _check_counts(name, copy, entries)
        info = {**copy.info, "name": name, "version": version, "fileFormat": FILE_FORMAT}
        info.pop("alternativeFileFormats", None)
        write_atomically(
            partial / "dataset_info.json", json.dumps({**info, "splits": entries}, indent=1)
        )
        (partial / _NOTES).unlink()
        partial.rename(target)
    except OSError as error:
        raise InputError(f"{name} cannot be converted to {target}: {error}") from error


def _found(name: str, source: Path) -> _Copy:
    """Finds the files, all of them.

    Raises:
      InputError: There are none, or one is missing.
    """
    if not source.is_dir():
        raise InputError(f"there is no folder {source}")
    tfds: dict[str, dict[int, Path]] = {}
    inception: dict[str, dict[int, Path]] = {}
    totals: dict[str, int] = {}
    for path in sorted(source.iterdir()):
        if (match := _OF_TFDS.fullmatch(path.name)) and match[1] == name:
            found, split, index, total = tfds, match[2], int(match[3]), int(match[4])
        elif match := _OF_INCEPTION.fullmatch(path.name):
            found, split, index, total = inception, match[1], int(match[2]), int(match[3])
        else:
            continue
        found.setdefault(split, {})[index] = path
        if totals.setdefault(split, total) != total:
            raise InputError(f"{path} is of another number of files than {totals[split]}")
    chosen = tfds or inception
    if "train" not in chosen or not chosen.keys() & {"validation", "test"}:
        raise InputError(
            f"{source} has no TFRecords of {name}: expected {name}-train.tfrecord-00000-of-..., "
            "or for ImageNet train-00000-of-01024, and those of validation"
        )
    if not tfds and name != IMAGENET:
        raise InputError(f"{source} has files in a form that only {IMAGENET} comes in, not {name}")
    for split, files in chosen.items():
        for index in range(totals[split]):
            if index not in files:
                example = min(files.values()).name
                raise InputError(
                    f"file {index} of {totals[split]} of {split} is missing in {source}, beside "
                    f"{example}"
                )
    splits = {split: [files[index] for index in sorted(files)] for split, files in chosen.items()}
    return _Copy(source, splits, bool(tfds), _info(source) if tfds else {})


def _info(source: Path) -> Mapping[str, Any]:
    """What TFDS has noted of a copy; nothing where only its files were copied."""
    path = source / "dataset_info.json"
    if not path.exists():
        return {}
    try:
        info = json.loads(path.read_text())
        for split in info["splits"]:
            split["name"], [int(each) for each in split.get("shardLengths", ())]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path} is damaged: copy it anew, or remove it") from error
    return info


def _check_space(copy: _Copy, partial: Path) -> None:
    there = sum(path.stat().st_size for path in partial.iterdir())
    free, missing = shutil.disk_usage(partial).free, copy.size - there
    if missing > free:
        raise InputError(
            f"{partial} needs {missing / 1e9:.1f} GB, and its disk has {free / 1e9:.1f} GB left: "
            "name another with --data-dir DIR"
        )


class _Notes:
    """What was converted, and of what; a file tells it to a later attempt."""

    def __init__(self, path: Path):
        self._path = path
        self._noted: dict[str, dict[str, int]] = {}
        if path.exists():
            try:
                self._noted = json.loads(path.read_text())
            except ValueError:
                path.unlink()

    def of(self, target: Path, source: Path) -> dict[str, int] | None:
        """What is noted of a file, if it is there and its source is as it was."""
        noted = self._noted.get(target.name)
        if noted is None or not target.exists():
            return None
        return noted if noted.items() >= _state(source).items() else None

    def add(self, target: Path, source: Path, length: int, num_bytes: int) -> dict[str, int]:
        self._noted[target.name] = {**_state(source), "length": length, "bytes": num_bytes}
        write_atomically(self._path, json.dumps(self._noted, indent=1))
        return self._noted[target.name]


def _state(source: Path) -> dict[str, int]:
    status = source.stat()
    return {"size": status.st_size, "modified": status.st_mtime_ns}


def _converted_split(
    name: str, copy: _Copy, split: str, partial: Path, notes: _Notes, say: Callable[[str], None]
) -> dict[str, Any]:
    """Converts the files of a split; returns what dataset_info.json has of it."""
    files, lengths = copy.splits[split], copy.lengths(split)
    if lengths is not None and len(lengths) != len(files):
        raise InputError(f"{copy.directory} has {len(files)} files of {split}, not {len(lengths)}")
    width, found = max(5, len(str(len(files)))), []
    for index, source in enumerate(files):
        numbers = f"{index:0{width}}-of-{len(files):0{width}}"
        target = partial / f"{name}-{split}.{FILE_FORMAT}-{numbers}"
        noted = notes.of(target, source)
        if noted is None:
            noted = notes.add(target, source, *_converted(source, target, copy.is_of_tfds))
        if lengths is not None and noted["length"] != lengths[index]:
            raise InputError(f"{source} has {noted['length']} examples, not {lengths[index]}")
        found.append(noted)
        if (index + 1) % max(1, len(files) // 16) == 0:
            say(f"{split}: {index + 1} of {len(files)} files")
    return {
        "name": split,
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "shardLengths": [str(each["length"]) for each in found],
        "numBytes": str(sum(each["bytes"] for each in found)),
    }


def _converted(source: Path, target: Path, is_of_tfds: bool) -> tuple[int, int]:
    """Converts a file; returns how many examples of how many bytes it has."""
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    length = num_bytes = 0
    try:
        # One example a group, for random access; images are compressed as they are.
        writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
        for record in _examples(source, is_of_tfds):
            writer.write(record)
            length, num_bytes = length + 1, num_bytes + len(record)
        writer.close()
        reader = ArrayRecordReader(str(temporary), options="readahead_buffer_size:0")
        written = reader.num_records()
        reader.close()
        if written != length:
            raise InputError(f"of {length} examples of {source}, {written} were written")
        temporary.rename(target)
    except RuntimeError as error:  # of array_record, as where the disk is full
        raise InputError(f"{target.name} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return length, num_bytes


def _examples(source: Path, is_of_tfds: bool) -> Iterator[bytes]:
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    for number, record in enumerate(records(source)):
        try:
            feature = tf_example_pb2.Example.FromString(record).features.feature
            if is_of_tfds:
                yield _whole(feature, record)
            else:
                yield _as_of_tfds(feature)
        except (DecodeError, LookupError) as error:
            raise InputError(f"record {number} of {source} is no image with a class") from error


def _whole(feature: Any, record: bytes) -> bytes:
    """The same record, if it has what it takes."""
    feature["image"].bytes_list.value[0], feature["label"].int64_list.value[0]
    return record


def _as_of_tfds(feature: Any) -> bytes:
    """Of a record of Inception's kind, where classes count from 1, one as TFDS writes it."""
    from tensorflow_datasets.proto import tf_example_pb2

    made = tf_example_pb2.Example()
    of = made.features.feature
    of["image"].bytes_list.value.append(feature["image/encoded"].bytes_list.value[0])
    label = feature["image/class/label"].int64_list.value[0]
    if not 1 <= label <= 1000:
        raise LookupError(label)
    of["label"].int64_list.value.append(label - 1)
    of["file_name"].bytes_list.value.append(feature["image/filename"].bytes_list.value[0])
    return made.SerializeToString(deterministic=True)


def _write_features(name: str, copy: _Copy, partial: Path) -> None:
    """Writes what TFDS reads records by: a copy's own, or those of ImageNet."""
    described = copy.directory / "features.json"
    if copy.is_of_tfds and described.exists():
        for path in (described, *copy.directory.glob("*.labels.txt")):
            write_atomically(partial / path.name, path.read_bytes())
        return
    if name != IMAGENET:
        raise InputError(f"{described} is missing: copy it with the other files of {name}")
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(
                names_file=tfds.core.tfds_path(f"datasets/{IMAGENET}/labels.txt")
            ),
            "file_name": tfds.features.Text(),
        }
    )
    features.save_config(partial)


def _check_counts(name: str, copy: _Copy, entries: Sequence[Mapping[str, Any]]) -> None:
    """Holds a copy that says nothing of its own against what ImageNet has."""
    if copy.info or name != IMAGENET:
        return
    for entry in entries:
        found, split = sum(map(int, entry["shardLengths"])), entry["name"]
        if found != IMAGENET_IMAGES.get(split, found):
            raise InputError(
                f"{copy.directory} has {found} images of {split}, not ImageNet's "
                f"{IMAGENET_IMAGES[split]}"
            )
