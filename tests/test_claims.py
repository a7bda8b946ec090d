"""The verdicts on the paper's claims."""

import itertools
import json

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import linprog

from experiments import tables
from experiments.report import claims
from experiments.report.claims import LEVEL, Difference, decide
from experiments.sweep.claim import Claim, names_of
from experiments.sweep.experiment import Experiment
from shufflenet_jax import InputError

HELPS = Claim("b is below a", ({"a": 1.0, "b": -1.0},))
OF_TABLE = {
    each.name: each.claims
    for each in map(tables.load, tables.names())
    if isinstance(each, Experiment)
}
CLAIMS = {(name, index): claim for name, of in OF_TABLE.items() for index, claim in enumerate(of)}


def by_seed(errors):
    return {name: dict(enumerate(each)) for name, each in errors.items()}


def p_above_zero(contrast, errors):
    return claims._p_above_zero(contrast, claims.aligned(by_seed(errors)))


def verdicts(given, errors):
    return claims.verdicts(given, by_seed(errors))


def verdict(claim, errors):
    (only,) = verdicts([claim], errors)
    return only


def test_one_contrast_is_the_paired_t_test_of_the_seeds_that_both_have():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 1.0, 5).tolist(), rng.normal(0.0, 3.0, 4).tolist()
    expected = stats.ttest_rel(a[:4], b, alternative="greater").pvalue
    assert p_above_zero({"a": 1.0, "b": -1.0}, {"a": a, "b": b}) == pytest.approx(expected)
    shifted = {"a": {1: 5.0, 2: 5.1, 3: 4.9}, "b": {2: 3.0, 3: 3.1, 4: 2.9}}
    assert claims.verdicts([HELPS], shifted) == ["undecided"]  # two in common


def test_an_interval_is_that_of_the_paired_differences():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 1.0, 5), rng.normal(0.0, 3.0, 5)
    found = Difference.of(*(dict(enumerate(each)) for each in (a, b)))
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found.mean == pytest.approx((low + high) / 2)
    assert found.half_width == pytest.approx((high - low) / 2)
    assert found.seeds == (0, 1, 2, 3, 4)
    assert Difference.of({0: 2.0, 1: 5.0}, {0: 1.5}) == Difference(0.5, None, (0,))
    assert Difference.of({0: 2.0}, {1: 1.5}) is None


def test_an_interval_over_images_is_that_of_mcnemar():
    """By the images that one of two networks alone is right about."""
    a, b = np.zeros((2, 1000), bool)
    a[:600], b[:570], b[600:640] = True, True, True  # 30 of one, 40 of the other
    expected = 1.96 * 100 * np.sqrt(70 - 10**2 / 1000) / np.sqrt(1000 * 999)
    assert claims.half_width_of_images(a, b) == pytest.approx(expected)
    assert claims.half_width_of_images(a, a) == 0


def test_contrasts_are_judged_by_themselves():
    """As soon as they are measured, corrected for their number, whatever the whole claim is."""
    rng = np.random.default_rng(0)
    errors = {
        name: dict(enumerate(rng.normal(mean, 0.3, 5)))
        for name, mean in {"a": 30, "b": 28, "c": 30, "d": 30.05, "e": 28, "f": 30}.items()
    }
    pairs = [{"a": 1.0, "b": -1.0}, {"c": 1.0, "d": -1.0}, {"e": 1.0, "f": -1.0}]
    missing, best = {"a": 1.0, "none": -1.0}, {"a": 1.0, ("b", "c"): -1.0}
    found = claims.contrasts([Claim("All.", (*pairs, missing)), Claim("Best.", (best,))], errors)
    assert [each.contrast for each in found] == pairs
    assert [each.verdict for each in found] == ["holds", "undecided", "does not"]
    for each, (one, other) in zip(found, ("ab", "cd", "ef"), strict=True):
        values = [list(errors[name].values()) for name in (one, other)]
        test = stats.ttest_rel(*values)
        low, high = test.confidence_interval(0.95)
        assert each.mean == pytest.approx((low + high) / 2)
        assert each.half_width == pytest.approx((high - low) / 2)
    p_values = [
        stats.ttest_rel(*(list(errors[name].values()) for name in pair)).pvalue
        for pair in ("ab", "cd", "ef")
    ]
    least, middle, most = sorted(p_values)
    expected = {least: 3 * least, middle: max(3 * least, 2 * middle), most: most}
    assert [each.p for each in found] == pytest.approx([expected[p] for p in p_values])


