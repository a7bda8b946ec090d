"""Data sets by name: the bundled digits, class folders, and whatever TFDS has prepared."""

import contextlib
import importlib.util
import io
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shufflenet_jax.data.convert import IMAGENET, convert
from shufflenet_jax.data.dataset import Dataset, Found, Identity, shown
from shufflenet_jax.data.folder import find_folder
from shufflenet_jax.data.prepared import FILE_FORMAT, NotPrepared, find_prepared, read_prepared
from shufflenet_jax.errors import InputError

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

# What scikit-learn ships never changes, so the digits are known before they are prepared. The
# fingerprint is of the intensities and then the labels, as bytes, by sha256.
_DIGITS = Identity(
    name="digits", version="1.0.0", fingerprint="87ff0c9e40dc7e2c", train=1348, test=449, classes=10
)


_TINY_IMAGENET = "tiny_imagenet"


def find(name: str, data_dir: Path | None = None, known: Path | None = None) -> Found:
    """Finds out all about a data set; prepares, copies and writes nothing.

    Args:
      name: "digits"; "folder:PATH" with PATH/train/CLASS/*.jpg and PATH/val (or PATH/test); or
        a TFDS name such as "cifar10", "imagenette/320px-v2" or "imagenet2012:5.1.0", once
        ``prepare`` has been called for it.
      data_dir: Where TFDS keeps prepared data: TFDS_DATA_DIR or ~/tensorflow_datasets.
      known: A file for which ``Found.remember`` was called earlier. Where it holds the listing of
        class folders, that is used; only folders that have changed are listed again, and an image
        is held against it when it is read. It may be missing.

    Raises:
      InputError: There is no such data set, it is not prepared or damaged, or the images are no
        longer those of the listing.
    """
    if name.startswith("folder:"):
        return find_folder(_root(name), label(resolve(name)), known)
    data_dir = _data_dir(data_dir)
    if name == "digits":
        return _find_digits(data_dir)
    if data_dir.exists() and not data_dir.is_dir():
        raise InputError(f"{data_dir} is not a folder of prepared data sets")
    return find_prepared(name, data_dir)


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """Finds a data set and opens it; prepares it first where that needs no network.

    Args:
      name: As of ``find``.
      data_dir: As of ``find``.

    Raises:
      InputError: There is no such data set, it is not prepared, or it cannot be.
    """
    return find(name, data_dir).open()


def resolve(name: str) -> str:
    """The name by which a data set is found from any working directory: of a folder, its path.

    Raises:
      InputError: There is no such path.
    """
    return f"folder:{_root(name)}" if name.startswith("folder:") else name


def label(name: str) -> str:
    """The name of a data set as others may see it: of a folder, without the path to it."""
    kind, _, path = name.partition(":")
    return f"folder:{shown(Path(path).name)}" if kind == "folder" else name


