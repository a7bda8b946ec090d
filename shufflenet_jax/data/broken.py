"""Images that cannot be read: an error, or skipped, up to a share of the data."""

import json
import logging
import numbers
from dataclasses import dataclass
from pathlib import Path

from shufflenet_jax.errors import InputError
from shufflenet_jax.files import write_atomically

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Broken:
    """What is done about broken images. It decides whether a run ends, not in which bits.

    Where a run under "error" ends, no image was broken, and "skip" would have changed nothing. So
    a run that an error ended may go on under "skip".

    Attributes:
      policy: "error" ends the run; "skip" leaves the image out of the loss and of every metric.
        Its place in the batch stays, filled with the mean colour, which batch normalisation sees.
      budget: Under "skip", the greatest share of the files of a split that may be broken.
    """

    policy: str = "error"
    budget: float = 0.01

    def __post_init__(self) -> None:
        if self.policy not in ("error", "skip"):
            raise InputError(f"broken is {self.policy!r}, but must be 'error' or 'skip'")
        if not isinstance(self.budget, numbers.Real) or not 0 <= self.budget < 1:
            raise InputError(f"broken_budget is {self.budget!r}, but must be in [0, 1)")

    def skipped(self, split: str, num_examples: int, directory: Path) -> "Skipped | None":
        """Returns what receives the skipped images of a split; None if none may be skipped."""
        if self.policy == "error":
            return None
        return Skipped(split, num_examples, self.budget, directory)


NEVER_SKIPPED = Broken()


class Skipped:
    """The broken images of one split; each is named once in the log.

    A file remembers them. An image that is met again, in another epoch or by a run that was
    resumed, changes nothing, so that neither decides when the budget is spent.

    Args:
      split: "train" or "test".
      num_examples: Of the split.
      budget: The share of them that may be broken.
      directory: Receives skipped_SPLIT.json, a list of keys.
    """

    def __init__(self, split: str, num_examples: int, budget: float, directory: Path):
        self._split, self._num_examples, self._budget = split, num_examples, budget
        self._path = directory / f"skipped_{split}.json"
        self._keys = self._read()

    def _read(self) -> list[str]:
        try:
            return list(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return []
        except (ValueError, TypeError):
            _log.warning("%s is damaged; broken images are counted anew", self._path.name)
            return []

    def add(self, key: str) -> None:
        """Adds an image by its key.

        Raises:
          InputError: More images are broken than the budget allows.
        """
        if key not in self._keys:
            self._keys.append(key)
            write_atomically(self._path, json.dumps(self._keys, indent=1))
            _log.warning("skipped a broken image: %s", key)
        if len(self._keys) > self._budget * self._num_examples:
            raise InputError(
                f"{len(self._keys)} of {self._num_examples} {self._split} images are broken, more "
                f"than a share of {self._budget:g}; one is {key}"
            )
