"""One run in one process, or in several: trains a cell with a seed, and leaves a record of it."""

import contextlib
import dataclasses
import errno
import json
import os
import platform
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from experiments import trackers
from experiments.launchers import HELD
from experiments.sweep import compile_cache, provenance
from experiments.sweep.build import Training, build, data_dir_of, limits_of
from experiments.sweep.identity import Values, differences, nested
from experiments.sweep.limits import watch
from experiments.sweep.lock import Held, hold
from experiments.sweep.manifest import refuse_other_data
from experiments.sweep.run import Run, check_own
from experiments.sweep.workdir import Sweep
from shufflenet_jax import data
from shufflenet_jax.cost import complexity
from shufflenet_jax.data import Found
from shufflenet_jax.devices import from_lead, is_lead
from shufflenet_jax.errors import InputError
from shufflenet_jax.evaluation import Evaluation
from shufflenet_jax.files import write_atomically
from shufflenet_jax.fit import Diverged, Preempted, Progress, fit
from shufflenet_jax.generation import GENERATION
from shufflenet_jax.metrics import Hyperparameters, Row
from shufflenet_jax.trained import describe

_PACKAGES = (
    *("shufflenet-jax", "jax", "jaxlib", "flax", "optax", "grain", "orbax-checkpoint"),
    *("pillow", "simplejpeg", "cykooz-resizer"),  # they make the pixels
)
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


def train(
    sweep: Sweep,
    run: Run,
    interruption: Callable[[], bool] = lambda: False,
    networks: Path | None = None,
    profile_steps: int = 0,
) -> str:
    """Trains a run to its end, unless it has one; returns its status, or "preempted".

    Where JAX knows several processes, all of them call it; the lead one holds the lock and writes.

    Args:
      sweep: The sweep.
      run: What to train.
      interruption: Whether the process was asked to end.
      networks: The file that defines networks of the user's own, for the record.
      profile_steps: Steps to trace, into profile/ of the run's directory.

    Raises:
      Held: Another process is training it.
      InputError: Its directory holds another configuration or leads outside the sweep's, or the
        data are others than those that it was planned with.
    """
    values = sweep.values_of(run.cell)
    with _claim(sweep, run):
        if from_lead(int(run.status in ("done", "diverged"))):
            return run.status
        compile_cache.enable()
        if is_lead():
            _check_configuration(run, sweep.entries[run.cell.name].values)
            run.reopen()
        outcome: dict[str, Any] = {}
        with _attempt(run, outcome, networks), _ending(run, outcome):
            with _watch(run, values) as alive:

                def interrupted() -> bool:
                    alive()
                    return interruption()

                dataset = _data(sweep, run, values).open()
                alive()
                training = build(values, run.seed, dataset)
                if is_lead():
                    _describe(run, values, training)
                hyperparameters = _hyperparameters(sweep, run)
                with _tracked(sweep, run, values, hyperparameters) as on_row:
                    evaluation = fit(
                        training.network,
                        dataset,
                        training.recipe,
                        seed=run.seed,
                        directory=run.directory,
                        intervals=training.intervals,
                        num_workers=training.num_workers,
                        memory_gb=training.memory_gb,
                        broken=training.broken,
                        hyperparameters=hyperparameters,
                        profile_steps=profile_steps,
                        on_progress=lambda progress: _report(run, progress),
                        on_row=on_row,
                        interrupted=interrupted,
                    )
            outcome |= _done(training, evaluation)
        return outcome["status"]


def _data(sweep: Sweep, run: Run, values: Values) -> Found:
    """Finds the data, and refuses others than the sweep was planned or the run was begun with."""
    name = values["data.name"]
    found = data.find(name, data_dir_of(values), known=sweep.listing(name))
    refuse_other_data(sweep.data_of(run.cell), found.identity)
    path = run.directory / "data.json"
    if (before := _read(path)) is not None:
        refuse_other_data(before, found.identity)
    if is_lead():
        _write(path, found.identity)
    return found


