"""Data sets by name: the bundled digits, class folders, and whatever TFDS has prepared."""

import contextlib
import functools
import importlib.util
import io
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict, runtime_checkable

from shufflenet_jax.errors import InputError

_FILE_FORMAT = "array_record"  # the format with random access

# tensorflow_datasets and this package's builders are imported where they are used: it takes 0.3 s,
# and most names are checked without.


class Example(TypedDict):
    """One image as it is stored.

    Attributes:
      image: The encoded file, JPEG or PNG.
      label: Class number from 0.
      key: What to call the image in an error message.
    """

    image: bytes
    label: int
    key: str


@runtime_checkable
class Examples(Protocol):
    """Examples by number. Can be pickled: worker processes get a copy."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


@dataclass(frozen=True)
class Dataset:
    """A data set to train and to test on."""

    name: str
    train: Examples
    test: Examples
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


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
            file_format=_FILE_FORMAT,
        )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        record = self._records[index]
        name = record.get("file_name")
        key = f"{self.split}[{index}]" if name is None else name.decode()
        return Example(image=record["image"], label=int(record["label"]), key=key)

    def __reduce__(self) -> tuple[Any, ...]:
        return PreparedSplit, (self.directory, self.split)


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """Opens a data set; prepares it first where that needs no network.

    Args:
      name: "digits"; "folder:PATH" with PATH/train/CLASS/*.jpg and PATH/val (or PATH/test); or
        a TFDS name such as "cifar10", "imagenette/320px-v2" or "imagenet2012:5.1.0", once
        ``prepare`` has been called for it.
      data_dir: Where TFDS keeps prepared data: TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
      InputError: There is no such data set, it is not prepared, or it cannot be.
    """
    import tensorflow_datasets as tfds

    data_dir = _data_dir(data_dir)
    directory = _prepare_own(name, data_dir) if _is_own(name) else _find(name, data_dir)
    builder = tfds.builder_from_directory(directory)
    # ImageNet's test split has no labels, only -1.
    for split in ("test", "validation"):
        if split in builder.info.splits:
            test = PreparedSplit(directory, split)
            if test[0]["label"] >= 0:
                break
    else:
        raise InputError(f"{name} has no labels in its test split, and no validation split")
    train = PreparedSplit(directory, "train")
    return Dataset(name, train, test, tuple(builder.info.features["label"].names))


def check(name: str, data_dir: Path | None = None) -> None:
    """Raises in a moment the InputError that ``load`` would raise; prepares and opens nothing."""
    data_dir = _data_dir(data_dir)
    if not _is_own(name):
        _find(name, data_dir)
        return
    kind, _, path = name.partition(":")
    if kind == "folder":
        from shufflenet_jax.data.folder import class_folders

        class_folders(Path(path).expanduser())
    ancestor = next(path for path in (data_dir, *data_dir.parents) if os.path.exists(path))
    # What others have prepared may be read where it cannot be written.
    if not (data_dir / kind).exists() and not (ancestor.is_dir() and os.access(ancestor, os.W_OK)):
        raise InputError(f"{name} cannot be prepared: {data_dir} is not a folder one can write to")


def label(name: str) -> str:
    """The name of a data set as others may see it: of a folder, without the path to it."""
    kind, _, path = name.partition(":")
    return f"folder:{Path(path).name}" if kind == "folder" else name


def prepare(name: str, data_dir: Path | None = None) -> None:
    """Prepares a data set as array_record, so that ``load`` finds it. Does nothing where it is.

    A stock TFDS data set is downloaded by TFDS's own code, which needs TensorFlow.

    Raises:
      InputError: TensorFlow is missing, there is no such data set, it has to be downloaded by
        hand first, or it is there already but of no use.
    """
    data_dir = _data_dir(data_dir)
    if _is_own(name):
        _prepare_own(name, data_dir)
        return
    with contextlib.suppress(InputError):
        _find(name, data_dir)
        return
    if importlib.util.find_spec("tensorflow") is None:
        raise InputError(f"preparing {name} needs TensorFlow once: run pip install -e '.[prepare]'")
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise InputError(
            f"TFDS has no data set {name}: see https://www.tensorflow.org/datasets/catalog"
        ) from error
    if not builder.data_path.exists():
        try:
            builder.download_and_prepare(file_format=_FILE_FORMAT)
        # AssertionError is how TFDS asks for files that have to be downloaded by hand.
        except (AssertionError, OSError) as error:
            raise InputError(f"cannot prepare {name}: {' '.join(str(error).split())}") from error
    _find(name, data_dir)


def _data_dir(data_dir: Path | None) -> Path:
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return Path(data_dir or default).expanduser()


def _is_own(name: str) -> bool:
    return name == "digits" or name.startswith("folder:")


def _prepare_own(name: str, data_dir: Path) -> Path:
    """Prepares "digits" or "folder:PATH" where it is not yet; returns where it is."""
    import tensorflow_datasets as tfds

    if name == "digits":
        from shufflenet_jax.data.digits import Digits

        builder = Digits(data_dir=data_dir)
    else:
        from shufflenet_jax.data.folder import Folder

        builder = Folder(Path(name.removeprefix("folder:")).expanduser(), data_dir)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        # What TFDS reports on stdout, a download, is none here.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(file_format=_FILE_FORMAT)
    except OSError as error:
        # TFDS renames a finished directory into place, which fails for the second of two
        # processes; what the first one prepared is the same.
        if not builder.data_path.exists():
            raise InputError(f"{name} cannot be prepared in {data_dir}: {error}") from error
    return Path(builder.data_path)


def _find(name: str, data_dir: Path) -> Path:
    """The directory of a data set that TFDS has prepared; without a version, the newest."""
    if not (match := re.fullmatch(r"(\w+)(/[\w.+-]+)?(?::(\d+\.\d+\.\d+))?", name)):
        raise InputError(f"no data set is called {name!r}: use digits, folder:PATH or a TFDS name")
    base, config, version = match.groups()
    if config is None:
        with contextlib.suppress(FileNotFoundError):
            metadata = json.loads((data_dir / base / ".config" / "metadata.json").read_text())
            config = "/" + metadata["default_config_name"]
    prepared = {
        tuple(map(int, path.parent.name.split("."))): path.parent
        for path in data_dir.glob(f"{base}{config or ''}/{version or '*.*.*'}/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)
    }
    command = f"python -m experiments prepare {name}"
    if not prepared:
        raise InputError(f"{name} is not prepared in {data_dir}: run {command}")
    directory = prepared[max(prepared)]
    info = json.loads((directory / "dataset_info.json").read_text())
    if _FILE_FORMAT not in (info.get("fileFormat"), *info.get("alternativeFileFormats", ())):
        # TFDS can convert, but only with Apache Beam; and to delete it is not for us.
        raise InputError(
            f"{name} is prepared in a file format other than {_FILE_FORMAT}: "
            f"move {directory} away and run {command}"
        )
    features = json.loads((directory / "features.json").read_text())
    features = features.get("featuresDict", {}).get("features", {})
    if "image" not in features or "classLabel" not in features.get("label", {}):
        raise InputError(f"{name} is not a classification of images: no features image and label")
    splits = {split["name"] for split in info["splits"]}
    if "train" not in splits or not splits & {"test", "validation"}:
        raise InputError(f"{name} has no split train, or neither test nor validation")
    return directory
