"""Data sets that TFDS has prepared: what its files say of them, and their examples."""

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from shufflenet_jax.data.dataset import Dataset, Example, Found, Identity, shown
from shufflenet_jax.errors import InputError

FILE_FORMAT = "array_record"  # the format with random access

# TFDS does not prepare what is there; and to delete it is not for us.
_ANEW = "move the directory away and prepare it anew"

# How TFDS names files where dataset_info.json does not say.
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"

_VERSION = r"\d+\.\d+\.\d+"

# tensorflow_datasets is imported where it is used: it takes 0.3 s, and most mistakes are found
# without.


class NotPrepared(InputError):
    """A data set is not there; ``prepare`` may bring it."""


@dataclass(frozen=True)
class PreparedSplit:
    """The examples of one split of a data set that TFDS has prepared as array_record.

    Pickles as the two names below: what it takes to read is opened on first use.
    """

    directory: Path
    split: str

    @functools.cached_property
    def _records(self) -> Any:
        import tensorflow_datasets as tfds

        # The stored features suffice: neither the builder's own code nor TensorFlow is needed.
        builder = tfds.builder_from_directory(self.directory)
        return builder.as_data_source(
            self.split,
            decoders={"image": tfds.decode.SkipDecoding()},
            file_format=FILE_FORMAT,
        )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        """Reads an example.

        Raises:
          InputError: Its record is damaged.
        """
        key = f"{self.split}[{index}]"
        try:
            record = self._records[index]
        except RuntimeError as error:
            raise InputError(f"{key} in {self.directory} is damaged: {_ANEW}") from error
        if (name := record.get("file_name")) is not None:
            key = shown(name.decode(errors="surrogateescape"))
        return Example(image=record["image"], label=int(record["label"]), key=key)

    def __reduce__(self) -> tuple[Any, ...]:
        return PreparedSplit, (self.directory, self.split)


@dataclass(frozen=True)
class FoundPrepared(Found):
    """A data set that TFDS has prepared."""

    directory: Path
    test: str

    def open(self) -> Dataset:
        train, test = (PreparedSplit(self.directory, split) for split in ("train", self.test))
        return Dataset(self.name, train, test, self.class_names)


def find_prepared(name: str, data_dir: Path) -> FoundPrepared:
    """Finds a data set by its TFDS name; without a version, the newest that is prepared.

    Raises:
      NotPrepared: It is not there.
      InputError: It is damaged, or no image classification.
    """
    if not (match := re.fullmatch(rf"(\w+)(?:/([\w.+-]+))?(?::({_VERSION}))?", name)):
        raise InputError(f"no data set is called {name!r}: use digits, folder:PATH or a TFDS name")
    base, config, version = match.groups()
    parent = data_dir / base
    if config is None:
        config = _default_config(parent, name)
    if config is not None:
        parent /= config
    versions = {
        tuple(map(int, path.name.split("."))): path
        for path in (parent.iterdir() if parent.is_dir() else ())
        if re.fullmatch(_VERSION, path.name) and version in (None, path.name)
    }
    if not versions:
        raise NotPrepared(
            f"{name} is not prepared in {data_dir}: run python -m experiments prepare {name}"
        )
    return read_prepared(name, versions[max(versions)])


def _default_config(parent: Path, name: str) -> str | None:
    """The configuration that is prepared where none is named; None of a data set without any."""
    path = parent / ".config" / "metadata.json"
    if not path.exists():
        return None
    with _reading(path, f"name a configuration, as in {name.partition(':')[0]}/CONFIG"):
        return str(json.loads(path.read_text())["default_config_name"])