def test_what_seeds_have_in_common_hides_no_difference():
    of_seeds = np.random.default_rng(0).normal(0, 10, 4)
    spread = np.array([-0.1, 0.1, 0.05, -0.05])
    errors = {"a": (of_seeds + 1).tolist(), "b": (of_seeds + spread).tolist()}
    assert verdict(HELPS, errors) == "holds"


def test_the_best_of_several_is_one_that_beats_each_other():
    rng = np.random.default_rng(0)
    errors = {name: rng.normal(0.0, 1.0, 4).tolist() for name in "abcde"}
    contrast = {("a", "b"): 1.0, ("c", "d", "e"): -1.0}
    pairs = {
        (above, below): p_above_zero({above: 1.0, below: -1.0}, errors)
        for above, below in itertools.product("ab", "cde")
    }
    expected = 3 * min(max(pairs[above, below] for above in "ab") for below in "cde")
    assert 0.0 < expected < 1.0
    assert p_above_zero(contrast, errors) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([5.0, 5.1, 4.9], [3.0, 3.1, 2.9], "holds"),
        ([3.0, 3.1, 2.9], [5.0, 5.1, 4.9], "does not"),
        ([5.0, 3.0, 4.0], [4.1, 3.1, 3.9], "undecided"),
        ([5.0], [3.0], "undecided"),
        ([5.0, 5.1], [3.0, 3.1], "undecided"),
        ([5.0, 5.1, 4.9], [3.0, 3.1], "undecided"),
        ([5.0, 5.1, 4.9], [], "undecided"),
        ([5.0, 5.0, 5.0], [3.0, 3.0, 3.0], "holds"),
        ([3.0, 3.0, 3.0], [3.0, 3.0, 3.0], "undecided"),
        ([0.1] * 3, [0.1] * 4, "undecided"),  # whose means differ when they are summed
    ],
)
def test_verdicts(a, b, expected):
    assert verdict(HELPS, {"a": a, "b": b}) == expected


def test_a_cell_that_is_missing_decides_nothing():
    assert verdict(HELPS, {"a": [5.0, 5.1, 4.9]}) == "undecided"


def test_every_contrast_must_hold():
    both = Claim("", ({"a": 1.0, "b": -1.0}, {"a": 1.0, "c": -1.0}))
    good, bad = [3.0, 3.1, 2.9], [9.0, 9.1, 8.9]
    assert verdict(both, {"a": [5.0, 5.1, 4.9], "b": good, "c": good}) == "holds"
    assert verdict(both, {"a": [5.0, 5.1, 4.9], "b": good, "c": bad}) == "does not"


def test_what_is_hardly_clear_by_itself_is_not_beside_other_claims():
    """Of three claims the clearest is held against a third of the level, the next a half."""
    errors = {"zero": [-1e-6, 0.0, 1e-6]}
    p_values = {"clear": LEVEL / 4, "less": LEVEL / 2.5, "least": LEVEL / 1.5, "not": 0.5}
    for name, p in p_values.items():  # a mean that has this p value
        spread = np.array([-1.0, 0.0, 1.0])
        errors[name] = (stats.t.isf(p, 2) / 3**0.5 + spread).tolist()
    given = {name: Claim(name, ({name: 1.0, "zero": -1.0},)) for name in p_values}

    def held(*names):
        said = verdicts([given[name] for name in names], errors)
        return {name for name, each in zip(names, said, strict=True) if each == "holds"}

    assert held("least") == {"least"}
    assert held("clear", "less", "least") == {"clear", "less", "least"}
    assert held("least", "not", "clear") == {"clear"}
    assert held("less", "not", "least") == set()
    assert held("not", "less") == {"less"}
    assert held("not", "least") == set()


def papers_errors(name):
    """The paper's errors with a spread too small to matter, by cell."""
    spread = np.array([-0.01, 0.0, 0.01])
    return {c.name: (c.paper_error + spread).tolist() for c in tables.load(name).cells}


