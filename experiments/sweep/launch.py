"""Trains the runs of a sweep with an engine: what is started when, and what is tried again.

The truth lies on disk (`experiments.sweep.workdir`). Several of these may work on one sweep at
once, on one machine or on many: the lock of a run decides who trains it, and the others wait.
"""

import shlex
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from experiments.launchers import HELD, PREEMPTED, Command, Engine, Job
from experiments.sweep.build import limits_of
from experiments.sweep.limits import stalled
from experiments.sweep.run import ENDED, Run
from experiments.sweep.settings import default_settings, of_a_run
from experiments.sweep.workdir import Sweep

POLL_SECONDS = 0.2
AGAIN_SECONDS = 2.0
"""Pause before a run is looked at again that another process holds, or that failed."""

GRACE_SECONDS = 60.0
"""How long processes that were asked to end may take to save."""

_CANCELLED = -15

COMMAND_LINE = (sys.executable, "-P", str(Path(__file__).absolute().parents[1] / "__main__.py"))
"""What starts the command line of this code, by its place.

By name (``-m experiments``) it might be another's: the current folder comes first on the path of a
process, and may have a package of that name. -P takes it off.
"""

MALLOC = {
    "GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
    ":glibc.malloc.arena_max=1"
}
"""Environment in which malloc keeps what it was given; a process has to be started with it.

XLA takes and frees the memory of a training step anew each time, more than a gigabyte. By default
glibc gives it back to the system, which then has to clear it again, page by page. Other C libraries
ignore the variable.
"""


def options_of(
    engine: Engine, sweep: Sweep, networks: Path | None = None, profile_steps: int = 0
) -> list[str]:
    """What the command of every run is told: settings that are not the usual ones, and more.

    Args:
      engine: What runs the commands.
      sweep: The sweep.
      networks: The file that defines networks of the user's own.
      profile_steps: Steps that each run traces.
    """
    usual = default_settings()
    options = [
        f"--config.{key}={value}"
        for key, value in sorted(of_a_run(sweep.settings).items())
        if usual[key] != value
    ]
    if networks is not None:
        options = ["--networks", str(networks), *options]
    if profile_steps:
        options = ["--profile", str(profile_steps), *options]
    return ["--distributed", *options] if engine.distributed else options


def argv_of(sweep: Sweep, run: Run, options: Sequence[str] = ()) -> list[str]:
    """The command that trains a run by itself."""
    arguments = ["cell", run.cell.name, "--seed", str(run.seed), "--workdir", str(sweep.directory)]
    return [*COMMAND_LINE, *arguments, *options]


def dry_run(sweep: Sweep, runs: Iterable[Run], options: Sequence[str]) -> str:
    """What `launch` would start, a line a run: its name, how it stands, and its command."""
    return "\n".join(
        f"{run.name}  {run.status}  {shlex.join(argv_of(sweep, run, options))}" for run in runs
    )


def launch(
    engine: Engine,
    sweep: Sweep,
    runs: Sequence[Run],
    on_change: Callable[[], None],
    options: Sequence[str],
) -> None:
    """Trains runs; returns when each has ended, or the sweep was asked to stop.

    A damaged run is trained again, from its last intact checkpoint; its damaged result is set
    aside (`Run.reopen`).

    When it is interrupted itself, it asks what it has started to save and end.

    Args:
      engine: What runs the commands.
      sweep: The sweep that the runs are of.
      runs: What to train, in this order.
      on_change: Called a few times a second, to show how things stand.
      options: What their commands are told; see `options_of`.
    """
    work = _Work(engine, sweep, runs, options)
    try:
        while work.remains and not sweep.is_stopping:
            work.advance()
            on_change()
            time.sleep(POLL_SECONDS)
    finally:
        work.stop()
        engine.close()


class _Work:
    """Runs that wait, and runs that were given to the engine."""

    def __init__(self, engine: Engine, sweep: Sweep, runs: Sequence[Run], options: Sequence[str]):
        self._engine, self._sweep = engine, sweep
        self._options = options
        self._retries = limits_of(sweep.settings).retries
        self._waiting = deque(runs)
        self._later: list[tuple[float, Run]] = []  # with the time from which they wait again
        self._active: dict[Run, Job] = {}
        self._failures: Counter[Run] = Counter()

    @property
    def remains(self) -> bool:
        """Whether some run has not ended."""
        return bool(self._waiting or self._later or self._active)

    def advance(self) -> None:
        """Looks after what has ended, then starts what may."""
        for run, job in list(self._active.items()):
            exit_status = job.poll()
            if exit_status is not None:
                del self._active[run]
                self._settle(run, exit_status)
        now = time.monotonic()
        self._waiting += [run for due, run in self._later if due <= now]
        self._later = [(due, run) for due, run in self._later if due > now]
        batch = self._next()
        if batch:
            jobs = self._engine.submit([self._command(run) for run in batch])
            self._active |= zip(batch, jobs, strict=True)

    def stop(self) -> None:
        """Asks what runs to save and end, and waits for it, but not for ever."""
        for job in self._active.values():
            job.stop()
        deadline = time.monotonic() + GRACE_SECONDS
        jobs = list(self._active.values())
        while jobs and time.monotonic() < deadline:
            jobs = [job for job in jobs if job.poll() is None]
            time.sleep(POLL_SECONDS)
        for job in jobs:
            job.kill()

    def _next(self) -> list[Run]:
        """Runs to start now. What another process trains is looked at again later."""
        batch: list[Run] = []
        while self._waiting and len(self._active) + len(batch) != self._engine.slots:
            run = self._waiting.popleft()
            status = run.status
            if status == "running":
                self._again(run)
            elif status in ("done", "diverged"):
                continue
            else:
                batch.append(run)
        return batch

    def _settle(self, run: Run, exit_status: int) -> None:
        """Decides what becomes of a run whose command has ended."""
        if exit_status in (HELD, PREEMPTED):
            self._again(run)
        elif exit_status != _CANCELLED:  # which stays as it is
            record_death(run, exit_status)
            result = run.result
            if result is None:  # of a process that died where its lock cannot be judged yet
                self._again(run)
            elif result["status"] == "failed" and result.get("transient"):
                self._failures[run] += 1
                if self._failures[run] <= self._retries:
                    self._again(run)

    def _again(self, run: Run) -> None:
        self._later.append((time.monotonic() + AGAIN_SECONDS, run))

    def _command(self, run: Run) -> Command:
        run.directory.mkdir(parents=True, exist_ok=True)
        argv = tuple(argv_of(self._sweep, run, self._options))
        return Command(run.name, argv, MALLOC, run.directory / "output.log")


def record_death(run: Run, exit_status: int) -> None:
    """Records a process that ended without saying how: out of memory, a crash, a broken import.

    Args:
      run: What it trained.
      exit_status: Of the process; -N if signal N ended it.
    """
    if run.status in (*ENDED, "running"):
        return
    if stalled(run.stall):
        reason, transient = f"no step was taken for too long; {run.stall.name} says where", True
    elif exit_status < 0:
        reason, transient = f"the process was killed by signal {-exit_status}", True
    else:
        reason, transient = f"the process ended with exit status {exit_status}", False
    step = run.progress["step"]
    run.end({"status": "failed", "step": step, "reason": reason, "transient": transient})
