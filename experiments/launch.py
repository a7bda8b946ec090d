"""Runs cells on this machine: a bounded number of processes, each on its share of the cores."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from experiments.workdir import Run, Sweep

POLL_SECONDS = 0.2

MALLOC = {
    "GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
    ":glibc.malloc.arena_max=1"
}
"""Environment in which malloc keeps what it was given; a process has to be started with it.

XLA takes and frees the memory of a training step anew each time, more than a gigabyte. By default
glibc gives it back to the system, which then has to clear it again, page by page. Other C libraries
ignore the variable.
"""


@dataclass
class _Job:
    run: Run
    cores: list[int]
    process: subprocess.Popen


def default_jobs() -> int:
    """A process a core: small networks gain less from a second core than from a second cell.

    One at a time where there is a GPU, which one process fills.
    """
    return 1 if Path("/dev/nvidia0").exists() else len(os.sched_getaffinity(0))


def launch(sweep: Sweep, runs: Sequence[Run], jobs: int, on_change: Callable[[], None]) -> None:
    """Trains runs that have not ended; returns when each has ended or failed to.

    Args:
      sweep: The sweep that the runs are of.
      runs: What to train, in this order.
      jobs: Processes at a time.
      on_change: Called a few times a second, to show how things stand.
    """
    waiting, active = list(runs), []
    free = _shares(sorted(os.sched_getaffinity(0)), min(jobs, len(waiting)))
    with ExitStack() as stack:
        stack.callback(_kill, active)
        while waiting or active:
            while waiting and free:
                run, cores = waiting.pop(0), free.pop(0)
                active.append(_Job(run, cores, _start(sweep, run, cores)))
            time.sleep(POLL_SECONDS)
            for job in [job for job in active if job.process.poll() is not None]:
                active.remove(job)
                free.append(job.cores)
                _record_death(job)
            on_change()


def _kill(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        job.process.kill()
        job.process.wait()


def _record_death(job: _Job) -> None:
    """Records a process that ended without saying how: out of memory, a crash, a broken import."""
    code = job.process.returncode
    if code == 0 or job.run.status != "missing":
        return
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit status {code}"
    reason = f"the process {how}"
    job.run.end({"status": "failed", "step": job.run.progress["step"], "reason": reason})


def command(sweep: Sweep, run: Run) -> list[str]:
    """The command that trains a run by itself."""
    arguments = ["cell", run.cell.name, "--seed", str(run.seed), "--workdir", str(sweep.directory)]
    if sweep.config.data.dir:
        arguments += ["--data-dir", sweep.config.data.dir]
    arguments += ["--workers", str(sweep.config.data.workers)]
    return [sys.executable, "-m", "experiments", *arguments]


def _start(sweep: Sweep, run: Run, cores: list[int]) -> subprocess.Popen:
    run.directory.mkdir(parents=True, exist_ok=True)
    environment = MALLOC | os.environ
    with (run.directory / "output.log").open("a") as log:
        process = subprocess.Popen(command(sweep, run), stdout=log, stderr=log, env=environment)
    # Set from outside before JAX counts the cores to size its thread pool.
    os.sched_setaffinity(process.pid, cores)
    return process


def _shares(cores: list[int], jobs: int) -> list[list[int]]:
    """Deals cores out to jobs; more jobs than cores share them."""
    if jobs >= len(cores):
        return [[cores[i % len(cores)]] for i in range(jobs)]
    return [cores[i::jobs] for i in range(jobs)]
