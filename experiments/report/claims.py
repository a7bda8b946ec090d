"""Judges what the paper says of a table by what was measured."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, variance

from scipy import stats

from experiments.sweep.experiment import Claim, Contrast

LEVEL = 0.05
"""Significance at which a difference counts."""


def judge(claim: Claim, errors: Mapping[str, Sequence[float]]) -> str:
    """Returns "holds", "does not" or "undecided".

    A claim is a set of contrasts, weighted sums of cell means, that must all be above zero. It
    holds if each is significantly so (one-sided Welch tests; all must pass, so that no correction
    is due). It does not if any is significantly below zero (Bonferroni-corrected). Else, and
    wherever a cell has fewer than two seeds, it is undecided.

    Args:
      claim: The claim.
      errors: Errors of each cell by name, one a seed.
    """
    try:
        contrasts = claim.contrasts({name: fmean(each) for name, each in errors.items() if each})
    except KeyError:  # a cell that is missing
        return "undecided"
    if any(len(errors.get(name, ())) < 2 for contrast in contrasts for name in contrast):
        return "undecided"
    above = [_p_above_zero(contrast, errors) for contrast in contrasts]
    if all(p < LEVEL for p in above):
        return "holds"
    if any(1 - p < LEVEL / len(above) for p in above):
        return "does not"
    return "undecided"


def _p_above_zero(contrast: Contrast, errors: Mapping[str, Sequence[float]]) -> float:
    """One-sided p of a contrast being above zero: Welch's t test with several means."""
    value = sum(weight * fmean(errors[name]) for name, weight in contrast.items())
    parts = [
        (weight**2 * variance(errors[name]) / len(errors[name]), len(errors[name]) - 1)
        for name, weight in contrast.items()
    ]
    spread = sum(part for part, _ in parts)
    if spread == 0:
        return 0.5 if value == 0 else float(value < 0)
    freedom = spread**2 / sum(part**2 / degrees for part, degrees in parts)
    return float(stats.t.sf(value / math.sqrt(spread), freedom))
