"""Class folders of images, read where they lie: PATH/train/CLASS/*.jpg, PATH/val/CLASS/*.jpg."""

import bisect
import collections
import functools
import hashlib
import io
import json
import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from shufflenet_jax.data.dataset import Dataset, Example, Found, Identity, shown
from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp"})
"""What the names of images end in."""

_RESTORE = "restore it, or begin anew with the folder as it is"


class _Images(NamedTuple):
    """The images of one class folder, in the order of their names."""

    names: bytes  # each ends with a zero byte
    sizes: Int64[np.ndarray, " n"]
    modified: Int64[np.ndarray, " n"]  # nanoseconds since 1970

    def by_name(self) -> dict[bytes, tuple[int, int]]:
        status = zip(self.sizes.tolist(), self.modified.tolist(), strict=True)
        return dict(zip(self.names.split(b"\0")[:-1], status, strict=True))


@dataclass(frozen=True, eq=False)
class FolderSplit:
    """The images of one split, read from their class folders.

    A million of them take about 50 MB, here and in every worker process that it is pickled for.

    Attributes:
      root: Absolute path of the data set.
      folder: "train", "val" or "test".
      classes: Names of the class folders, by class number.
      counts: Images of each class.
      names: Names of all files, by class and then by name; each ends with a zero byte.
      sizes: Of the files, in bytes.
      modified: When the files were changed, in nanoseconds since 1970.
    """

    root: str
    folder: str
    classes: tuple[str, ...]
    counts: Int64[np.ndarray, " c"]
    names: bytes
    sizes: Int64[np.ndarray, " n"]
    modified: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Example:
        """Reads an image.

        Raises:
          InputError: It is no longer what was found.
        """
        index = range(len(self))[index]
        name = self._name(index)
        label = bisect.bisect_right(self._ends, index)
        key = shown(f"{self.folder}/{self.classes[label]}/{os.fsdecode(name)}")
        try:
            # Unbuffered, as it is read at once.
            with open(self._prefixes[label] + name, "rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                image = file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise InputError(f"{key} has gone since it was found: {_RESTORE}") from error
        except PermissionError as error:
            raise InputError(f"{key} cannot be read: {error.strerror}") from error
        expected = int(self.sizes[index]), int(self.modified[index])
        if (status.st_size, status.st_mtime_ns) != expected or len(image) != expected[0]:
            raise InputError(f"{key} has changed since it was found: {_RESTORE}")
        return Example(image=image, label=label, key=key)

    def __reduce__(self) -> tuple[Any, ...]:
        return FolderSplit, (
            self.root,
            self.folder,
            self.classes,
            self.counts,
            self.names,
            self.sizes,
            self.modified,
        )

    @functools.cached_property
    def _ends(self) -> list[int]:
        return np.cumsum(self.counts).tolist()

    @functools.cached_property
    def _prefixes(self) -> list[bytes]:
        return [os.fsencode(os.path.join(self.root, self.folder, c, "")) for c in self.classes]

    @functools.cached_property
    def _stops(self) -> Int64[np.ndarray, " n"]:
        """Where each name ends."""
        return np.flatnonzero(np.frombuffer(self.names, np.uint8) == 0)

    def _name(self, index: int) -> bytes:
        start = int(self._stops[index - 1]) + 1 if index else 0
        return self.names[start : int(self._stops[index])]

    def of_class(self, label: int) -> _Images:
        """The images of one class."""
        end = self._ends[label]
        start = end - int(self.counts[label])
        first = int(self._stops[start - 1]) + 1 if start else 0
        names = self.names[first : int(self._stops[end - 1]) + 1]
        return _Images(names, self.sizes[start:end], self.modified[start:end])


# Why something is left out, or worth a line.
_DEEPER = "left out, deeper than a class folder"
_DANGLING = "left out, a link to nothing"
_OUTSIDE = "left out, outside of the class folders"
_OTHER = "left out, of other kinds"
_EMPTY = "empty"


class _Notes:
    """Counts what is worth a line, by reason, each with an example."""

    def __init__(self) -> None:
        self._counts: collections.Counter[str] = collections.Counter()
        self._examples: dict[str, str] = {}
        self._suffixes: collections.Counter[str] = collections.Counter()

    def add(self, reason: str, *path: str) -> None:
        example = "/".join(path)
        self._counts[reason] += 1
        # Folders are listed in no particular order.
        self._examples[reason] = min(example, self._examples.get(reason, example))
        if reason is _OTHER:
            self._suffixes[_suffix(example)] += 1

    def lines(self) -> tuple[str, ...]:
        suffixes = sorted(self._suffixes.items(), key=lambda item: (-item[1], item[0]))
        kinds = (f"{count} {shown(suffix) or 'of no suffix'}" for suffix, count in suffixes[:5])
        details = {_OTHER: f" ({', '.join(kinds)})"}
        return tuple(
            f"{count} {reason}{details.get(reason, '')}, such as {shown(self._examples[reason])}"
            for reason, count in sorted(self._counts.items())
        )


@dataclass(frozen=True)
class FoundFolder(Found):
    """Class folders whose images have been listed."""

    train: FolderSplit = field(repr=False)
    test: FolderSplit = field(repr=False)
    folders_modified: Int64[np.ndarray, " folders"] = field(repr=False, compare=False)

    def open(self) -> Dataset:
        return Dataset(self.name, self.train, self.test, self.class_names)

    def remember(self, path: Path) -> None:
        """Writes the listing, so that ``find`` need not look at each file again."""
        arrays = {"folders_modified": self.folders_modified}
        for name, split in (("train", self.train), ("test", self.test)):
            arrays |= {
                f"{name}_counts": split.counts,
                f"{name}_names": np.frombuffer(split.names, np.uint8),
                f"{name}_sizes": split.sizes,
                f"{name}_modified": split.modified,
            }
        rest = {"test": self.test.folder, "classes": self.train.classes, "notes": self.notes}
        arrays["json"] = np.frombuffer(json.dumps(rest).encode(), np.uint8)
        contents = io.BytesIO()
        np.savez(contents, allow_pickle=False, **arrays)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, contents.getvalue())


