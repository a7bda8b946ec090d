"""One run in one process, or in several: trains a cell with a seed, and leaves a record of it."""

import contextlib
import dataclasses
import errno
import json
import os
import platform
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from experiments.launchers import HELD
from experiments.sweep import compile_cache, provenance
from experiments.sweep import configuration as configs
from experiments.sweep.limits import watch
from experiments.sweep.lock import Held, hold
from experiments.sweep.run import Run, check_own
from experiments.sweep.workdir import Sweep
from shufflenet_jax import data
from shufflenet_jax.complexity import complexity
from shufflenet_jax.devices import from_lead, is_lead
from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically
from shufflenet_jax.fit import Diverged, Preempted, Progress, fit

_PACKAGES = ("shufflenet-jax", "jax", "jaxlib", "flax", "optax", "grain", "orbax-checkpoint")
_STOP_SECONDS = 1.0

_MAY_PASS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EAGAIN,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
)


def train(sweep: Sweep, run: Run, interruption: Callable[[], bool] = lambda: False) -> str:
    """Trains a run to its end, unless it has one; returns its status, or "preempted".

    Where JAX knows several processes, all of them call it; the lead one holds the lock and writes.

    Args:
      sweep: The sweep.
      run: What to train.
      interruption: Whether the process was asked to end.

    Raises:
      Held: Another process is training it.
      InputError: Its directory holds another configuration, or leads outside the sweep's.
    """
    with _claim(sweep, run), _watch(sweep, run) as alive:
        if from_lead(int(run.status in ("done", "diverged"))):
            return run.status

        def interrupted() -> bool:
            alive()
            return interruption()

        identity = configs.identity(configs.cell_config(sweep.config, run.cell))
        _check_configuration(run, identity)
        compile_cache.enable()
        if not is_lead():
            return _outcome(sweep, run, interrupted)["status"]
        run.reopen()
        _write(run.directory / "config.json", identity)
        with _attempt(run) as attempt:
            outcome = _outcome(sweep, run, interrupted)
            attempt["ended"] = outcome["status"]
        if outcome["status"] != "preempted":
            run.end(outcome)
        return outcome["status"]


@contextlib.contextmanager
def asked_to_end(sweep: Sweep) -> Iterator[Callable[[], bool]]:
    """Yields whether this process was asked to end: by SIGTERM or SIGINT, or with its sweep."""
    asked = False
    looked = 0.0

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True

    def is_asked() -> bool:
        nonlocal asked, looked
        if not asked and time.monotonic() - looked > _STOP_SECONDS:
            looked = time.monotonic()
            asked = sweep.is_stopping
        return asked

    before = {each: signal.signal(each, ask) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield is_asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextlib.contextmanager
def _claim(sweep: Sweep, run: Run) -> Iterator[None]:
    """Holds the run's lock, for all processes that train it together."""
    with contextlib.ExitStack() as stack:
        held = False
        if is_lead():
            check_own(run, sweep.directory)
            run.directory.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(hold(run.lock, on_loss=_leave))
            except Held:
                held = True
        if from_lead(int(held)):
            raise Held(run.lock)
        yield


def _watch(sweep: Sweep, run: Run) -> AbstractContextManager[Callable[[], None]]:
    """Ends this process if it stalls; see `experiments.sweep.limits.watch`."""
    path = run.stall if is_lead() else run.directory / f"stall{jax.process_index()}.txt"
    return watch(path, configs.limits_of(sweep.config).stall_minutes)


def _leave() -> None:
    """Ends this process at once: another one has taken over what it was writing."""
    os._exit(HELD)


def _check_configuration(run: Run, identity: dict[str, Any]) -> None:
    path = run.directory / "config.json"
    try:
        old = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return
    changes = configs.differences(old, identity)
    if changes:
        raise InputError(
            f"{run.directory} was begun with another configuration ({'; '.join(changes)})"
        )


def _outcome(sweep: Sweep, run: Run, interrupted: Callable[[], bool]) -> dict[str, Any]:
    """Trains, and says how it ended; no exception gets by."""
    try:
        return _fit(sweep, run, interrupted)
    except Diverged as diverged:
        return {"status": "diverged", "step": diverged.step, "reason": str(diverged)}
    except Preempted as preempted:
        return {"status": "preempted", "step": preempted.step, "reason": str(preempted)}
    except Exception as error:
        traceback.print_exc()
        lines = f"{type(error).__name__}: {error}".splitlines()
        return {
            "status": "failed",
            "step": run.progress["step"],
            "reason": lines[0],
            "transient": may_pass(error),
            "traceback": traceback.format_exc(),
        }


def may_pass(error: BaseException) -> bool:
    """Whether a failure may be gone when the run is tried again.

    So may a full disk, a file system that was away and memory that ran out, and nothing else that
    Python can report.
    """
    chain = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(following)
    return any(_passes(each) for each in chain)


def _passes(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _MAY_PASS
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def _fit(sweep: Sweep, run: Run, interrupted: Callable[[], bool]) -> dict[str, Any]:
    config = configs.cell_config(sweep.config, run.cell)
    dataset = data.load(config.data.name, configs.data_dir_of(config))
    recipe = configs.recipe_of(config)
    network = configs.network_of(config, dataset.num_classes, run.seed)

    def report(progress: Progress) -> None:
        if is_lead():
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
        interrupted=interrupted,
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


@contextlib.contextmanager
def _attempt(run: Run) -> Iterator[dict[str, Any]]:
    """Records where, when and with what this process trains; yields the record, to be added to."""
    number, began = run.num_attempts + 1, time.monotonic()
    attempt = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processor": provenance.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": provenance.versions(_PACKAGES),
        "commit": provenance.commit(),
    }
    run.record_attempt(number, attempt)
    yield attempt
    attempt["seconds"] = round(time.monotonic() - began, 1)
    run.record_attempt(number, attempt)


def _write(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=1))
