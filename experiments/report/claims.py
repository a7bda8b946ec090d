"""Judges what the paper says of a table by what was measured.

A claim is a set of contrasts that are all above zero if it is true, and each is tested with the
errors of their runs. Of tables with claims that are not true, however narrowly, at most
one in twenty has one that is called to hold; and the same goes for what is called not to. Each step
keeps that level by itself:

* Runs are paired by their seed: two cells with the same seed see the same images in the same order.
  So a weighted sum of means is that of the sums of each seed, whose mean is held against Student's
  distribution. That is exact however the spreads of the cells differ, and whether what seeds have
  in common makes cells alike or not. A seed that one of the cells lacks does not count.
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


def verdicts(claims: Sequence[Claim], errors: Mapping[str, Mapping[int, float]]) -> list[str]:
    """Returns "holds", "does not" or "undecided" of each claim.

    Args:
      claims: All that are judged by these errors.
      errors: Errors of each cell by name and seed. A claim is undecided whose cells have fewer
        than `LEAST_SEEDS` in common.
    """
    if not claims:
        return []
    holds, fails = decide(claims, aligned(errors))
    return [
        "holds" if is_true else "does not" if is_false else "undecided"
        for is_true, is_false in zip(holds, fails, strict=True)
    ]


def aligned(errors: Mapping[str, Mapping[int, float]]) -> dict[str, np.ndarray]:
    """Errors of each cell as an array over all seeds that one of them has; NaN where it has not."""
    seeds = sorted({seed for each in errors.values() for seed in each})
    return {
        name: np.array([each.get(seed, np.nan) for seed in seeds]) for name, each in errors.items()
    }


def decide(
    claims: Sequence[Claim], errors: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Which claims hold, and which do not, in any number of tables at once.

    Args:
      claims: Those of one table.
      errors: By cell, of shape (..., seeds): the leading axes are those of the tables. NaN where
        a cell lacks a seed.

    Returns:
      Two boolean arrays of shape (claims, ...).
    """
    holds, fails = [], []
    for claim in claims:
        names = {name for each in claim.contrasts for term in each for name in names_of(term)}
        if not names <= errors.keys():
            holds.append(np.ones(()))
            fails.append(np.ones(()))
            continue
        above = [_p_above_zero(each, errors) for each in claim.contrasts]
        below = [_p_above_zero(_negated(each), errors) for each in claim.contrasts]
        holds.append(np.max(above, axis=0))
        fails.append(len(below) * np.min(below, axis=0))
    return _holm(holds) < LEVEL, _holm(fails) < LEVEL


@dataclass(frozen=True)
class Judged:
    """A contrast of a claim by itself.

    Attributes:
      contrast: Cells by their names, each with its weight.
      mean: Of the weighted sum over the seeds that all these cells have, in percentage points.
      half_width: Of its interval of 95%.
      seeds: How many those are.
      p: Of the two-sided test that it is zero, corrected for all that are judged with it.
      verdict: "holds" above zero, "does not" below, "undecided" where p is not below `LEVEL`.
    """

    contrast: dict[str, float]
    mean: float
    half_width: float
    seeds: int
    p: float
    verdict: str


def contrasts(claims: Sequence[Claim], errors: Mapping[str, Mapping[int, float]]) -> list[Judged]:
    """Judges the contrasts of all claims one by one, as far as they are measured.

    Of a claim with many contrasts some may be decided long before all are. They are corrected for
    their number by Holm's procedure. A contrast of the best of several cells is left out.

    Args:
      claims, errors: As of `verdicts`.
    """
    arrays = aligned(errors)
    found: list[tuple[dict[str, float], np.ndarray]] = []
    for contrast in (each for claim in claims for each in claim.contrasts):
        by_name = {name: weight for term, weight in contrast.items() for name in names_of(term)}
        if len(by_name) != len(contrast) or not by_name.keys() <= arrays.keys():
            continue
        sums = np.sum([weight * arrays[name] for name, weight in by_name.items()], axis=0)
        sums = sums[~np.isnan(sums)]
        if len(sums) >= LEAST_SEEDS and by_name not in [each for each, _ in found]:
            found.append((by_name, sums))
    if not found:
        return []
    sides = [
        min(_p_of_sum(signed, arrays) for signed in (each, {n: -w for n, w in each.items()}))
        for each, _ in found
    ]
    corrected = _holm([np.minimum(1.0, 2 * side) for side in sides])
    return [
        Judged(
            contrast=by_name,
            mean=float(sums.mean()),
            half_width=half_width(sums) or 0.0,
            seeds=len(sums),
            p=min(1.0, float(p)),
            verdict="undecided" if p >= LEVEL else "holds" if sums.mean() > 0 else "does not",
        )
        for (by_name, sums), p in zip(found, corrected, strict=True)
    ]


