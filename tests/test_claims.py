"""The verdicts on the paper's claims."""

import numpy as np
import pytest
from scipy import stats

from experiments import tables
from experiments.report.claims import _p_above_zero, judge
from experiments.sweep.experiment import Claim, Experiment

HELPS = Claim("b is below a", lambda means: [{"a": 1.0, "b": -1.0}])
CLAIMS = {
    (each.name, index): claim
    for each in map(tables.load, tables.names())
    if isinstance(each, Experiment)
    for index, claim in enumerate(each.claims)
}


def test_one_contrast_is_welchs_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 1.0, 5).tolist(), rng.normal(0.0, 3.0, 4).tolist()
    expected = stats.ttest_ind(a, b, equal_var=False, alternative="greater").pvalue
    assert _p_above_zero({"a": 1.0, "b": -1.0}, {"a": a, "b": b}) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([5.0, 5.1, 4.9], [3.0, 3.1, 2.9], "holds"),
        ([3.0, 3.1, 2.9], [5.0, 5.1, 4.9], "does not"),
        ([5.0, 3.0, 4.0], [4.1, 3.1, 3.9], "undecided"),
        ([5.0], [3.0], "undecided"),
        ([5.0, 5.1], [], "undecided"),
        ([5.0, 5.0], [3.0, 3.0], "holds"),
        ([3.0, 3.0], [3.0, 3.0], "undecided"),
    ],
)
def test_verdicts(a, b, verdict):
    assert judge(HELPS, {"a": a, "b": b}) == verdict


def test_every_contrast_must_hold():
    both = Claim("", lambda means: [{"a": 1.0, "b": -1.0}, {"a": 1.0, "c": -1.0}])
    good, bad = [3.0, 3.1, 2.9], [9.0, 9.1, 8.9]
    assert judge(both, {"a": [5.0, 5.1, 4.9], "b": good, "c": good}) == "holds"
    assert judge(both, {"a": [5.0, 5.1, 4.9], "b": good, "c": bad}) == "does not"


def papers_errors(name):
    """The paper's errors with a spread too small to matter, by cell."""
    spread = np.array([-0.01, 0.0, 0.01])
    return {c.name: (c.paper_error + spread).tolist() for c in tables.load(name).cells}


@pytest.mark.parametrize("key", CLAIMS)
def test_the_papers_own_numbers_bear_out_its_claims(key):
    assert judge(CLAIMS[key], papers_errors(key[0])) == "holds"


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        (("table2", 0), "0.5x-g1", "0.5x-g8"),
        (("table2", 1), "1x-g1", "0.25x-g1"),
        (("table3", 0), "1x-g3", "1x-g3-noshuffle"),
        (("table3", 1), "0.25x-g8", "0.25x-g3"),
        (("table4", 0), "shufflenet_g8_1x", "resnext_140m"),
        (("table5", 0), "shufflenet_g4_0.5x", "mobilenet_v1_0.25"),
        (("table5", 1), "shufflenet_g3_2x", "shufflenet_g3_2x_se"),
        (("table5", 2), "mobilenet_v1_0.25", "shufflenet_g3_0.5x_shallow"),
        (("table6", 0), "vgg16", "shufflenet_g3_2x"),
        (("table6", 1), "squeezenet", "shufflenet_g4_0.5x"),
    ],
)
def test_with_two_cells_swapped_they_do_not(key, one, other):
    errors = papers_errors(key[0])
    errors[one], errors[other] = errors[other], errors[one]
    assert judge(CLAIMS[key], errors) == "does not"
