"""What a run may use up before it is given up."""

import faulthandler
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from shufflenet_jax.errors import InputError

_MOST_MINUTES = 525_600  # a year; no clock of the system takes any number


@dataclass(frozen=True)
class Limits:
    """Bounds of one run.

    Attributes:
      retries: How often a run is tried again after a failure that may pass: a process that died, a
        disk that was full, memory that ran out, a stall. What would fail again, such as an error in
        the code, is not tried again.
      stall_minutes: A run that takes no step for so long is ended; finding the data and compiling
        count as no step.
    """

    retries: int = 2
    stall_minutes: float = 30.0

    def __post_init__(self) -> None:
        is_count = isinstance(self.retries, int) and not isinstance(self.retries, bool)
        if not is_count or self.retries < 0:
            raise InputError(
                f"limits.retries must be at least 0, in whole numbers, not {self.retries!r}"
            )
        minutes = self.stall_minutes
        is_number = isinstance(minutes, int | float) and not isinstance(minutes, bool)
        if not is_number or not 0 < minutes <= _MOST_MINUTES:
            raise InputError(
                f"limits.stall_minutes must be above 0 and at most {_MOST_MINUTES:,}, "
                f"not {minutes!r}"
            )


@contextmanager
def watch(path: Path, minutes: float) -> Iterator[Callable[[], None]]:
    """Ends this process if it stalls inside the block; yields a sign of life to be given.

    The watch is a thread of C that needs no lock of the interpreter, so that it also ends a process
    that hangs in a library, with exit status 1.

    Args:
      path: Receives where each thread stood; empty, or not there, if it did not stall.
      minutes: The longest time between two signs of life.
    """
    with path.open("w") as file:
        armed = 0.0

        def alive() -> None:
            nonlocal armed
            if monotonic() - armed > 0.5:  # arming starts a thread
                armed = monotonic()
                faulthandler.dump_traceback_later(60 * minutes, exit=True, file=file)

        alive()
        try:
            yield alive
        finally:
            faulthandler.cancel_dump_traceback_later()
    path.unlink()


def stalled(path: Path) -> bool:
    """Whether a watch with this path has ended its process."""
    return path.exists() and path.stat().st_size > 0
