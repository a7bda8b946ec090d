"""Runs cells on this machine: a bounded number of processes, each on its share of the cores."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from experiments.launchers import process
from experiments.workdir import Run, Sweep

POLL_SECONDS = 0.2


@dataclass
class _Job:
    run: Run
    cores: list[int]
    process: subprocess.Popen


@dataclass(frozen=True)
class Local:
    """Processes of this machine.

    Attributes:
      jobs: How many at a time.
    """

    jobs: int

    def launch(self, sweep: Sweep, runs: Sequence[Run], on_change: Callable[[], None]) -> None:
        """See `Launcher.launch`."""
        waiting, active = list(runs), []
        free = _shares(sorted(os.sched_getaffinity(0)), min(self.jobs, len(waiting)))
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
                    process.record_death(job.run, job.process.returncode)
                on_change()


def default_jobs() -> int:
    """A process a core: small networks gain less from a second core than from a second cell.

    One at a time where there is a GPU, which one process fills.
    """
    return 1 if Path("/dev/nvidia0").exists() else len(os.sched_getaffinity(0))


def _kill(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        job.process.kill()
        job.process.wait()


def _start(sweep: Sweep, run: Run, cores: list[int]) -> subprocess.Popen:
    started = process.start(sweep, run)
    # Set from outside before JAX counts the cores to size its thread pool.
    os.sched_setaffinity(started.pid, cores)
    return started


def _shares(cores: list[int], jobs: int) -> list[list[int]]:
    """Deals cores out to jobs; more jobs than cores share them."""
    if jobs >= len(cores):
        return [[cores[i % len(cores)]] for i in range(jobs)]
    return [cores[i::jobs] for i in range(jobs)]
