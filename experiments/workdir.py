"""A sweep on disk. What is known of a sweep is what lies here; processes come and go.

DIR/sweep.json                      the experiment, its budget and configuration
DIR/cells/NAME-HASH/seedN/          one run: a cell trained with one seed
    config.json                     its configuration
    attempts.jsonl                  one line a start: when, where, versions, git commit
    lock                            its owner, while a process trains it (`experiments.lock`)
    progress.json                   where it stands
    metrics.jsonl  events/  checkpoints/    written by `shufflenet_jax.fit`
    result.json                     how it ended: done, diverged or failed
    output.log                      what its processes printed
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import config as configs
from experiments.experiment import Cell, Experiment, load
from experiments.lock import is_held
from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically


@dataclass(frozen=True)
class Run:
    """A cell with one seed, and its directory."""

    cell: Cell
    seed: int
    directory: Path

    @property
    def result(self) -> dict[str, Any] | None:
        """How it ended, or None if it has not."""
        return _read_json(self.directory / "result.json")

    def end(self, outcome: dict[str, Any]) -> None:
        """Records how it ended: "status" and, unless it is done, "reason" and "step"."""
        write_atomically(self.directory / "result.json", json.dumps(outcome, indent=1))

    @property
    def progress(self) -> dict[str, Any]:
        """Where it stands: step, total, loss, rate; all zero before the first report."""
        nothing = {"step": 0, "total": 0, "loss": 0.0, "rate": 0.0}
        return _read_json(self.directory / "progress.json") or nothing

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """What is known of each process that started on it; a line cut off by a crash is not."""
        path = self.directory / "attempts.jsonl"
        *lines, _ = path.read_text().split("\n") if path.exists() else [""]
        return [json.loads(line) for line in lines]

    @property
    def status(self) -> str:
        """One of missing (not begun, or interrupted), running, done, diverged, failed."""
        result = self.result  # read once: a failed run that is tried again loses its record
        if result:
            return result["status"]
        return "running" if is_held(self.directory / "lock") else "missing"


@dataclass(frozen=True)
class Sweep:
    """An experiment under one configuration in one directory."""

    experiment: Experiment
    budget: str
    config: ConfigDict
    directory: Path

    def run(self, cell: Cell, seed: int) -> Run:
        """Returns a run, whether it was begun or not."""
        config = configs.cell_config(self.config, cell)
        folder = self.directory / "cells" / f"{cell.name}-{configs.digest(config)}"
        return Run(cell, seed, folder / f"seed{seed}")

    def cell(self, name: str) -> Cell:
        """Returns a cell by name.

        Raises:
          InputError: There is none of that name.
        """
        return self.experiment.matching(name)[0]

    def begun(self, cell: Cell) -> list[Run]:
        """Returns the runs of a cell that have a directory, by seed."""
        folder = self.run(cell, 0).directory.parent
        seeds = sorted(int(path.name.removeprefix("seed")) for path in folder.glob("seed*"))
        return [self.run(cell, seed) for seed in seeds]

    def runs(self) -> list[Run]:
        """Returns the runs that were begun; a cell without any stands in with seed 0."""
        return [
            run for cell in self.experiment.cells for run in self.begun(cell) or [self.run(cell, 0)]
        ]


def create(experiment: Experiment, budget: str, config: ConfigDict, directory: Path) -> Sweep:
    """Opens a directory for a sweep, new or begun before under the same configuration.

    Raises:
      InputError: It cannot be written, or holds the results of another configuration.
    """
    manifest = {
        "experiment": experiment.name,
        "budget": budget,
        "config": configs.identity(config),
    }
    try:
        old = _manifest(directory)
        if old is not None and (directory / "cells").exists():
            _refuse_another(old, manifest, directory)
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(directory / "sweep.json", json.dumps(manifest, indent=1))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot write to workdir {directory}: {reason}") from None
    return Sweep(experiment, budget, config, directory)


def open_sweep(directory: Path) -> Sweep:
    """Opens the directory of a sweep to read it.

    Raises:
      InputError: It holds none.
    """
    manifest = _manifest(directory)
    if manifest is None:
        raise InputError(f"{directory} holds no sweep: start one with `run NAME --workdir`")
    experiment = load(manifest["experiment"])
    config = experiment.get_config(manifest["budget"])
    tuples = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in manifest["config"].items()
    }
    configs.assign(config, tuples)
    return Sweep(experiment, manifest["budget"], config, directory)


def _refuse_another(old: dict, new: dict, directory: Path) -> None:
    changes: Sequence[str] = configs.differences(old["config"], new["config"])
    if old["experiment"] != new["experiment"]:
        changes = [f"experiment: {old['experiment']!r}, now {new['experiment']!r}", *changes]
    if changes:
        raise InputError(
            f"{directory} holds results of another configuration ({'; '.join(changes)}): "
            f"choose another --workdir"
        )


def _manifest(directory: Path) -> dict[str, Any] | None:
    return _read_json(directory / "sweep.json")


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