def half_width(values: Sequence[float] | np.ndarray) -> float | None:
    """Half of the interval of 95% of a mean, by Student's distribution; None of fewer than two."""
    if len(values) < 2:
        return None
    # Here, because most reports have too few seeds for it.
    from scipy.special import stdtrit

    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return float(stdtrit(len(values) - 1, 0.975)) * error


@dataclass(frozen=True)
class Difference:
    """The mean of differences that are paired by seed.

    Attributes:
      mean: In percentage points.
      half_width: Of its interval of 95%; None with fewer than two seeds.
      seeds: Those that both cells have.
    """

    mean: float
    half_width: float | None
    seeds: tuple[int, ...]

    @classmethod
    def of(
        cls, minuend: Mapping[int, float], subtrahend: Mapping[int, float]
    ) -> "Difference | None":
        """The difference of two cells, by seed; None if they have none in common."""
        both = tuple(sorted(minuend.keys() & subtrahend.keys()))
        if not both:
            return None
        each = [minuend[seed] - subtrahend[seed] for seed in both]
        return cls(float(np.mean(each)), half_width(each), both)


def half_width_of_images(minuend: np.ndarray, subtrahend: np.ndarray) -> float:
    """Half of the interval of 95% of the difference of two networks' errors, in percentage points.

    Over test images, each of which both networks were asked (as McNemar's test): those that one is
    right about and the other is not decide. It says nothing of networks from other seeds.

    Args:
      minuend, subtrahend: Whether they are right, of shape (images,).
    """
    each = subtrahend.astype(float) - minuend
    return 1.96 * 100 * float(each.std(ddof=1)) / len(each) ** 0.5


def _p_above_zero(contrast: Contrast, errors: Mapping[str, np.ndarray]) -> np.ndarray:
    """One-sided p value of a contrast's being above zero."""
    minuends = [names_of(term) for term, weight in contrast.items() if weight > 0]
    subtrahends = [names_of(term) for term, weight in contrast.items() if weight < 0]
    weights = [weight for weight in contrast.values() if weight > 0]
    weights += [weight for weight in contrast.values() if weight < 0]

    def p(names: tuple[str, ...]) -> np.ndarray:
        total: dict[str, float] = defaultdict(float)
        for name, weight in zip(names, weights, strict=True):
            total[name] += weight
        return _p_of_sum(total, errors)

    chosen = [
        np.max([p(those + these) for those in product(*minuends)], axis=0)
        for these in product(*subtrahends)
    ]
    return np.minimum(1.0, len(chosen) * np.min(chosen, axis=0))


def _p_of_sum(weights: Mapping[str, float], errors: Mapping[str, np.ndarray]) -> np.ndarray:
    """One-sided p value of the mean of a weighted sum being above zero."""
    terms = [weight * errors[name] for name, weight in weights.items()]
    sums = np.asarray(sum(terms))
    tables = tuple(range(sums.ndim - 1))
    shared = ~np.isnan(sums).any(axis=tables)
    seeds = int(shared.sum())
    if seeds < LEAST_SEEDS:
        return np.ones(sums.shape[:-1])
    sums = sums[..., shared]
    rounding = _ROUNDING * sum(np.abs(term[..., shared]).max(axis=-1) for term in terms)
    first = sums[..., :1]  # equal sums have their own value as mean, and no spread
    value = first[..., 0] + (sums - first).mean(axis=-1)
    error = (sums - first).std(axis=-1, ddof=1) / seeds**0.5
    value = np.where(np.abs(value) <= rounding, 0.0, value)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(error <= rounding, np.sign(value) * np.inf, value / error)
    statistic = np.where(value == 0, 0.0, statistic)
    # Here, because most reports have too few seeds for it.
    from scipy.special import stdtr

    return stdtr(seeds - 1, -statistic)


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
