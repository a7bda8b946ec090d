"""Checkpoints that are complete, verified and never silently wrong."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from shufflenet_jax.devices import from_lead, is_lead
from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically
from shufflenet_jax.metrics import Row
from shufflenet_jax.train import State

_log = logging.getLogger(__name__)

_NONE = -1
_UNFINISHED = "was not finished"

Metrics = dict[str, float]
"""The metrics of one step."""


class Restored(NamedTuple):
    """What was saved of a run.

    Attributes:
      state: Of the step that the checkpoint is named by.
      rows: All rows of metrics that the run had written. Here they are under the checkpoint's seal;
        of the file they are in, a crash may lose some.
      window: Metrics of the last steps, which no row has averaged yet.
    """

    state: State
    rows: list[Row]
    window: list[Metrics]


class Checkpoints:
    """Saves states in the background and restores the newest one that is intact.

    Orbax restores a checkpoint with a flipped bit without a word, so every finished checkpoint is
    sealed: ``DIRECTORY/sha256/STEP.json`` holds the SHA-256 of each of its files. Only sealed
    checkpoints whose files still match are restored.

    One run at a time may hold a directory. Where it is of several processes, all of them call every
    method, at the same steps; the lead one writes, and all read.

    Args:
      directory: Where the checkpoints are; created if missing.
      keep: How many of the newest to keep.
    """

    def __init__(self, directory: Path, keep: int = 2):
        self._directory = directory.resolve()
        self._seals = self._directory / "sha256"
        self._seals.mkdir(parents=True, exist_ok=True)
        # What a run that was killed had begun to save takes up space, and is of no use.
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._directory, options=options)
        self._background = ThreadPoolExecutor(1, thread_name_prefix="seal")
        self._finished: Future[None] | None = None

    def save(self, state: State, rows: Sequence[Row] = (), window: Sequence[Metrics] = ()) -> None:
        """Starts saving; returns once the state may change again. See `Restored`.

        Raises:
          OSError: The disk is full, or another error; this save's, or the one's before.
        """
        self.wait()
        # As NumPy arrays, of which orbax writes one copy however many devices hold them. It may
        # still read them while the next step overwrites the donated originals.
        copy = jax.tree.map(np.array, _as_dict(state))
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(copy),
            log=ocp.args.JsonSave({"rows": list(rows), "window": list(window)}),
        )
        step = int(state.step)
        with _system_errors(self._directory):
            self._manager.save(step, args=items, force=True)
        self._finished = self._background.submit(self._finish, step)

    def wait(self) -> None:
        """Returns once the last save is on disk and sealed.

        Raises:
          OSError: It could not be; the checkpoints before it are as they were.
        """
        finished, self._finished = self._finished, None
        if finished:
            finished.result()

    def _finish(self, step: int) -> None:
        with _system_errors(self._directory):
            self._manager.wait_until_finished()
        if is_lead():
            self._seal(step)

    def _seal(self, step: int) -> None:
        digests = _digests(self._path(step))
        write_atomically(self._seals / f"{step}.json", json.dumps(digests, indent=1))
        for seal in self._seals.glob("*.json"):
            if not self._path(seal.stem).exists():
                seal.unlink()

    def restore(self, like: State) -> Restored | None:
        """Returns what was saved last and is intact, or None.

        What is damaged is reported and set aside, in ``DIRECTORY/damaged``; what was not finished
        is removed.

        Args:
          like: A state of the same shapes, such as the one before the first step.

        Raises:
          InputError: It is intact, and not of such a state; what differs is named.
        """
        step = from_lead(self._newest_intact() if is_lead() else _NONE)
        self._manager.reload()  # some may have been removed
        if step == _NONE:
            return None
        template = jax.tree.map(np.asarray, _as_dict(like))
        _check_fits(self._path(step), template)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(template), log=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=items)
        state = State(**jax.device_put(restored["state"]))  # asarray would compile each shape
        return Restored(state, **restored["log"])

    def _newest_intact(self) -> int:
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            damage = _damage(self._directory, step)
            if damage is None:
                return step
            _log.warning("checkpoint of step %d %s; going back to the one before", step, damage)
            if damage == _UNFINISHED:
                shutil.rmtree(self._path(step))
            else:
                self._set_aside(step)
        if steps:
            _log.warning("no checkpoint is left; starting from the beginning")
        return _NONE

    def _set_aside(self, step: int) -> None:
        place = self._directory / "damaged" / str(step)
        place.parent.mkdir(exist_ok=True)
        if place.exists():
            shutil.rmtree(place)
        self._path(step).rename(place)

    def close(self) -> None:
        """Finishes the last save.

        Raises:
          OSError: As `wait`.
        """
        try:
            self.wait()
        finally:
            self._background.shutdown()
            # Orbax tells each thread once of an error, and lets it close only then; this one may
            # have been told by `wait`.
            with contextlib.suppress(Exception):
                self._manager.wait_until_finished()
            with _system_errors(self._directory):
                self._manager.close()

    def _path(self, step: int | str) -> Path:
        return self._directory / str(step)


def read_weights(directory: Path, like: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Reads a part of the newest intact state, and touches nothing: not even what is damaged.

    Of a run that averages its weights, it reads the averages.

    The directory may be read-only, and the run may be going on.

    Args:
      directory: That of `Checkpoints`.
      like: The fields of `State` to read, such as its params, with the shapes that they must have;
        the others may be anything.

    Returns:
      Of which step they are, and the fields, of NumPy arrays.

    Raises:
      InputError: No checkpoint is intact, or the newest is not of such a state.
    """
    passed_over: set[int] = set()
    while steps := _steps(directory) - passed_over:
        step = max(steps)
        try:
            damage = _damage(directory, step)
            if damage is None:
                return step, _read(directory / str(step), like)
            if damage != _UNFINISHED:
                _log.warning("checkpoint of step %d %s; taking the one before", step, damage)
        except (OSError, ValueError) as error:
            if isinstance(error, InputError) or step == max(_steps(directory), default=None):
                raise
            # The run that goes on has saved a newer one, and is removing this one.
        passed_over.add(step)
    raise InputError(f"{directory} holds no checkpoint that is intact")