def prepare(
    name: str,
    data_dir: Path | None = None,
    archive: Path | None = None,
    from_tfrecord: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Prepares a data set as array_record, so that ``find`` finds it. Does nothing where it is.

    A stock TFDS data set is downloaded by TFDS's own code, which needs TensorFlow.

    Args:
      name: As of ``find``, or "tiny_imagenet".
      data_dir: As of ``find``.
      archive: What Tiny ImageNet is made of, ``tiny-imagenet-200.zip``.
      from_tfrecord: A folder with a copy as TFRecords, which is converted without TensorFlow.
      say: Told what is done where that takes long, a line now and then.

    Raises:
      InputError: TensorFlow is missing, there is no such data set, it has to be downloaded by
        hand first, or it is there already but of no use.
    """
    if archive is not None and name != _TINY_IMAGENET:
        raise InputError(f"{name} is not made of an archive: leave {archive} out")
    needs_no_tfds = name == "digits" or name.startswith("folder:")
    if from_tfrecord is not None and (needs_no_tfds or not re.fullmatch(r"\w+", name)):
        raise InputError(f"{name} does not come as TFRecords: leave --from-tfrecord out")
    if needs_no_tfds:
        load(name, data_dir)
        return
    with contextlib.suppress(NotPrepared):
        find(name, data_dir)
        return
    if name == _TINY_IMAGENET:
        _prepare_tiny_imagenet(archive, _data_dir(data_dir))
        return
    if from_tfrecord is not None:
        convert(name, _absolute(from_tfrecord), _data_dir(data_dir), say)
        find(name, data_dir)
        return
    if name.partition(":")[0] == IMAGENET:
        say(_imagenet_needs(_data_dir(data_dir)))
    if importlib.util.find_spec("tensorflow") is None:
        raise InputError(f"preparing {name} needs TensorFlow once: run pip install -e '.[prepare]'")
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    data_dir = _data_dir(data_dir)
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise InputError(
            f"TFDS has no data set {name}: see https://www.tensorflow.org/datasets/catalog"
        ) from error
    if not builder.data_path.exists():
        try:
            builder.download_and_prepare(file_format=FILE_FORMAT)
        # AssertionError is how TFDS asks for files that have to be downloaded by hand.
        except (AssertionError, OSError, DownloadError, NonMatchingChecksumError) as error:
            raise InputError(f"cannot prepare {name}: {' '.join(str(error).split())}") from error
    find(name, data_dir)


_ARCHIVES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")


def _imagenet_needs(data_dir: Path) -> str:
    """What it takes to prepare ImageNet from its archives.

    Raises:
      InputError: They are not there, or there is too little space for what is made of them.
    """
    place = data_dir / "downloads" / "manual"
    missing = [name for name in _ARCHIVES if not (place / name).is_file()]
    if missing:
        raise InputError(
            f"{IMAGENET} is made of {' and '.join(_ARCHIVES)} (148 and 6.7 GB, from "
            f"https://image-net.org after a registration); put {' and '.join(missing)} into "
            f"{place}. It takes 155 GB more, and hours. A copy as TFRecords is converted with "
            f"--from-tfrecord DIR, and class folders are read as they are: "
            "--config.data.name=folder:PATH"
        )
    needed = sum((place / name).stat().st_size for name in _ARCHIVES)
    free = shutil.disk_usage(place).free
    if free < needed:
        raise InputError(
            f"{IMAGENET} takes {needed / 1e9:.1f} GB more, and the disk of {data_dir} has "
            f"{free / 1e9:.1f} GB left: move the archives to another, and name it with --data-dir"
        )
    return (
        f"{IMAGENET} is prepared in {data_dir}: it takes {needed / 1e9:.1f} GB of the "
        f"{free / 1e9:.1f} GB that are free, and hours, as every image is read and written twice"
    )


def _write(builder: "DatasetBuilder") -> None:
    """Prepares what needs no download."""
    import tensorflow_datasets as tfds

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    # What TFDS reports on stdout, a download, is none here.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(file_format=FILE_FORMAT)


def _prepare_tiny_imagenet(archive: Path | None, data_dir: Path) -> None:
    from shufflenet_jax.data.tiny_imagenet import SOURCE, TinyImagenet

    if archive is None:
        raise InputError(
            f"{_TINY_IMAGENET} is made of an archive: download {SOURCE} and run "
            f"python -m experiments prepare {_TINY_IMAGENET} tiny-imagenet-200.zip"
        )
    builder = TinyImagenet(_absolute(archive), data_dir=data_dir)
    try:
        _write(builder)
    except OSError as error:
        raise InputError(f"{_TINY_IMAGENET} cannot be prepared in {data_dir}: {error}") from error
    find(_TINY_IMAGENET, data_dir)


@dataclass(frozen=True)
class _FoundDigits(Found):
    """The digits, which need not be prepared yet."""

    data_dir: Path

    def open(self) -> Dataset:
        from shufflenet_jax.data.digits import Digits

        builder = Digits(data_dir=self.data_dir)
        try:
            _write(builder)
        except OSError as error:
            # TFDS renames a finished directory into place, which fails for the second of two
            # processes; what the first one prepared is the same.
            if not builder.data_path.exists():
                raise InputError(
                    f"digits cannot be prepared in {self.data_dir}: {error}"
                ) from error
        return _read_digits(self.data_dir).open()


def _find_digits(data_dir: Path) -> Found:
    directory = _digits_directory(data_dir)
    # What others have prepared may be read where it cannot be written.
    if directory.exists():
        _read_digits(data_dir)
    else:
        ancestor = next(path for path in (data_dir, *data_dir.parents) if os.path.exists(path))
        if not (ancestor.is_dir() and os.access(ancestor, os.W_OK)):
            raise InputError(
                f"digits cannot be prepared: {data_dir} is not a folder one can write to"
            )
    names = tuple(map(str, range(_DIGITS["classes"])))
    return _FoundDigits("digits", _DIGITS, names, (), data_dir)


def _read_digits(data_dir: Path) -> Found:
    found = read_prepared("digits", _digits_directory(data_dir))
    # Files have fingerprints of their own.
    if found.identity | {"fingerprint": _DIGITS["fingerprint"]} != _DIGITS:
        raise InputError(f"{found.directory} holds other data than the digits: move it away")
    return found


def _digits_directory(data_dir: Path) -> Path:
    return data_dir / "digits" / _DIGITS["version"]


def _data_dir(data_dir: Path | None) -> Path:
    # An empty variable would be the working directory.
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return _absolute(Path(data_dir or default))


def _root(name: str) -> Path:
    path = name.removeprefix("folder:")
    if not path:
        raise InputError("folder: names no folder: write folder:PATH")
    return _absolute(Path(path))


def _absolute(path: Path) -> Path:
    """A path that means the same from any working directory."""
    try:
        path = path.expanduser().absolute()
        # Other symbolic links stay, as their names are what the user calls the folder.
        return Path(os.path.realpath(path)) if ".." in path.parts else path
    except RuntimeError as error:
        raise InputError(f"there is no home directory for {path}: write out the path") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} is not a path: {error}") from error
