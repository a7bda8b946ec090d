"""One run of a sweep on disk: a cell with a seed. `experiments.sweep.workdir` has the layout."""

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.sweep.experiment import Cell
from experiments.sweep.lock import is_held, owner
from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically

ENDED = ("done", "diverged", "failed")
"""States of runs that have a result; only those that failed are worth another try."""


@dataclass(frozen=True)
class Run:
    """A cell with one seed, and its directory."""

    cell: Cell
    seed: int
    directory: Path

    @property
    def name(self) -> str:
        """The cell's and the seed's, as ``0.25x-g3-seed0``."""
        return f"{self.cell.name}-seed{self.seed}"

    @property
    def lock(self) -> Path:
        """The lock that a process holds while it trains the run."""
        return self.directory / "lock"

    @property
    def stall(self) -> Path:
        """Where a process that hung leaves its traceback."""
        return self.directory / "stall.txt"

    @property
    def owner(self) -> str | None:
        """The process that trains it now."""
        return owner(self.lock)

    @property
    def result(self) -> dict[str, Any] | None:
        """How it ended, or None if it has not."""
        return _read_json(self.directory / "result.json")

    def end(self, outcome: dict[str, Any]) -> None:
        """Records how it ended: "status" and, unless it is done, "reason" and "step".

        A failure has "transient" as well: whether it may pass.
        """
        write_atomically(self.directory / "result.json", json.dumps(outcome, indent=1))

    def reopen(self) -> None:
        """Forgets an earlier failure."""
        (self.directory / "result.json").unlink(missing_ok=True)

    @property
    def progress(self) -> dict[str, Any]:
        """Where it stands: step, total, loss, rate; all zero before the first report."""
        nothing = {"step": 0, "total": 0, "loss": 0.0, "rate": 0.0}
        return _read_json(self.directory / "progress.json") or nothing

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """What is known of each process that started on it."""
        return [_read_json(path) or {} for path in self._attempt_files()]

    @property
    def last_attempt(self) -> dict[str, Any] | None:
        """What is known of the last process that started on it; None if none did."""
        files = self._attempt_files()
        return (_read_json(files[-1]) or {}) if files else None

    @property
    def num_attempts(self) -> int:
        """How many processes started on it."""
        return len(self._attempt_files())

    def record_attempt(self, number: int, attempt: Mapping[str, Any]) -> None:
        """Writes what is known of the process that was the number-th to start on it, from 1."""
        folder = self.directory / "attempts"
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{number:04}.json", json.dumps(attempt, indent=1))

    def _attempt_files(self) -> list[Path]:
        folder = self.directory / "attempts"
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return []
        return [folder / name for name in sorted(names) if re.fullmatch(r"\d+\.json", name)]

    @property
    def status(self) -> str:
        """How it stands.

        One of missing (not begun), running, preempted (asked to end, and saved), interrupted (its
        process is gone), done, diverged, failed.
        """
        result = self.result  # read once: a failed run that is tried again loses its record
        if result:
            return result["status"]
        if is_held(self.lock):
            return "running"
        last = self.last_attempt
        if last is None:
            return "missing"
        return "preempted" if last.get("ended") == "preempted" else "interrupted"


def check_own(run: Run, directory: Path) -> None:
    """Refuses a run whose files would be written outside the sweep's directory.

    Raises:
      InputError: There is a symbolic link.
    """
    above = [run.directory, *run.directory.relative_to(directory).parents]
    places = [directory / place for place in above if place != Path()]
    for path in (*places, *run.directory.rglob("*")):
        if path.is_symlink():
            raise InputError(f"{path} is a symbolic link: a sweep is kept in one directory")


def _read_json(path: Path) -> dict[str, Any] | None:
    """The contents of a file; None if there is none, or if a crash of the machine lost them."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return json.loads(path.read_text())
    return None