def _steps(directory: Path) -> set[int]:
    if not directory.is_dir():
        return set()
    return {int(path.name) for path in directory.iterdir() if path.name.isdecimal()}


def _read(path: Path, like: dict[str, Any]) -> dict[str, Any]:
    averaged = "average" in _saved(path)
    like = {"average": like} if averaged else like
    _check_fits(path, like)
    template = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
    with ocp.PyTreeCheckpointer() as checkpointer:
        read = checkpointer.restore(
            path / "state", args=ocp.args.PyTreeRestore(item=template, partial_restore=True)
        )
    return read["average"] if averaged else read


def _saved(path: Path) -> dict[str, Any]:
    """What arrays a checkpoint has of a state, by field."""
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
        return handler.metadata(path / "state").tree


def _check_fits(path: Path, like: dict[str, Any]) -> None:
    """Raises InputError unless those fields of a checkpoint's state have the same arrays.

    Orbax restores an array of another shape without a word.
    """
    expected = _described(like)
    found = _described({field: tree for field, tree in _saved(path).items() if field in like})
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise InputError(
                f"{path} is of another network, or of another version of the code: {name} is "
                f"{found.get(name, 'missing')}, and {expected.get(name, 'unknown')} here"
            )


def _described(tree: Any) -> dict[str, str]:
    """The type and shape of each array, by its place in a tree."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): f"{np.dtype(leaf.dtype)}"
        f"[{','.join(map(str, leaf.shape))}]"
        for path, leaf in leaves
    }


@contextlib.contextmanager
def _system_errors(directory: Path) -> Iterator[None]:
    """Raises what tensorstore, below orbax, says of the system as the OSError that it is."""
    try:
        yield
    except ValueError as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is None:
            raise
        number = int(code[1])
        raise OSError(number, os.strerror(number), str(directory)) from error


def _as_dict(state: State) -> dict:
    """The fields that it has: runs that average nothing are saved as if there were no averages."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: value for name, value in fields.items() if value is not None}


def _damage(directory: Path, step: int) -> str | None:
    """What is wrong with the checkpoint of a step; None if it is intact."""
    seal = directory / "sha256" / f"{step}.json"
    if not seal.exists():
        return _UNFINISHED
    found = _digests(directory / str(step))
    try:
        expected = dict(json.loads(seal.read_bytes()))
    except (ValueError, TypeError):
        return "has a damaged seal"
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"has lost {name}"
        if expected.get(name) != found[name]:
            return f"is damaged in {name}"
    return None


def _digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below a directory, by relative path."""
    digests = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder, name)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            digests[path.relative_to(directory).as_posix()] = digest
    return digests