@pytest.mark.parametrize("key", CLAIMS)
def test_the_papers_own_numbers_bear_out_its_claims(key):
    name, index = key
    assert verdict(CLAIMS[key], papers_errors(name)) == "holds"
    assert verdicts(OF_TABLE[name], papers_errors(name))[index] == "holds"


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
    name, index = key
    errors = papers_errors(name)
    errors[one], errors[other] = errors[other], errors[one]
    assert verdict(CLAIMS[key], errors) == "does not"
    assert verdicts(OF_TABLE[name], errors)[index] == "does not"


# As data


@pytest.mark.parametrize("key", CLAIMS)
def test_claims_survive_json(key):
    assert Claim.from_data(json.loads(json.dumps(CLAIMS[key].as_data()))) == CLAIMS[key]


def term(of="a", weight=1.0):
    return {"of": of, "weight": weight}


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"text": "t"},
        {"text": 3, "contrasts": [[term()]]},
        {"text": "t", "contrasts": None},
        {"text": "t", "contrasts": []},
        {"text": "t", "contrasts": [[]]},
        {"text": "t", "contrasts": [None]},
        {"text": "t", "contrasts": {"a": 1.0}},
        {"text": "t", "contrasts": [{"a": 1.0}]},
        {"text": "t", "contrasts": [["a"]]},
        {"text": "t", "contrasts": [[{"of": "a"}]]},
        {"text": "t", "contrasts": [[{"weight": 1.0}]]},
        {"text": "t", "contrasts": [[term(), term()]]},
        {"text": "t", "contrasts": [[term(["a", "b"]), term(["a", "b"])]]},
        *(
            {"text": "t", "contrasts": [[term(of)]]}
            for of in (None, 3, "", [], [""], [3], [["a"]], ["a", "a"])
        ),
        *(
            {"text": "t", "contrasts": [[term(weight=weight)]]}
            for weight in (None, "1", True, 0, 0.0, float("nan"), float("inf"), 10**400, [1.0])
        ),
        # More tests than anyone waits for.
        {"text": "t", "contrasts": [[term([f"{n}{i}" for i in range(40)]) for n in range(9)]]},
    ],
)
def test_a_damaged_claim_is_refused(data):
    with pytest.raises(InputError) as refused:
        Claim.from_data(data)
    assert "\n" not in str(refused.value)


# Under the null: what is false, however narrowly, is seldom called true.

NUM_TABLES = 4000
CLEARLY = 1e3
"""How far apart, in standard deviations, means are of which there is no doubt."""

# A boundary that is met exactly is overstepped as often as this by chance, once in 10,000 times.
MOST = stats.binom.isf(1e-4, NUM_TABLES, LEVEL) / NUM_TABLES


def value(contrast, means):
    return sum(weight * min(means[n] for n in names_of(term)) for term, weight in contrast.items())


def plain(contrast, best):
    """A contrast with each "best of" replaced by the one that is."""
    total = {}
    for term, weight in contrast.items():
        name = best.get(term, term)
        total[name] = total.get(name, 0.0) + weight
    return total


def boundary(of_table, zero, is_tied=False):
    """Means at which some contrasts are zero, and the others of their claims are clearly above.

    Those of other claims are as far above as they can be with that.

    Args:
      of_table: The claims of a table.
      zero: Contrasts, one of a claim.
      is_tied: Whether cells the best of which these subtract are all equal; else one is the best.
    """
    strict = [own for own in (c.contrasts for c in of_table) if any(each in own for each in zero)]
    everything = [each for claim in of_table for each in claim.contrasts]
    groups = {term for each in everything for term in each if isinstance(term, tuple)}
    tied = {term for term in groups if is_tied and any(each.get(term, 0.0) < 0 for each in zero)}
    found = []
    for number in range(max(map(len, groups), default=1)):
        best = {group: group[number] for group in groups}
        pairs = [(group, other) for group in groups for other in group if other != best[group]]
        equal = [{best[group]: 1.0, other: -1.0} for group, other in pairs if group in tied]
        above = [{best[group]: -1.0, other: 1.0} for group, other in pairs if group not in tied]
        above += [
            plain(each, best) | ({} if any(each in own for own in strict) else {f"short{index}": 1})
            for index, each in enumerate(everything)
            if each not in zero
        ]
        found.append(solve([*(plain(each, best) for each in zero), *equal], above))
    means = min((each for each in found if each), key=shortage)
    for each in itertools.chain(*strict):
        assert abs(value(each, means)) < 1e-6 if each in zero else value(each, means) > CLEARLY / 2
    return {name: mean for name, mean in means.items() if not name.startswith("short")}