def find_folder(root: Path, label: str, known: Path | None = None) -> FoundFolder:
    """Lists the images of class folders, which takes a look at every file.

    Hidden files are left out, and so is all that is no image by its name or lies deeper.

    Args:
      root: Absolute path. Has train/CLASS/ and val/CLASS/, or else test/CLASS/.
      label: The name of the data set as others may see it.
      known: A listing that ``remember`` has written. Where there is one, only the class folders
        are looked at, and listed again if they were changed.

    Raises:
      InputError: Something is missing or empty, the splits differ in their classes, or the images
        are not those of the listing.
    """
    try:
        folders = _splits(root)
        found = None if known is None else _recall(root, folders, label, known)
        return found or _scan(root, folders, label)
    except OSError as error:
        name = "" if error.filename is None else f" {shown(os.fsdecode(error.filename))}"
        raise InputError(f"cannot look into{name or label}: {error.strerror}") from error


def _scan(root: Path, folders: tuple[str, str], label: str) -> FoundFolder:
    notes = _Notes()
    classes = {folder: _class_names(root, folder, notes) for folder in folders}
    _check_classes(root, classes)
    splits, modified = [], []
    for folder in folders:
        listed: list[_Images] = []
        for name in classes[folder]:
            # Before the folder is listed, so that what comes later is noticed.
            modified.append(_modified(root, folder, name))
            listed.append(_images(root, folder, name, notes))
        splits.append(
            FolderSplit(
                root=str(root),
                folder=folder,
                classes=classes[folder],
                counts=np.array([len(images.sizes) for images in listed], np.int64),
                names=b"".join(images.names for images in listed),
                sizes=np.concatenate([images.sizes for images in listed]),
                modified=np.concatenate([images.modified for images in listed]),
            )
        )
    lines = notes.lines()
    if folders[1] != "test" and (root / "test").is_dir():
        lines += (f"test is left out, as there is {folders[1]} to test on",)
    train, test = splits
    return _found(label, train, test, np.array(modified, np.int64), lines)


def _recall(root: Path, folders: tuple[str, str], label: str, known: Path) -> FoundFolder | None:
    """What ``remember`` has written, held against the class folders; None if there is nothing."""
    try:
        with np.load(io.BytesIO(known.read_bytes()), allow_pickle=False) as stored:
            rest = json.loads(stored["json"].tobytes())
            train, test = (
                FolderSplit(
                    root=str(root),
                    folder=folder,
                    classes=tuple(rest["classes"]),
                    counts=stored[f"{split}_counts"],
                    names=stored[f"{split}_names"].tobytes(),
                    sizes=stored[f"{split}_sizes"],
                    modified=stored[f"{split}_modified"],
                )
                for split, folder in (("train", "train"), ("test", rest["test"]))
            )
            modified = stored["folders_modified"].reshape(2, len(train.classes))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{known} is damaged: delete it, and give the command again") from error
    if test.folder != folders[1]:  # there is a val now, or no longer
        raise _changed(root, "val", "is new" if folders[1] == "val" else "has gone")
    for split, before in zip((train, test), modified.tolist(), strict=True):
        names = _class_names(root, split.folder, _Notes())
        if differing := sorted({*names} ^ {*split.classes}):
            how = "is new" if differing[0] in names else "has gone"
            raise _changed(root, f"{split.folder}/{differing[0]}", how)
        for number, (name, then) in enumerate(zip(names, before, strict=True)):
            if _modified(root, split.folder, name) != then:
                # Perhaps only what is left out anyway has come or gone.
                now = _images(root, split.folder, name, _Notes())
                _compare(root, f"{split.folder}/{name}", split.of_class(number), now)
    return _found(label, train, test, modified.ravel(), tuple(rest["notes"]))


