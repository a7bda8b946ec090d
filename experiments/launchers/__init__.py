"""What trains the runs of a sweep: processes of this machine, or a cluster's.

The truth lies on disk (`experiments.workdir`): a launcher only starts processes, and a sweep begun
with one can be finished with another.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from experiments.workdir import Run, Sweep


class Launcher(Protocol):
    """One way to start processes."""

    def launch(self, sweep: Sweep, runs: Sequence[Run], on_change: Callable[[], None]) -> None:
        """Trains runs that have not ended; returns when each has ended or failed to.

        Args:
          sweep: The sweep that the runs are of.
          runs: What to train, in this order.
          on_change: Called a few times a second, to show how things stand.
        """