def _describe(run: Run, values: Values, training: Training) -> None:
    """Leaves what it takes to load the trained network."""
    arguments = nested(values)["network"]
    describe(
        run.directory,
        name=arguments.pop("name"),
        arguments=arguments,
        preprocessing=training.recipe.preprocessing,
        class_names=training.dataset.class_names,
    )


def _hyperparameters(sweep: Sweep, run: Run) -> Hyperparameters:
    """What tells runs from others, for those who compare them."""
    values = sweep.entries[run.cell.name].values
    plain = {
        key: value if isinstance(value, str | int | float | bool) else json.dumps(value)
        for key, value in values.items()
    }
    return plain | {"data.name": data.label(values["data.name"]), "seed": run.seed}


def _tracked(
    sweep: Sweep, run: Run, values: Values, hyperparameters: Hyperparameters
) -> AbstractContextManager[Callable[[Row], None]]:
    return trackers.opened(
        values["trackers"] if is_lead() else "",
        run.directory,
        experiment=sweep.experiment,
        name=run.name,
        store=sweep.directory,
        hyperparameters=hyperparameters,
    )


def _report(run: Run, progress: Progress) -> None:
    if is_lead():
        _write(run.directory / "progress.json", dataclasses.asdict(progress))


def _done(training: Training, evaluation: Evaluation) -> dict[str, Any]:
    """The result of a run that has come to its end."""
    size = training.recipe.preprocessing.image_size
    return {
        "status": "done",
        "step": training.recipe.steps(len(training.dataset.train)),
        **dataclasses.asdict(evaluation),
        "network": {
            "widths": list(getattr(training.network, "widths", ())),
            **dataclasses.asdict(complexity(training.network, (size, size, 3))),
        },
    }


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


def _watch(run: Run, values: Values) -> AbstractContextManager[Callable[[], None]]:
    """Ends this process if it stalls; see `experiments.sweep.limits.watch`."""
    path = run.stall if is_lead() else run.directory / f"stall{jax.process_index()}.txt"
    return watch(path, limits_of(values).stall_minutes)


def _leave() -> None:
    """Ends this process at once: another one has taken over what it was writing."""
    os._exit(HELD)


def _check_configuration(run: Run, values: Values) -> None:
    """Records a run's configuration; refuses to go on with another one."""
    path = run.directory / "config.json"
    before = _read(path)
    if before is not None and (changes := differences(before, values)):
        raise InputError(
            f"{run.directory} was begun with another configuration ({'; '.join(changes)})"
        )
    _write(path, values)


@contextlib.contextmanager
def _ending(run: Run, outcome: dict[str, Any]) -> Iterator[None]:
    """Puts into the outcome how the block ended; no exception gets by."""
    try:
        yield
    except Diverged as diverged:
        outcome |= {"status": "diverged", "step": diverged.step, "reason": str(diverged)}
    except Preempted as preempted:
        outcome |= {"status": "preempted", "step": preempted.step, "reason": str(preempted)}
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        outcome |= {
            "status": "failed",
            "step": run.progress["step"],
            "reason": str(error),
            "transient": may_pass(error),
        }
    except Exception as error:
        traceback.print_exc()
        lines = f"{type(error).__name__}: {error}".splitlines()
        outcome |= {
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


@contextlib.contextmanager
def _attempt(run: Run, outcome: dict[str, Any], networks: Path | None) -> Iterator[None]:
    """Records where, when and with what this process trains, and at the end what came of it."""
    if not is_lead():
        yield
        return
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
        "generation": GENERATION,
        **provenance.code(),
    }
    if networks is not None:
        attempt["networks"] = provenance.file(networks)
    run.record_attempt(number, attempt)
    yield
    attempt |= {"ended": outcome["status"], "seconds": round(time.monotonic() - began, 1)}
    run.record_attempt(number, attempt)
    if outcome["status"] != "preempted":
        run.end(outcome)


def _read(path: Path) -> dict[str, Any] | None:
    """What an earlier process wrote; None if none did, or if a crash of the machine tore it."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _write(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=1))
