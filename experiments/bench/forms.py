"""Which form of a peer is measured: of those that compute what ours does, the fastest here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from experiments.bench.measure import in_a_line, in_turns
from experiments.bench.peers import Forms, Prepared

ROUNDS = 3
"""Turns of each form before one is chosen."""


@dataclass(frozen=True)
class Choice:
    """How the forms of one peer did in one workload.

    Attributes:
      form: The fastest; empty if all failed.
      milliseconds: Median of a few turns of each that did not fail, if those are several.
      failures: Why each of the others failed.
    """

    form: str = ""
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)


def choose(
    forms: Forms, expected: Sequence[np.ndarray], tolerance: float
) -> tuple[Choice, Prepared | None]:
    """Prepares each form, compares what it computes, and lets those that are right take turns.

    Args:
      forms: At least one.
      expected: Results of ours.
      tolerance: How far from them results may be, as `difference` has it.

    Returns:
      The choice, and the workload in the form that was chosen; None if all failed.
    """
    ready: dict[str, Prepared] = {}
    failures = {}
    for name, prepare in forms.items():
        try:
            prepared = prepare()
            apart = difference(expected, first_results(prepared))
        except Exception as error:  # whatever another framework may raise
            failures[name] = in_a_line(error)
            continue
        if apart <= tolerance:
            ready[name] = prepared
        else:  # also where it is not a number
            failures[name] = f"its results are {apart:.1g} from ours, more than {tolerance:g}"
    if not ready:
        return Choice(failures=failures), None
    best, milliseconds = next(iter(ready)), {}
    if len(ready) > 1:
        times = in_turns({name: prepared.run for name, prepared in ready.items()}, ROUNDS)
        milliseconds = {name: median(taken) for name, taken in times.items()}
        best = min(ready, key=milliseconds.__getitem__)
    return Choice(best, milliseconds, failures), ready[best]


def difference(results: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    """The largest difference of any value, relative to the largest value of its array."""
    return max(
        float(np.abs(mine - theirs).max() / np.abs(mine).max())
        for mine, theirs in zip(results, others, strict=True)
    )


def first_results(prepared: Prepared) -> list[np.ndarray]:
    """The results of three runs: the losses of three training steps, or three times the same."""
    return [array for _ in range(3) for array in prepared.result(prepared.run())]
