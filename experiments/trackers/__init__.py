"""Trackers: where the metrics of runs go as well, beside their JSON lines and TensorBoard's events.

No result depends on one: a tracker that fails is told of, and left out for the rest of the run.
"""

import contextlib
import importlib
import importlib.util
import json
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from shufflenet_jax.errors import InputError, did_you_mean
from shufflenet_jax.files import write_atomically
from shufflenet_jax.metrics import Row

NAMES = ("wandb", "mlflow")
"""The trackers: each has a module here, and is an extra of that name, and a package."""

_FILE = "trackers.json"

Mark = tuple[int, bool]
"""Place of a row in a run: its step, and whether it is a test."""


@dataclass(frozen=True)
class About:
    """What a tracker is told of a run.

    Attributes:
      experiment: Of which it is a part.
      name: The run's.
      key: No other run has it; it stays the same when the run goes on.
      store: Directory of the sweep, for what is to lie there.
      hyperparameters: The configuration by dotted key.
    """

    experiment: str
    name: str
    key: str
    store: Path
    hyperparameters: Mapping[str, str | int | float | bool]


class Tracker(Protocol):
    """One of them. Each method may raise whatever it likes."""

    def __init__(self, about: About): ...

    def write(self, row: Row) -> None:
        """Takes the next row of metrics."""

    def close(self, status: str) -> None:
        """Ends: "done", "preempted" (it will go on), or "failed"."""


def check(names: str) -> None:
    """Refuses trackers that there are not.

    Args:
      names: As a configuration has them, with commas.

    Raises:
      InputError: One is unknown, or its package is not installed.
    """
    for name in _split(names):
        if name not in NAMES:
            raise InputError(f"unknown tracker {name!r}{did_you_mean(name, NAMES)}")
        if importlib.util.find_spec(name) is None:
            raise InputError(f"trackers={name} needs {name}: pip install -e '.[{name}]'")


@contextlib.contextmanager
def opened(names: str, directory: Path, **about: Any) -> Iterator[Callable[[Row], None]]:
    """Yields what takes the rows of a run, from the first: those that a tracker has are left out.

    Args:
      names: Of the trackers, with commas.
      directory: The run's, which keeps what they have.
      about: The fields of `About`, without its key.
    """
    tracks = [_Track(name, directory, about) for name in _split(names)]
    status = "failed"
    try:

        def write(row: Row) -> None:
            for track in tracks:
                track.write(row)

        yield write
        status = "done"
    except Exception as error:
        # Here, because who only checks names trains nothing.
        from shufflenet_jax.fit import Preempted

        if isinstance(error, Preempted):
            status = "preempted"
        raise
    finally:
        for track in tracks:
            track.close(status)


def _split(names: str) -> Sequence[str]:
    return list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))


class _Track:
    """A tracker of a run, and which rows it has."""

    def __init__(self, name: str, directory: Path, about: Mapping[str, Any]):
        self._name, self._path = name, directory / _FILE
        known = _read(self._path).get(name, {})
        self._key: str = known.get("key") or uuid.uuid4().hex[:16]
        self._last: Mark = (known.get("step", -1), known.get("test", True))
        self._tracker: Tracker | None = None
        with self._told_of():
            module = importlib.import_module(f"experiments.trackers.{name}")
            self._tracker = module.open_run(About(key=self._key, **about))
            self._keep()

    def write(self, row: Row) -> None:
        mark = row["step"], row["split"] == "test"
        if self._tracker is None or mark <= self._last:
            return
        with self._told_of():
            self._tracker.write(row)
            self._last = mark
            self._keep()

    def close(self, status: str) -> None:
        if self._tracker is not None:
            with self._told_of():
                self._tracker.close(status)

    def _keep(self) -> None:
        step, test = self._last
        mine = {self._name: {"key": self._key, "step": step, "test": test}}
        write_atomically(self._path, json.dumps(_read(self._path) | mine))

    @contextlib.contextmanager
    def _told_of(self) -> Iterator[None]:
        """Makes an error of the tracker its end, and not the run's."""
        try:
            yield
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"warning: tracker {self._name} is left out: {said}", file=sys.stderr)
            self._tracker = None


def _read(path: Path) -> dict[str, Any]:
    """What trackers have; nothing where that was not kept, or is damaged."""
    try:
        content = json.loads(path.read_text())
        return {
            name: {"key": str(each["key"]), "step": int(each["step"]), "test": bool(each["test"])}
            for name, each in content.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
