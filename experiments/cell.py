"""One run in one process: trains a cell with a seed, and leaves a record of how it ended."""

import contextlib
import dataclasses
import json
import os
import platform
import socket
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from experiments import compile_cache, provenance
from experiments import config as configs
from experiments.lock import hold
from experiments.workdir import Run, Sweep
from shufflenet_jax import data
from shufflenet_jax.complexity import complexity
from shufflenet_jax.files import write_atomically
from shufflenet_jax.fit import Diverged, Progress, fit

_PACKAGES = ("shufflenet-jax", "jax", "jaxlib", "flax", "optax", "grain", "orbax-checkpoint")


def train(sweep: Sweep, run: Run) -> str:
    """Trains a run to its end, unless it has one, and returns its status.

    Raises:
      Held: Another process is training it.
    """
    run.directory.mkdir(parents=True, exist_ok=True)
    with hold(run.directory / "lock"):
        if run.status in ("done", "diverged"):
            return run.status
        with contextlib.suppress(FileNotFoundError):  # of an earlier failure
            (run.directory / "result.json").unlink()
        _write(run.directory / "config.json", configs.identity(_config(sweep, run)))
        _record_attempt(run)
        started = time.monotonic()
        compile_cache.enable()
        try:
            outcome = _fit(sweep, run)
        except Diverged as diverged:
            outcome = {"status": "diverged", "step": diverged.step, "reason": str(diverged)}
        except Exception as error:
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            outcome = {
                "status": "failed",
                "step": run.progress["step"],
                "reason": reason,
                "traceback": traceback.format_exc(),
            }
        outcome["seconds_of_last_attempt"] = round(time.monotonic() - started, 1)
        run.end(outcome)
        return outcome["status"]


def _fit(sweep: Sweep, run: Run) -> dict[str, Any]:
    config = _config(sweep, run)
    dataset = data.load(config.data.name, configs.data_dir_of(config))
    recipe = configs.recipe_of(config)
    network = configs.network_of(config, dataset.num_classes, run.seed)

    def report(progress: Progress) -> None:
        _write(run.directory / "progress.json", dataclasses.asdict(progress))

    evaluation = fit(
        network,
        dataset,
        recipe,
        seed=run.seed,
        directory=run.directory,
        intervals=configs.intervals_of(config),
        num_workers=config.data.workers,
        broken=configs.broken_of(config),
        on_progress=report,
    )
    size = recipe.preprocessing.image_size
    return {
        "status": "done",
        "step": recipe.steps(len(dataset.train)),
        **dataclasses.asdict(evaluation),
        "network": {
            "widths": network.widths,
            **dataclasses.asdict(complexity(network, (size, size, 3))),
        },
    }


def _config(sweep: Sweep, run: Run):
    return configs.cell_config(sweep.config, run.cell)


def _record_attempt(run: Run) -> None:
    attempt = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": jax.devices()[0].device_kind,
        "processor": provenance.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": provenance.versions(_PACKAGES),
        "commit": provenance.commit(),
    }
    with (run.directory / "attempts.jsonl").open("a") as file:
        file.write(json.dumps(attempt) + "\n")


def _write(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=1))
