"""How often a run logs, evaluates and saves, and at which steps that is."""

import dataclasses
from dataclasses import dataclass

from shufflenet_jax.errors import InputError


@dataclass(frozen=True)
class Intervals:
    """How often things are written. They decide what is known of a run, not how it ends.

    Attributes:
      log: Steps between rows of training metrics.
      evaluate: Epochs between evaluations on the test split; the last step always has one.
      checkpoint: Epochs between checkpoints; the last step always has one.

    Raises:
      InputError: One is no integer, or less than 1.
    """

    log: int = 100
    evaluate: int = 5
    checkpoint: int = 1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{field.name} must be an integer of at least 1, not {value!r}")


DEFAULT_INTERVALS = Intervals()


@dataclass(frozen=True)
class Timetable:
    """The steps at which a run logs, evaluates and saves.

    An epoch ends at the step that first makes up, with those before, all of its images. As batches
    need not divide epochs, and a run ends with the last whole batch, its last epoch may lack a part
    of a batch: the last step stands for its end.

    Attributes:
      intervals: How often.
      num_examples: Images of an epoch.
      batch_size: Images of a step.
      total: Steps of the run.
    """

    intervals: Intervals
    num_examples: int
    batch_size: int
    total: int

    def logs(self, step: int) -> bool:
        """Whether a row of training metrics is due; it is before each checkpoint, too.

        So no row spans a checkpoint, and a run that was killed writes the same rows again.
        """
        return step % self.intervals.log == 0 or self.saves(step)

    def evaluates(self, step: int) -> bool:
        """Whether the evaluation that follows an epoch is due."""
        return self._ends(step, self.intervals.evaluate)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due."""
        return self._ends(step, self.intervals.checkpoint)

    def _ends(self, step: int, epochs: int) -> bool:
        """Whether a step ends a number of epochs, one that epochs divides, or the run."""
        if step == self.total:
            return True
        seen, before = (each * self.batch_size // self.num_examples for each in (step, step - 1))
        return step > 0 and seen // epochs > before // epochs
