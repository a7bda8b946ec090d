"""What reports say of networks that are not quite the paper's, against counts."""

from functools import partial

import pytest
from sweeps import create_sweep, markdown_of

from experiments import tables
from experiments.__main__ import main
from experiments.tables import paper, remarks
from experiments.tables.table4_structures import COLUMNS
from shufflenet_jax import (
    Network,
    ResidualUnit,
    abstract,
    complexity,
    shufflenet,
    shufflenet_shallow,
)
from shufflenet_jax.models.structures import STRUCTURES
from shufflenet_jax.zoo import NETWORKS


def count(constructor, **arguments):
    return complexity(abstract(constructor, **arguments), (224, 224, 3))


def millions(constructor, **arguments):
    """As the remarks write them: one decimal, the classifier not counted."""
    return f"{count(constructor, **arguments).macs_without_head / 1e6:.1f}"


def test_even_groups_at_a_quarter():
    def cost(groups, **arguments):
        return count(shufflenet, groups=groups, width=0.25, **arguments).macs / 1e6

    ours = [cost(groups) for groups in (1, 2, 3, 4, 8)]
    level = paper.TABLE2_MFLOPS[0.25]
    assert all(abs(each / level - 1) <= 0.05 for each in ours)
    *first, last = (f"{each:.1f}" for each in ours)
    assert f"cost {', '.join(first)} and {last} [{level}] million" in (
        remarks.EVEN_GROUPS_AT_A_QUARTER
    )
    assert abstract(shufflenet, groups=8, width=0.25).widths[0] == 8
    g2, g4, g8 = (
        f"{cost(groups, conv1_channels=channels):.1f}"
        for groups, channels in ((2, 12), (4, 12), (8, 16))
    )
    assert f"would cost {g2}, {g4} and {g8}." in remarks.EVEN_GROUPS_AT_A_QUARTER


def test_stage_4_channels():
    ours = {name: chosen.channels[38][-1] for name, chosen in STRUCTURES.items()}
    width, groups = paper.TABLE4_SHUFFLENETS[38]
    half = partial(shufflenet, groups=groups, width=width)
    doubled = partial(half, rounding="double")
    ours["shufflenet"] = abstract(half).widths[-1]
    for name, channels in ours.items():
        text = f"{COLUMNS[name]} {channels} [{paper.TABLE4_STAGE4_CHANNELS[name]}]"
        assert text in remarks.STAGE_4_CHANNELS
    assert abstract(doubled).widths[-1] == paper.TABLE4_STAGE4_CHANNELS["shufflenet"]
    assert f"for {millions(doubled)} million; by default it costs {millions(half)}." in (
        remarks.STAGE_4_CHANNELS
    )
    wider = partial(
        Network,
        partial(ResidualUnit, ratio=2, groups=16, pooled=True),
        channels=(48, 96, 192),
        conv1_channels=12,
    )
    assert f"raised to 32 it makes the network cost {millions(wider)} million" in (
        remarks.STAGE_4_CHANNELS
    )


def test_other_levels():
    whole = count(NETWORKS["shufflenet_g8_1x"])
    assert f"costs {whole.macs / 1e6:.1f} [140]" in remarks.LEVEL_OF_140
    assert f"Table 1 has {whole.macs_without_head / 1e6:.0f} for" in remarks.LEVEL_OF_140
    shallow = count(shufflenet_shallow)
    mflops, _ = paper.TABLE5["shufflenet_g3_0.5x_shallow"]
    assert f"costs {shallow.macs / 1e6:.1f} [{mflops}]." in remarks.SHALLOW
    thin = count(shufflenet, groups=3, width=0.5, repeats=(2, 4, 2))
    assert f"0.5x costs {thin.macs / 1e6:.0f} million" in remarks.SHALLOW
    assert "/".join(map(str, abstract(shufflenet_shallow).widths[1:])) in remarks.SHALLOW


def test_classic_networks():
    names = {"vgg16": "VGG-16", "googlenet": "GoogLeNet", "alexnet": "AlexNet"}
    for name, written in (names | {"squeezenet": "SqueezeNet"}).items():
        mflops, _ = paper.TABLE6[name]
        counted = count(NETWORKS[name]).macs / 1e6
        assert f"{written} {counted:,.0f} [{mflops:,}]" in remarks.CLASSIC_NETWORKS
    vgg16 = abstract(NETWORKS["vgg16"])
    linear = sum(layer.kernel.size for layer in (vgg16.head.first, vgg16.head.second))
    convolutions = count(NETWORKS["vgg16"]).macs_without_head - linear
    assert f"convolutions, {convolutions / 1e6:,.0f}," in remarks.CLASSIC_NETWORKS
    assert round(convolutions / 1e8) == paper.TABLE6["vgg16"][0] / 100
    at_227 = complexity(abstract(NETWORKS["squeezenet"]), (227, 227, 3))
    assert round(at_227.macs / 1e6) == paper.TABLE6["squeezenet"][0]
    assert "SqueezeNet costs 833 at 227x227" in remarks.CLASSIC_NETWORKS
    published = count(NETWORKS["googlenet"], large_kernel=5)
    assert f"as published it costs {published.macs / 1e6:,.0f}." in remarks.CLASSIC_NETWORKS


@pytest.mark.parametrize("name", ["table2", "table3", "table4"])
def test_a_table_with_networks_of_its_own_channels_says_so(name):
    assert remarks.EVEN_GROUPS_AT_A_QUARTER in tables.load(name).remarks


def test_reports_and_the_list_show_them(tmp_path, capsys):
    sweep = create_sweep(tmp_path, "network.repeats=1,1,1", name="table4")
    assert remarks.STAGE_4_CHANNELS in markdown_of(sweep)
    assert main(["list"]) == 0
    assert " ".join(capsys.readouterr().out.split()).count(remarks.STAGE_4_CHANNELS) == 1
