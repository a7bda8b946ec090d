"""A data set: what is known of it, and its examples by number."""

import abc
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict, runtime_checkable


class Example(TypedDict):
    """One image as it is stored.

    Attributes:
      image: The encoded file: JPEG, PNG, WebP or BMP.
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


class Identity(TypedDict):
    """What has to agree between two attempts of one run. Can be written as JSON.

    Attributes:
      name: Of the data set, as others may see it.
      version: Of a TFDS data set; else empty.
      fingerprint: 16 hexadecimal digits, of all that tells other examples apart.
      train: Examples of the split.
      test: Examples of the split.
      classes: How many.
    """

    name: str
    version: str
    fingerprint: str
    train: int
    test: int
    classes: int


@dataclass(frozen=True)
class Found(abc.ABC):
    """All that is known of a data set before it is opened. To find it writes nothing.

    Attributes:
      name: Finds the same data set again, from any working directory.
      identity: What has to agree between two attempts of one run.
      class_names: By class number.
      notes: Lines on what is left out, and why.
    """

    name: str
    identity: Identity
    class_names: tuple[str, ...]
    notes: tuple[str, ...]

    @abc.abstractmethod
    def open(self) -> Dataset:
        """Opens the data set; prepares it first where that needs no network.

        Raises:
          InputError: It cannot be prepared.
        """

    # To keep nothing is right for most data sets.
    def remember(self, path: Path) -> None:  # noqa: B027
        """Writes what took long to find, so that ``find`` can be told of it; often nothing."""


def shown(name: str) -> str:
    r"""A name of the file system as text of one line, which UTF-8 can write.

    Names that are not UTF-8 or hold what cannot be printed are shown as Python writes strings; no
    two names are shown alike.

    >>> shown("cat/a.jpg")
    'cat/a.jpg'
    >>> print(shown("cat\n/a.jpg"))
    'cat\n/a.jpg'
    """
    return name if name.isprintable() and name[:1] not in ("'", '"') else repr(name)