def _compare(root: Path, folder: str, then: _Images, now: _Images) -> None:
    """Says which image of a class is not what it was."""
    before, after = then.by_name(), now.by_name()
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            how = "has changed"
            if name not in before:
                how = "is new"
            elif name not in after:
                how = "has gone"
            raise _changed(root, f"{folder}/{os.fsdecode(name)}", how)


def _changed(root: Path, name: str, how: str) -> InputError:
    return InputError(f"{shown(f'{root}/{name}')} {how} since the images were listed: {_RESTORE}")


def _found(
    label: str,
    train: FolderSplit,
    test: FolderSplit,
    folders_modified: Int64[np.ndarray, " folders"],
    notes: tuple[str, ...],
) -> FoundFolder:
    digest = hashlib.sha256()
    for split in (train, test):
        header = [split.folder, split.classes, split.counts.tolist()]
        digest.update(json.dumps(header).encode())
        digest.update(split.names)
        for numbers in (split.sizes, split.modified):
            digest.update(numbers.astype("<i8").tobytes())
    return FoundFolder(
        name=f"folder:{train.root}",
        identity=Identity(
            name=label,
            version="",
            fingerprint=digest.hexdigest()[:16],
            train=len(train),
            test=len(test),
            classes=len(train.classes),
        ),
        class_names=tuple(map(shown, train.classes)),
        notes=notes,
        train=train,
        test=test,
        folders_modified=folders_modified,
    )


def _splits(root: Path) -> tuple[str, str]:
    """The folders to train and to test on."""
    if not root.is_dir():
        raise InputError(f"there is no folder {shown(str(root))}")
    here = shown(str(root))
    test = next((name for name in ("val", "test") if (root / name).is_dir()), None)
    if not (root / "train").is_dir():
        raise InputError(f"{here} has no folder train; expected {here}/train/CLASS/*.jpg")
    if test is None:
        raise InputError(f"{here} has neither a folder val nor test beside train")
    return "train", test


def _class_names(root: Path, folder: str, notes: _Notes) -> tuple[str, ...]:
    names = []
    with os.scandir(root / folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                names.append(entry.name)
            elif not entry.is_file():
                notes.add(_DANGLING, folder, entry.name)
            elif _suffix(entry.name) in IMAGE_SUFFIXES:
                notes.add(_OUTSIDE, folder, entry.name)
    if not names:
        raise InputError(f"{shown(str(root / folder))} has no class folders")
    return tuple(sorted(names))


def _check_classes(root: Path, classes: dict[str, tuple[str, ...]]) -> None:
    """Finds that splits differ before a million files are looked at."""
    train, test = classes
    for name in sorted({*classes[train]} ^ {*classes[test]}):
        here, there = (train, test) if name in classes[train] else (test, train)
        _images(root, here, name, _Notes())
        raise InputError(f"{shown(str(root))}: class {shown(name)} is in {here} but not in {there}")


def _modified(root: Path, folder: str, name: str) -> int:
    return os.stat(root / folder / name).st_mtime_ns


def _images(root: Path, folder: str, name: str, notes: _Notes) -> _Images:
    images = []
    path = os.path.join(root, folder, name)
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _suffix(entry.name) in IMAGE_SUFFIXES:
                try:
                    status = entry.stat()
                except OSError:
                    if not entry.is_symlink():
                        raise
                    notes.add(_DANGLING, folder, name, entry.name)
                    continue
                if stat.S_ISREG(status.st_mode):
                    images.append((entry.name, status.st_size, status.st_mtime_ns))
                    if not status.st_size:
                        notes.add(_EMPTY, folder, name, entry.name)
                    continue
            if entry.is_dir():
                for deeper in _deeper(entry.path):
                    notes.add(_DEEPER, folder, name, os.path.relpath(deeper, path))
            else:
                notes.add(_OTHER, folder, name, entry.name)
    if not images:
        raise InputError(
            f"{shown(path)} has no images ({', '.join(sorted(IMAGE_SUFFIXES))}) right in it"
        )
    images.sort()
    names, sizes, modified = zip(*images, strict=True)
    return _Images(
        names=b"".join(os.fsencode(name) + b"\0" for name in names),
        sizes=np.array(sizes, np.int64),
        modified=np.array(modified, np.int64),
    )


def _deeper(path: str) -> Iterator[str]:
    """The images below a folder that lies in a class folder."""
    for parent, _, names in os.walk(path):
        for name in names:
            if _suffix(name) in IMAGE_SUFFIXES and not name.startswith("."):
                yield os.path.join(parent, name)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
