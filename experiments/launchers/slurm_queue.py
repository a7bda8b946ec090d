"""What Slurm says of this user's jobs, and what it is asked to do with them."""

import os
import subprocess
import time

MIN_POLL_SECONDS = 2.0
_MAX_POLL_SECONDS = 30.0
_ANSWER_SECONDS = 60.0

TAKEN = {"BOOT_FAIL", "DEADLINE", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}
ENDED = {"CANCELLED", "COMPLETED", "FAILED", *TAKEN}
GONE = "GONE"
"""The state of a job that the controller does not list: it forgets those that have ended."""


class Queue:
    """The jobs of this user, as `squeue` lists them, and requests to end some.

    One call serves all jobs. It is made every two seconds at first, less often while nothing
    happens. Requests are gathered until the next one, as each costs the controller some work.
    """

    def __init__(self) -> None:
        self._states: dict[str, str] | None = None
        self._stopping: set[str] = set()
        self._killing: set[str] = set()
        self.forget()

    def state(self, number: str) -> str | None:
        """State of a job; None if Slurm does not answer."""
        self._refresh()
        return None if self._states is None else self._states.get(number, GONE)

    def live_arrays(self) -> set[str] | None:
        """Numbers of the arrays, or single jobs, that have not ended; None without an answer."""
        self._refresh()
        if self._states is None:
            return None
        return {
            number.partition("_")[0] for number, state in self._states.items() if state not in ENDED
        }

    def stop(self, number: str) -> None:
        """Has a job save and end, or takes it out of the queue."""
        self._stopping.add(number)
        self.forget()

    def kill(self, number: str) -> None:
        """Cancels a job."""
        self._killing.add(number)
        self.forget()

    def forget(self) -> None:
        """Makes the next question be asked: something has changed."""
        self._states, self._asked_at, self._changed_at = None, float("-inf"), time.monotonic()

    def flush(self) -> set[str]:
        """Sends the requests that were gathered; returns those jobs of which Slurm heard none."""
        if self._stopping or self._killing:
            self._ask()
        return self._stopping | self._killing

    def _refresh(self) -> None:
        now = time.monotonic()
        quiet = (now - self._changed_at) / 10
        if now - self._asked_at > min(max(quiet, MIN_POLL_SECONDS), _MAX_POLL_SECONDS):
            self._ask()

    def _ask(self) -> None:
        mine = ("--states=all", "--array", f"--user={os.getuid()}")
        listed = output_of("squeue", "--noheader", *mine, "--format=%i %T")
        before, self._asked_at = self._states, time.monotonic()
        if listed is None:
            self._states = None
            return
        self._states = dict(line.split() for line in listed.splitlines())
        if self._states != before:
            self._changed_at = self._asked_at
        self._send(self._states)

    def _send(self, states: dict[str, str]) -> None:
        waiting = {number for number in self._stopping if states.get(number) == "PENDING"}
        # Not scancel --state=PENDING, which takes all that waits of an element's array.
        _scancel(self._killing | waiting)
        _scancel(self._stopping - waiting, "--ctld", "--state=RUNNING", "--signal=TERM")
        self._killing.clear()
        self._stopping.clear()


def _scancel(numbers: set[str], *options: str) -> None:
    # It fails if one of them has ended, or waits, but serves the others.
    if numbers:
        output_of("scancel", *options, *sorted(numbers))


def output_of(*command: str) -> str | None:
    """What a command of Slurm prints; None if it fails."""
    # The user's defaults, such as a partition whose jobs squeue is to show, are not meant for this.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SQUEUE_", "SCANCEL_"))}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, env=kept
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None
