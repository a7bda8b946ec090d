"""One run of a sweep on disk: a cell with a seed. `experiments.sweep.workdir` has the layout."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping
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
        """How it ended, or None if it has not, or if the file that says so is damaged.

        It has "status" and "step"; if it is done, also "top1_error" in percent and as a rule
        "network", the sizes of the network; else "reason".
        """
        return _read(self._result_file, _is_result)[0]

    def end(self, outcome: dict[str, Any]) -> None:
        """Records how it ended: "status" and, unless it is done, "reason" and "step".

        A failure has "transient" as well: whether it may pass.
        """
        self._set_aside()
        write_atomically(self._result_file, json.dumps(outcome, indent=1))

    def reopen(self) -> None:
        """Forgets an earlier failure. A damaged result is kept, as ``result.json.damaged``."""
        self._set_aside()
        self._result_file.unlink(missing_ok=True)

    @property
    def progress(self) -> dict[str, Any]:
        """Where it stands, see `Progress`; all zero before the first report."""
        nothing = {"step": 0, "total": 0, "loss": 0.0, "rate": 0.0, "waiting": 0.0}
        return nothing | (_read(self._progress_file, _is_progress)[0] or {})

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """What is known of each process that started on it; those of damaged files are left out."""
        found = (_read(path, _is_attempt)[0] for path in self._attempt_files())
        return [attempt for attempt in found if attempt is not None]

    @property
    def last_attempt(self) -> dict[str, Any] | None:
        """What is known of the last process that started on it; None if none did, or nothing is."""
        files = self._attempt_files()
        return _read(files[-1], _is_attempt)[0] if files else None

    @property
    def num_attempts(self) -> int:
        """How many processes started on it."""
        return len(self._attempt_files())

    @property
    def damage(self) -> str | None:
        """Which of its files cannot be read or say something impossible, and why; None if all do.

        A damaged record of an attempt, or of its progress, does not make a run that has ended a
        damaged one.
        """
        files = {self._result_file: _is_result, self._progress_file: _is_progress}
        files |= dict.fromkeys(self._attempt_files(), _is_attempt)
        said = (_read(path, is_whole)[1] for path, is_whole in files.items())
        return next((damage for damage in said if damage is not None), None)

    def record_attempt(self, number: int, attempt: Mapping[str, Any]) -> None:
        """Writes what is known of the process that was the number-th to start on it, from 1."""
        folder = self.directory / "attempts"
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{number:04}.json", json.dumps(attempt, indent=1))

    @property
    def _result_file(self) -> Path:
        return self.directory / "result.json"

    @property
    def _progress_file(self) -> Path:
        return self.directory / "progress.json"

    def _attempt_files(self) -> list[Path]:
        folder = self.directory / "attempts"
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [folder / name for name in sorted(names) if re.fullmatch(r"\d+\.json", name)]

    def _set_aside(self) -> None:
        if _read(self._result_file, _is_result)[1] is None:
            return
        with contextlib.suppress(IsADirectoryError, PermissionError):
            self._result_file.read_bytes()  # a file system that is away says nothing of the file
        self._result_file.replace(self.directory / "result.json.damaged")

    @property
    def status(self) -> str:
        """How it stands.

        One of missing (not begun), running, preempted (asked to end, and saved), interrupted (its
        process is gone), done, diverged, failed; and damaged: the file that would tell which of
        these is unreadable or says something impossible. `damage` names it.
        """
        # Read once: a failed run that is tried again loses its record.
        result, damage = _read(self._result_file, _is_result)
        if result is not None:
            return result["status"]
        if is_held(self.lock):
            return "running"
        files = self._attempt_files()
        if damage is None and not files:
            return "missing"
        last = None
        if damage is None:
            last, damage = _read(files[-1], _is_attempt)
        if last is None:
            return "damaged"
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


def _read(
    path: Path, is_whole: Callable[[dict[str, Any]], bool]
) -> tuple[dict[str, Any] | None, str | None]:
    """The contents of a file of JSON, and what is wrong with it; both are None without a file.

    A crash of the machine can empty or tear a file, and it may come from someone else.

    Args:
      path: The file.
      is_whole: Whether contents have what is read of them, in the types that it has.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, f"{path} cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        return None, f"{path} is torn or no JSON"
    if isinstance(content, dict) and is_whole(content):
        return content, None
    return None, f"{path} lacks something, or has it in another form"


def _is_result(content: dict[str, Any]) -> bool:
    match content:
        case {"status": "done", "step": step, "top1_error": error}:
            sizes = content.get("network")
            in_range = _is_number(error) and 0 <= error <= 100
            return _is_count(step) and in_range and (sizes is None or _are_sizes(sizes))
        case {"status": "diverged" | "failed", "step": step, "reason": str()}:
            return _is_count(step) and isinstance(content.get("transient", False), bool)
    return False


def _are_sizes(content: object) -> bool:
    match content:
        case {"widths": list(widths), "macs": macs, "macs_without_head": less, "params": params}:
            return all(map(_is_count, (*widths, macs, less, params)))
    return False


def _is_progress(content: dict[str, Any]) -> bool:
    match content:
        case {"step": step, "total": total, "loss": loss, "rate": rate}:
            # A loss may be no finite number: that is what ends a run that diverges.
            is_loss = isinstance(loss, float) or _is_number(loss)
            is_rate = _is_number(rate) and (rate == 0 or rate > 1e-9)  # it is divided by
            waiting = content.get("waiting", 0.0)  # versions before this one did not count it
            is_share = _is_number(waiting) and 0 <= waiting <= 1
            return _is_count(step) and _is_count(total) and is_loss and is_rate and is_share
    return False


def _is_attempt(content: dict[str, Any]) -> bool:
    match content:
        case {
            "processor": str(),
            "device": str(),
            "cores": cores,
            "pid": pid,
            "python": str(),
            "versions": {**versions},
            "commit": str() | None,
        }:
            texts = (*versions.values(), content.get("ended", ""), content.get("diff") or "")
            return _is_count(cores) and _is_count(pid) and all(isinstance(x, str) for x in texts)
    return False


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: object) -> bool:
    """Whether it is a number that can be computed with, which an integer of 400 digits cannot."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100
