"""Checkpoints that are complete, verified and never silently wrong."""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from shufflenet_jax.devices import from_lead, is_lead
from shufflenet_jax.files import write_atomically
from shufflenet_jax.train import State

_log = logging.getLogger(__name__)

_NONE = -1

Metrics = dict[str, float]
"""The metrics of one step."""


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
        self._manager = ocp.CheckpointManager(
            self._directory, options=ocp.CheckpointManagerOptions(max_to_keep=keep)
        )

    def save(self, state: State, window: Sequence[Metrics] = ()) -> None:
        """Starts saving; returns once the state may change again.

        Args:
          state: Of the step that the checkpoint is named by.
          window: Metrics of the last steps, which no row has averaged yet.
        """
        self.wait()
        # As NumPy arrays, of which orbax writes one copy however many devices hold them. It may
        # still read them while the next step overwrites the donated originals.
        copy = jax.tree.map(np.array, _as_dict(state))
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(copy), window=ocp.args.JsonSave(list(window))
        )
        self._manager.save(int(state.step), args=items, force=True)

    def wait(self) -> None:
        """Returns once the last save is on disk and sealed."""
        self._manager.wait_until_finished()
        if is_lead():
            self._seal()

    def _seal(self) -> None:
        steps = set(self._manager.all_steps())
        for seal in self._seals.glob("*.json"):
            if int(seal.stem) not in steps:
                seal.unlink()
        for step in steps:
            seal = self._seals / f"{step}.json"
            if not seal.exists():
                write_atomically(seal, json.dumps(_digests(self._path(step)), indent=1))

    def restore(self, like: State) -> tuple[State, list[Metrics]] | None:
        """Returns the newest intact state and its window, or None.

        What is damaged is reported and removed.

        Args:
          like: A state of the same shapes, such as the one before the first step.
        """
        step = from_lead(self._newest_intact() if is_lead() else _NONE)
        self._manager.reload()  # some may have been removed
        if step == _NONE:
            return None
        template = jax.tree.map(np.asarray, _as_dict(like))
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(template), window=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=items)
        return State(**jax.tree.map(jax.numpy.asarray, restored.state)), restored.window

    def _newest_intact(self) -> int:
        for step in sorted(self._manager.all_steps(), reverse=True):
            damage = self._damage(step)
            if damage is None:
                return step
            _log.warning("checkpoint of step %d %s; going back to the one before", step, damage)
            shutil.rmtree(self._path(step))
        return _NONE

    def close(self) -> None:
        """Finishes the last save."""
        self.wait()
        self._manager.close()

    def _path(self, step: int) -> Path:
        return self._directory / str(step)

    def _damage(self, step: int) -> str | None:
        seal = self._seals / f"{step}.json"
        if not seal.exists():
            return "was not finished"
        expected, found = json.loads(seal.read_text()), _digests(self._path(step))
        for name in sorted(expected.keys() | found.keys()):
            if name not in found:
                return f"has lost {name}"
            if expected.get(name) != found[name]:
                return f"is damaged in {name}"
        return None


def _as_dict(state: State) -> dict:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


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
