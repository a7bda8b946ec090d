"""Table 8: what it makes of times, and that it takes them."""

import pytest

from experiments.tables import paper, table8_speed
from experiments.tables.table8_speed import Timed, as_markdown, measure, verdicts

THEORY = {  # multiply-adds at 224x224, in millions, as Table 8 has them
    "shufflenet_g3_0.5x": 38,
    "shufflenet_g3_1x": 140,
    "shufflenet_g3_2x": 524,
    "alexnet": 720,
    "mobilenet_v1_1.0": 569,
}


def papers_times():
    """The paper's own times and figures, as if measured."""
    return {
        size: {
            name: Timed((times[index],) * 3, THEORY[name] * 1_000_000)
            for name, times in paper.TABLE8_MILLISECONDS.items()
        }
        for index, size in enumerate(paper.TABLE8_SIZES)
    }


def test_the_papers_own_times_give_its_speedups():
    lines = [
        [part.strip() for part in line.strip("|").split("|")]
        for line in as_markdown(papers_times()).splitlines()
    ]
    rows = {(line[0], line[1]): line[2:] for line in lines}
    assert len(rows) == 2 + 15  # the headings and the line below
    # 184.0 / 15.2; 720 / 38.
    assert rows["shufflenet_g3_0.5x", "224x224"] == [
        *("38", "15.20 [15.20 to 15.20]", "15.2", "12.1", "12.1", "18.9")
    ]
    assert rows["shufflenet_g3_0.5x", "720x1280"][3:5] == ["14.0", "14.0"]
    assert rows["alexnet", "480x640"][3:] == ["1.0", "1.0", "1.0"]


def test_the_papers_own_times_bear_out_its_claims():
    half, whole, *_ = verdicts(papers_times()).splitlines()
    assert "here 12.1, 13.2, 14.0 times" in half
    assert "promise 18.9, 18.9, 18.9" in half
    assert half.endswith("**holds**")
    assert "here 2.9, 2.8, 2.7 times" in whole
    assert whole.endswith("**holds**")


def test_one_slow_size_is_enough_against_a_claim():
    times = papers_times()
    times[480, 640]["shufflenet_g3_0.5x"] = Timed((1156.7 / 10.3,) * 3, 38_000_000)
    half, whole, *_ = verdicts(times).splitlines()
    assert half.endswith("**does not hold**")
    assert whole.endswith("**holds**")


@pytest.mark.slow
def test_networks_are_timed():
    names = ["vgg_like_38m", "vgg_like_13m"]  # which compile at once
    found = measure([(64, 32), (48, 48)], names, rounds=2)
    assert list(found) == [(64, 32), (48, 48)]
    for networks in found.values():
        assert list(networks) == names
        for timed in networks.values():
            assert len(timed.milliseconds) == 2
            assert min(timed.milliseconds) > 0
    assert found[64, 32]["vgg_like_38m"].macs > found[48, 48]["vgg_like_13m"].macs


def test_every_claim_is_about_networks_that_are_timed():
    assert table8_speed.REFERENCE in paper.TABLE8_MILLISECONDS
    for claim in table8_speed.CLAIMS:
        assert {claim.fast, claim.slow} <= paper.TABLE8_MILLISECONDS.keys()
