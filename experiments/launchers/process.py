"""A run as a process: the command that trains it, and what is recorded when it dies.

Every launcher starts runs in this way, so that what lies on disk is the same whichever did.
"""

import os
import subprocess
import sys

from experiments import config as configs
from experiments.workdir import Run, Sweep

MALLOC = {
    "GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
    ":glibc.malloc.arena_max=1"
}
"""Environment in which malloc keeps what it was given; a process has to be started with it.

XLA takes and frees the memory of a training step anew each time, more than a gigabyte. By default
glibc gives it back to the system, which then has to clear it again, page by page. Other C libraries
ignore the variable.
"""


def command(sweep: Sweep, run: Run) -> list[str]:
    """The command that trains a run by itself."""
    arguments = ["cell", run.cell.name, "--seed", str(run.seed), "--workdir", str(sweep.directory)]
    if sweep.config.data.dir:
        arguments += ["--data-dir", sweep.config.data.dir]
    arguments += ["--workers", str(sweep.config.data.workers)]
    broken = configs.broken_of(sweep.config)
    arguments += ["--broken", broken.policy, "--broken-budget", str(broken.budget)]
    return [sys.executable, "-m", "experiments", *arguments]


def start(sweep: Sweep, run: Run) -> subprocess.Popen:
    """Starts a run's process, whose output goes to the run's output.log."""
    run.directory.mkdir(parents=True, exist_ok=True)
    environment = MALLOC | os.environ
    with (run.directory / "output.log").open("a") as log:
        return subprocess.Popen(command(sweep, run), stdout=log, stderr=log, env=environment)


def record_death(run: Run, exit_status: int) -> None:
    """Records a process that ended without saying how: out of memory, a crash, a broken import.

    Args:
      exit_status: Of the process; -N if signal N ended it.
    """
    if exit_status == 0 or run.status != "missing":
        return
    died = f"was killed by signal {-exit_status}"
    how = died if exit_status < 0 else f"ended with exit status {exit_status}"
    reason = f"the process {how}"
    run.end({"status": "failed", "step": run.progress["step"], "reason": reason})