def shortage(means):
    return sum(each for name, each in means.items() if name.startswith("short"))


def solve(zero, above):
    """Values at which sums are zero and others `CLEARLY` above; with the least shortage."""
    names = sorted({name for each in (*zero, *above) for name in each})

    def matrix(sums):
        return np.array([[each.get(name, 0.0) for name in names] for each in sums])

    found = linprog(
        [float(name.startswith("short")) for name in names],
        A_ub=-matrix(above) if above else None,
        b_ub=np.full(len(above), -CLEARLY) if above else None,
        A_eq=matrix(zero),
        b_eq=np.zeros(len(zero)),
    )
    return dict(zip(names, found.x, strict=True)) if found.success else None


def draw(means, seeds, spreads, rng):
    return {
        name: mean + spread * rng.standard_normal((NUM_TABLES, seeds))
        for (name, mean), spread in zip(means.items(), itertools.cycle(spreads), strict=False)
    }


def share_of_wrong(decided, of_table, means):
    """In which share of tables a claim is called true that is not."""
    wrong = [any(value(each, means) < 1e-6 for each in claim.contrasts) for claim in of_table]
    assert any(wrong)
    return decided[np.array(wrong)].any(axis=0).mean()


SPREADS = {"equal": (1.0,), "unequal": (1.0, 0.1, 8.0, 1.0, 3.0)}

simulated = pytest.mark.parametrize(
    ("table", "seeds", "spreads"), list(itertools.product(OF_TABLE, (3, 5), SPREADS))
)


@simulated
def test_a_claim_of_which_one_part_is_not_true_is_called_true_in_a_twentieth(table, seeds, spreads):
    of_table, rng = OF_TABLE[table], np.random.default_rng(0)
    for contrast in itertools.chain(*(claim.contrasts for claim in of_table)):
        has_best_of = any(isinstance(term, tuple) for term in contrast)
        for is_tied in (False, True) if has_best_of else (False,):
            means = boundary(of_table, [contrast], is_tied)
            holds, _ = decide(of_table, draw(means, seeds, SPREADS[spreads], rng))
            assert share_of_wrong(holds, of_table, means) <= MOST


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("table", OF_TABLE)
def test_where_each_claim_has_such_a_part_one_is_called_true_in_a_twentieth(table, seeds):
    of_table, rng = OF_TABLE[table], np.random.default_rng(0)
    zero = [claim.contrasts[0] for claim in of_table]
    means = boundary(of_table, zero)
    names = [{name for term in each for name in names_of(term)} for each in zero]
    # One cell of each is so noisy that the others do not count: nothing is left of the caution.
    shared = set.union(*(one & other for one, other in itertools.combinations(names, 2)), set())
    noisy = {min(each - shared) for each in names}
    spreads = [1.0 if name in noisy else 0.001 for name in means]
    holds, _ = decide(of_table, draw(means, seeds, spreads, rng))
    assert share_of_wrong(holds, of_table, means) <= MOST


@simulated
def test_where_all_cells_are_equal_little_is_said(table, seeds, spreads):
    of_table = OF_TABLE[table]
    means = {cell.name: 0.0 for cell in tables.load(table).cells}
    errors = draw(means, seeds, SPREADS[spreads], np.random.default_rng(0))
    for decided in decide(of_table, errors):
        assert decided.any(axis=0).mean() <= MOST


@pytest.mark.parametrize("spread", [1.0, 3.0, 6.0, 10.0])
@pytest.mark.parametrize("names", ["ab", "abcd"])
def test_the_level_does_not_depend_on_how_unequal_spreads_are(names, spread):
    """Nor on what the runs of a seed have in common."""
    num_tables, rng = 200_000, np.random.default_rng(0)
    claim = Claim("", (dict(zip(names, (1.0, -1.0, -1.0, 1.0), strict=False)),))
    errors = {name: rng.standard_normal((num_tables, 3)) for name in names}
    errors["a"] *= spread
    common = spread * rng.standard_normal((num_tables, 3))
    errors = {name: each + common for name, each in errors.items()}
    for decided in decide([claim], errors):
        assert decided.mean() <= stats.binom.isf(1e-4, num_tables, LEVEL) / num_tables
