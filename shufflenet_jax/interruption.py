"""Whether a run shall end early, on which all of its processes agree."""

import time
from collections.abc import Callable

import jax

from shufflenet_jax.devices import gather

SECONDS = 2.0
"""About how long a run of several processes goes on between two questions to all of them."""


class Interruption:
    """Asks whether to end now: a single process at every call, several together now and then.

    One of several learns from the others only by a question that all ask at the same call, and for
    which every device waits. How many calls lie between two questions is settled by the one before,
    from what the lead process has measured. It begins with 1, and at most doubles each time, so
    that calls of an unusual length, such as those that compile, do not decide it for long.

    All processes of a run call it equally often.

    Args:
      asked: Whether this process was asked to end. Asked at every call; a yes stays.
      clock: The time in seconds.
    """

    def __init__(
        self, asked: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._asked, self._clock = asked, clock
        self._flag = False
        self._calls, self._interval, self._next_interval = 0, 1, 1
        self._since = clock()

    def __call__(self) -> bool:
        """Whether to end now; the same in all processes."""
        self._flag = self._asked() or self._flag
        if jax.process_count() == 1:
            return self._flag
        self._calls += 1
        if self._calls < self._interval:
            return False
        flags, intervals = gather([self._flag, self._next_interval]).T
        # Devices work behind the calls, but not behind this answer. So the time is taken here, and
        # what follows from it is told to the others by the next question.
        now = self._clock()
        fitting = SECONDS * self._calls / max(now - self._since, 1e-9)
        self._interval = int(intervals[0])
        self._next_interval = int(max(1, min(fitting, 2 * self._interval)))
        self._calls, self._since = 0, now
        return bool(flags.any())