@contextlib.contextmanager
def _reading(path: Path, remedy: str) -> Iterator[None]:
    """Around all that reads a file of TFDS: what is wrong is said of the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: {remedy}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {remedy}") from error


def read_prepared(name: str, directory: Path) -> FoundPrepared:
    """Reads what TFDS has written of a data set, and opens every file of its examples.

    Raises:
      InputError: Something is missing or damaged, or it is no image classification.
    """
    command = f"python -m experiments prepare {name}"
    remedy = f"move {directory} away and run {command}"
    path = directory / "dataset_info.json"
    with _reading(path, remedy):
        info = json.loads(path.read_text())
        version = str(info["version"])
        formats = {info.get("fileFormat"), *info.get("alternativeFileFormats", ())}
        splits = {split["name"]: _Split.of(info["name"], split) for split in info["splits"]}
    if FILE_FORMAT not in formats:
        # TFDS can convert, but only with Apache Beam.
        raise InputError(f"{name} is prepared in a file format other than {FILE_FORMAT}: {remedy}")
    path = directory / "features.json"
    with _reading(path, remedy):
        features = json.loads(path.read_text()).get("featuresDict", {}).get("features", {})
        classification = "image" in features and "classLabel" in features.get("label", {})
        num_classes = int(features["label"]["classLabel"]["numClasses"]) if classification else 0
    if not classification:
        raise InputError(f"{name} is not a classification of images: no features image and label")
    if "train" not in splits or not splits.keys() & {"test", "validation"}:
        raise InputError(f"{name} has no split train, or neither test nor validation")
    class_names = _class_names(directory, num_classes, remedy)
    splits["train"].check(directory, remedy)
    test = _labelled(name, directory, splits, remedy)
    kept = (info["name"], info.get("configName"), version, features, class_names)
    return FoundPrepared(
        name=name,
        identity=Identity(
            name=name,
            version=version,
            fingerprint=_digest(kept, splits["train"], splits[test]),
            train=splits["train"].num_examples,
            test=splits[test].num_examples,
            classes=num_classes,
        ),
        class_names=class_names,
        notes=(),
        directory=directory,
        test=test,
    )


class _Split(NamedTuple):
    """A split as dataset_info.json has it."""

    name: str
    num_bytes: int
    files: tuple[str, ...]
    lengths: tuple[int, ...]  # examples in each file

    @classmethod
    def of(cls, dataset: str, proto: dict[str, Any]) -> "_Split":
        lengths = tuple(map(int, proto.get("shardLengths", ())))
        width = max(5, len(str(len(lengths))))
        numbers = [f"{index:0{width}}" for index in (*range(len(lengths)), len(lengths))]
        template = proto.get("filepathTemplate") or _TEMPLATE
        files = (
            template.format(
                DATASET=dataset,
                SPLIT=proto["name"],
                FILEFORMAT=FILE_FORMAT,
                SHARD_INDEX=number,
                NUM_SHARDS=numbers[-1],
                SHARD_X_OF_Y=f"{number}-of-{numbers[-1]}",
            )
            for number in numbers[:-1]
        )
        return cls(proto["name"], int(proto.get("numBytes", 0)), tuple(files), lengths)

    @property
    def num_examples(self) -> int:
        return sum(self.lengths)

    def check(self, directory: Path, remedy: str) -> None:
        """Opens every file, which tells a truncated one from a whole one; 0.1 ms each."""
        from array_record.python.array_record_module import ArrayRecordReader

        if not self.num_examples:
            raise InputError(f"the split {self.name} in {directory} has no examples: {remedy}")
        for file, length in zip(self.files, self.lengths, strict=True):
            path = directory / file
            if not path.exists():
                raise InputError(f"{path} is missing: {remedy}")
            try:
                # It would read ahead in threads.
                reader = ArrayRecordReader(str(path), options="readahead_buffer_size:0")
                found = reader.num_records()
                reader.close()
            except RuntimeError as error:
                raise InputError(f"{path} is damaged: {remedy}") from error
            if found != length:
                raise InputError(f"{path} has {found} examples, not {length}: {remedy}")


def _class_names(directory: Path, num_classes: int, remedy: str) -> tuple[str, ...]:
    path = directory / "label.labels.txt"
    if not path.exists():  # TFDS then counts
        return tuple(map(str, range(num_classes)))
    with _reading(path, remedy):
        names = tuple(line.strip() for line in path.read_text().split("\n") if line.strip())
        if len(names) != num_classes:
            raise ValueError(f"{len(names)} names of {num_classes} classes")
    return names


def _labelled(name: str, directory: Path, splits: dict[str, _Split], remedy: str) -> str:
    """The split to test on: ImageNet's test split has no labels, only -1."""
    for split in ("test", "validation"):
        if split in splits and splits[split].num_examples:
            splits[split].check(directory, remedy)
            try:
                first = PreparedSplit(directory, split)[0]
            except InputError:
                raise
            # TFDS raises anything for descriptions that it does not understand.
            except Exception as error:
                raise InputError(f"TFDS cannot read {directory}: {remedy}") from error
            if first["label"] >= 0:
                return split
    raise InputError(f"{name} has no labels in its test split, and no validation split")


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
