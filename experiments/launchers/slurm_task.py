"""What a job of Slurm runs: a command, whose exit status it leaves in a file and becomes its own.

It imports nothing of the library: JAX belongs to the command, and a job's memory as well.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from experiments.launchers import Command
from experiments.launchers.parent import ENDS_WITH_PARENT

OUT_OF_TIME = signal.SIGUSR2
"""The signal that Slurm is asked to send some time before a job's limit."""


def run(command: Command, status: Path) -> NoReturn:
    """Runs a command and ends this process with its exit status.

    Slurm has two ways to ask a job to end, and sends both signals to all processes of it. SIGTERM
    comes when it takes the job's nodes away, or was told to; whether the job is queued again is
    its own decision. `OUT_OF_TIME` comes before the job's time is up: then the command gets
    SIGTERM, so that it saves, and Slurm is asked to queue the job again, if it may do so.

    Args:
      command: What to run.
      status: Receives the exit status as text, -N if signal N ended the command. It is not there
        while the command runs, also not that of an earlier time.
    """
    leads = os.environ["SLURM_PROCID"] == "0"
    if leads:
        status.unlink(missing_ok=True)
    asked = set()
    process = None

    def ask_to_end(number: int, _: object) -> None:
        asked.add(number)
        if number == OUT_OF_TIME and process is not None:
            process.terminate()

    for each in (signal.SIGTERM, OUT_OF_TIME):
        signal.signal(each, ask_to_end)
    environment = {**command.environment, **os.environ, ENDS_WITH_PARENT: str(os.getpid())}
    with command.log.open("a") as log:
        process = subprocess.Popen(
            command.argv,
            stdout=log,
            stderr=log,
            env=environment,
            # It would end a process that knows nothing of it.
            preexec_fn=lambda: signal.signal(OUT_OF_TIME, signal.SIG_IGN),
        )
    if asked:  # before there was a process
        process.terminate()
    ended = process.wait()
    if not leads:  # of the processes of a run the first one says what came of it
        sys.exit(0)
    _write(status, str(ended))
    if OUT_OF_TIME in asked and ended == os.EX_TEMPFAIL:
        with contextlib.suppress(FileNotFoundError):  # a container without it
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]])
    sys.exit(ended if ended >= 0 else 128 - ended)


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)
