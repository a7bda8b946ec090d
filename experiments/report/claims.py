"""Judges what the paper says of a table by what was measured.

A claim is a set of contrasts that are all above zero if it is true, and each is tested with the
mean errors of independent runs. Of tables with claims that are not true, however narrowly, at most
one in twenty has one that is called to hold; and the same goes for what is called not to. Each step
keeps that level by itself:

* A weighted sum of means is held against Student's distribution, with the degrees of freedom of the
  cell that has the fewest seeds. That is exact or cautious however the spreads of the cells differ
  (J. Hajek, Inequalities for the generalized Student's distribution and their applications, 1962).
  Welch's degrees of freedom are not: at three seeds a cell they find up to a seventh too much at a
  level of 0.05, and twice what they may at the lower levels that corrections lead to.
* That the best of G beats the best of H says that one in G beats every one in H. To test the cells
  that happened to come out best would favour G. For every one in H all tests must pass
  (intersection-union); for one in G the best of |G| tests is corrected for their number
  (Bonferroni).
* A claim holds if each of its contrasts does (intersection-union), and does not if one of them is
  below zero (Bonferroni).
* The claims of a table are corrected for their number (S. Holm, A simple sequentially rejective
  multiple test procedure, 1979).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from experiments.sweep.claim import Claim, Contrast, names_of

LEVEL = 0.05
"""In which part of tables something may be wrong of what is said of their claims."""

LEAST_SEEDS = 3
"""With fewer a cell, nothing is said: the spread of two means next to nothing."""

_ROUNDING = 1e-12


def verdicts(claims: Sequence[Claim], errors: Mapping[str, Sequence[float]]) -> list[str]:
    """Returns "holds", "does not" or "undecided" of each claim.

    Args:
      claims: All that are judged by these errors.
      errors: Errors of each cell by name, one a seed. A claim about a cell that has fewer than
        `LEAST_SEEDS` is undecided.
    """
    if not claims:
        return []
    holds, fails = decide(claims, {name: np.asarray(each) for name, each in errors.items()})
    return [
        "holds" if is_true else "does not" if is_false else "undecided"
        for is_true, is_false in zip(holds, fails, strict=True)
    ]


def decide(
    claims: Sequence[Claim], errors: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Which claims hold, and which do not, in any number of tables at once.

    Args:
      claims: Those of one table.
      errors: By cell, of shape (..., seeds): the leading axes are those of the tables.

    Returns:
      Two boolean arrays of shape (claims, ...).
    """
    enough = {name: each for name, each in errors.items() if each.shape[-1] >= LEAST_SEEDS}
    cells = {name: _Cell.of(each) for name, each in enough.items()}
    holds, fails = [], []
    for claim in claims:
        names = {name for each in claim.contrasts for term in each for name in names_of(term)}
        if not names <= cells.keys():
            holds.append(np.ones(()))
            fails.append(np.ones(()))
            continue
        above = [_p_above_zero(each, cells) for each in claim.contrasts]
        below = [_p_above_zero(_negated(each), cells) for each in claim.contrasts]
        holds.append(np.max(above, axis=0))
        fails.append(len(below) * np.min(below, axis=0))
    return _holm(holds) < LEVEL, _holm(fails) < LEVEL


@dataclass(frozen=True)
class _Cell:
    """Mean error of a cell, the square of its standard error, and the number of seeds."""

    mean: np.ndarray
    variance: np.ndarray
    seeds: int

    @classmethod
    def of(cls, errors: np.ndarray) -> "_Cell":
        seeds = errors.shape[-1]
        first = errors[..., :1]  # equal errors have their own value as mean, and no spread
        mean = first[..., 0] + (errors - first).mean(axis=-1)
        return cls(mean, (errors - first).var(axis=-1, ddof=1) / seeds, seeds)


def _p_above_zero(contrast: Contrast, cells: Mapping[str, _Cell]) -> np.ndarray:
    """One-sided p value of a contrast's being above zero."""
    minuends = [names_of(term) for term, weight in contrast.items() if weight > 0]
    subtrahends = [names_of(term) for term, weight in contrast.items() if weight < 0]
    weights = [weight for weight in contrast.values() if weight > 0]
    weights += [weight for weight in contrast.values() if weight < 0]

    def p(names: tuple[str, ...]) -> np.ndarray:
        total: dict[str, float] = defaultdict(float)
        for name, weight in zip(names, weights, strict=True):
            total[name] += weight
        return _p_of_means(total, cells)

    chosen = [
        np.max([p(those + these) for those in product(*minuends)], axis=0)
        for these in product(*subtrahends)
    ]
    return np.minimum(1.0, len(chosen) * np.min(chosen, axis=0))


def _p_of_means(weights: Mapping[str, float], cells: Mapping[str, _Cell]) -> np.ndarray:
    """One-sided p value of a weighted sum of means being above zero."""
    terms = [(weight, cells[name]) for name, weight in weights.items()]
    value = sum(weight * cell.mean for weight, cell in terms)
    error = np.sqrt(sum(weight**2 * cell.variance for weight, cell in terms))
    rounding = _ROUNDING * sum(abs(weight * cell.mean) for weight, cell in terms)
    value = np.where(np.abs(value) <= rounding, 0.0, value)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(error <= rounding, np.sign(value) * np.inf, value / error)
    statistic = np.where(value == 0, 0.0, statistic)
    # Here, because most reports have too few seeds for it.
    from scipy.special import stdtr

    return stdtr(min(cell.seeds for _, cell in terms) - 1, -statistic)


def _negated(contrast: Contrast) -> Contrast:
    return {term: -weight for term, weight in contrast.items()}


def _holm(p_values: Sequence[np.ndarray]) -> np.ndarray:
    """P values of shape (claims, ...), corrected for the number of claims."""
    stacked = np.stack(np.broadcast_arrays(*p_values))
    order = np.argsort(stacked, axis=0)
    left = np.arange(len(stacked), 0, -1).reshape(-1, *(1,) * (stacked.ndim - 1))
    corrected = np.maximum.accumulate(left * np.take_along_axis(stacked, order, axis=0))
    np.put_along_axis(stacked, order, corrected, axis=0)
    return stacked
