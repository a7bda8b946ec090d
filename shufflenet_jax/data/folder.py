"""Class folders of images: PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg (or PATH/test)."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from shufflenet_jax.errors import InputError

_SUFFIXES = (".jpg", ".jpeg", ".png")


def images_in(folder: Path) -> Iterator[Path]:
    """The images right in a folder, in no particular order; hidden files are left out."""
    for path in folder.iterdir():
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file():
            yield path


def class_folders(root: Path) -> dict[str, list[Path]]:
    """The class folders of the "train" and the "test" split, sorted by name.

    Looks at no more than one image a class, so that it is quick on any size of data set.

    Raises:
      InputError: Something is missing or empty, or the splits differ in their classes.
    """
    if not root.is_dir():
        raise InputError(f"there is no folder {root}")
    test = next((root / name for name in ("val", "test") if (root / name).is_dir()), None)
    if not (root / "train").is_dir():
        raise InputError(f"{root} has no folder train; expected {root / 'train' / 'CLASS'}/*.jpg")
    if test is None:
        raise InputError(f"{root} has neither a folder val nor test beside train")
    splits = {"train": _class_folders(root / "train"), "test": _class_folders(test)}
    classes = [{folder.name for folder in folders} for folders in splits.values()]
    if differing := sorted(classes[0] ^ classes[1]):
        here, there = ("train", test.name) if differing[0] in classes[0] else (test.name, "train")
        raise InputError(f"{root}: class {differing[0]} is in {here} but not in {there}")
    return splits


def _class_folders(split: Path) -> list[Path]:
    folders = sorted(
        path for path in split.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if not folders:
        raise InputError(f"{split} has no class folders")
    for folder in folders:
        if next(images_in(folder), None) is None:
            raise InputError(f"{folder} has no images ({', '.join(_SUFFIXES)})")
    return folders


class Folder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Copies the images of class folders, byte by byte, in the order of their names.

    The prepared copy is kept under a fingerprint of all relative paths, sizes and modification
    times: a changed folder is prepared anew, a moved one is not.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, root: Path, data_dir: Path):
        self._root = root
        self._classes = class_folders(root)
        self._images = {
            split: [image for folder in folders for image in sorted(images_in(folder))]
            for split, folders in self._classes.items()
        }
        super().__init__(data_dir=data_dir / "folder" / self._fingerprint())

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for split, images in self._images.items():
            for image in images:
                stat = image.stat()
                name = image.relative_to(self._root).as_posix()
                digest.update(f"{split}\0{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]

    def _info(self) -> tfds.core.DatasetInfo:
        names = [folder.name for folder in self._classes["train"]]
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(),
                "label": tfds.features.ClassLabel(names=names),
                "file_name": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        return {split: self._generate_examples(images) for split, images in self._images.items()}

    def _generate_examples(self, images: list[Path]) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, image in enumerate(images):
            name = image.relative_to(self._root).as_posix()
            yield index, {"image": image, "label": image.parent.name, "file_name": name}
