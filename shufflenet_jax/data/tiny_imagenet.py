"""Tiny ImageNet: 200 classes of ImageNet at 64x64 pixels, of the archive from Stanford."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import tensorflow_datasets as tfds

from shufflenet_jax.errors import InputError

SOURCE = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"

_CLASSES, _LABELS = "wnids.txt", "val/val_annotations.txt"


class TinyImagenet(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS has no types
    """Tiny ImageNet: with all 200 classes, 100,000 images to train and 10,000 to validate.

    Its own test split has no labels and is left out.

    Args:
      archive: ``tiny-imagenet-200.zip``, or one with fewer classes.
      **options: Those of TFDS's builders.

    Raises:
      InputError: It is not that archive.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, archive: Path, **options: Any):
        self._path = archive
        try:
            self._archive = zipfile.ZipFile(archive)
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{archive} cannot be read as a zip archive: {error}") from error
        names = {PurePosixPath(name) for name in self._archive.namelist()}
        roots = [name.parent for name in names if name.name == _CLASSES]
        if len(roots) != 1 or roots[0] / _LABELS not in names:
            raise InputError(
                f"{archive} is not Tiny ImageNet: it has no {_CLASSES} beside a {_LABELS}"
            )
        self._root, self._names = roots[0], names
        self._classes = sorted(self._text(_CLASSES).split())
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(64, 64, 3), encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=self._classes),
                "file_name": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        training = {
            name: name.relative_to(self._root).parts[1]
            for name in self._names
            if name.is_relative_to(self._root / "train") and name.suffix == ".JPEG"
        }
        validation = {}
        for line in self._text(_LABELS).splitlines():
            file, label, *_ = line.split("\t")
            validation[self._root / "val" / "images" / file] = label
        return {
            "train": self._generate_examples(training),
            "validation": self._generate_examples(validation),
        }

    def _generate_examples(
        self, labels: dict[PurePosixPath, str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, label in sorted(labels.items()):
            image = io.BytesIO(self._read(name))
            yield name.name, {"image": image, "label": label, "file_name": name.name}

    def _text(self, name: str) -> str:
        return self._read(self._root / name).decode()

    def _read(self, name: PurePosixPath) -> bytes:
        """The bytes of a file.

        Raises:
          InputError: It is missing or damaged.
        """
        try:
            return self._archive.read(str(name))
        except (KeyError, OSError, zipfile.BadZipFile, EOFError) as error:
            raise InputError(f"{name} in {self._path} cannot be read: {error}") from error
