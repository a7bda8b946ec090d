"""What a run has come to: its state and its metrics, written down as it goes."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from types import MappingProxyType

import jax
from jaxtyping import Array

from shufflenet_jax.checkpoint import Checkpoints, Metrics, Restored
from shufflenet_jax.metrics import Row


class Diverged(Exception):
    """The loss was no longer a number."""

    def __init__(self, step: int):
        super().__init__(f"the loss was not finite at step {step}")
        self.step = step


class Preempted(Exception):
    """The run was asked to end early; it is saved at a step and goes on from there."""

    def __init__(self, step: int):
        super().__init__(f"preempted at step {step}")
        self.step = step


class Record:
    """What a run has come to, and where that is kept.

    Args:
      restored: What it begins with.
      checkpoints: Receives the state, the rows and the window.
      logs: Receive the rows, and what is written aside; none in a process that does not write.
      interruption: Whether to end now.

    Attributes:
      state: Of the present step.
      rows: All rows of metrics.
      window: Metrics of the steps since the last row of training, on the device still.
    """

    def __init__(
        self,
        restored: Restored,
        checkpoints: Checkpoints,
        logs: Sequence[Callable[[Row, Mapping[str, float]], None]],
        interruption: Callable[[], bool],
    ):
        self.state, self.rows = restored.state, restored.rows
        self.window: list[Mapping[str, Array | float]] = [*restored.window]
        self._checkpoints, self._logs, self._interruption = checkpoints, logs, interruption
        self._saved = int(self.state.step)

    def write(
        self,
        step: int,
        split: str,
        values: Mapping[str, float | int],
        aside: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Adds a row; what is written aside is no part of it (`MetricsLog.write`)."""
        row: Row = {"step": step, "split": split, **values}
        self.rows.append(row)
        for log in self._logs:
            log(row, aside)

    def has_test_at(self, step: int) -> bool:
        """Whether there is a row of an evaluation at a step."""
        return any(row["step"] == step and row["split"] == "test" for row in self.rows)

    def summarise(self, step: int) -> Metrics:
        """Empties the window, and returns the mean of each metric over the steps in it.

        Of the images that were skipped, it is the sum.

        Args:
          step: The last one of the window.

        Raises:
          Diverged: The loss was not finite at one of them.
        """
        steps, self.window = _finite(self.window, step), []
        skipped = sum(each.get("skipped", 0) for each in steps)
        names = [name for name in steps[0] if name != "skipped"]
        means = {name: fmean(each[name] for each in steps) for name in names}
        return means | {"skipped": int(skipped)}

    def save(self) -> None:
        """Saves the present step.

        Raises:
          Diverged: The loss was not finite at one of the window.
        """
        self._saved = int(self.state.step)
        self._checkpoints.save(self.state, self.rows, _finite(self.window, self._saved))

    def go_on_or_save(self) -> None:
        """Raises Preempted when interrupted, once the present step is saved."""
        if self._interruption():
            step = int(self.state.step)
            if step > self._saved:
                self.save()
            raise Preempted(step)


def _finite(window: Sequence[Mapping[str, Array | float]], last_step: int) -> list[Metrics]:
    """The metrics of consecutive steps as numbers.

    Raises:
      Diverged: A loss is not finite.
    """
    rows = [
        {name: float(value) for name, value in metrics.items()}
        for metrics in jax.device_get(window)
    ]
    for step, row in enumerate(rows, last_step - len(rows) + 1):
        if not math.isfinite(row["loss"]):
            raise Diverged(step)
    return rows
