"""The networks that ShuffleNet is compared with: published counts, shapes and widths."""

import inspect
import json
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.tables import paper
from shufflenet_jax import (
    IMAGENET_STEM,
    SMALL_STEM,
    BottleneckUnit,
    InputError,
    PlainUnit,
    ShuffleUnit,
    SqueezeExcitation,
    Stem,
    Unit,
    abstract,
    complexity,
    mobilenet_v1,
    mobilenet_v2,
    shufflenet,
    structure,
)
from shufflenet_jax.layers import Conv
from shufflenet_jax.models.structures import CONV1_CHANNELS, STRUCTURES
from shufflenet_jax.widths import solve
from shufflenet_jax.zoo import FAMILIES, NETWORKS, Family, build, family_of, register


def count(name):
    return complexity(abstract(NETWORKS[name]), (224, 224, 3))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        # pytorchcv's tests assert these of mobilenet_w1, _w3d4, _wd2 and _wd4.
        ("mobilenet_v1_1.0", 4_231_976),
        ("mobilenet_v1_0.75", 2_585_560),
        ("mobilenet_v1_0.5", 1_331_592),
        ("mobilenet_v1_0.25", 470_072),
        # torchvision's documentation of mobilenet_v2.
        ("mobilenet_v2", 3_504_872),
    ],
)
def test_published_parameters(name, params):
    assert count(name).params == params


def test_mobilenet_v2_costs_300_million():
    assert round(count("mobilenet_v2").macs / 1e6, -1) == 300  # arXiv 1801.04381, table 4


@pytest.mark.parametrize("name", paper.TABLE5)
def test_mflops_of_table_5(name):
    mflops, _ = paper.TABLE5[name]
    # For 1x g=8 Table 5 repeats Table 2's 140, the same for all groups; Table 1 has 137 without
    # the classifier, which is 138.4 with it.
    tolerance = 0.012 if name == "shufflenet_g8_1x" else 0.01
    assert count(name).macs / 1e6 == pytest.approx(mflops, rel=tolerance)


@pytest.mark.parametrize("mflops", CONV1_CHANNELS)
@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_keep_their_budget(name, mflops):
    counted = count(f"{name}_{mflops}m")
    assert counted.macs_without_head / 1e6 == pytest.approx(mflops, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("mflops", CONV1_CHANNELS)
@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_have_the_widths_that_the_solver_finds(name, mflops):
    chosen = STRUCTURES[name]
    found = solve(
        chosen.unit,
        mflops * 1_000_000,
        conv1_channels=CONV1_CHANNELS[mflops],
        ratio=chosen.ratio,
    )
    # Xception-like is ShuffleNet with g=1, whose channels are the paper's.
    table1s = (name, mflops) == ("xception_like", 140)
    assert found == ((140, 284, 568) if table1s else chosen.channels[mflops])


@pytest.mark.parametrize("name", ["vgg_like", "xception_like"])
def test_solver_refuses_a_budget_below_the_narrowest_network(name):
    """For VGG-like stage 2 runs out of channels, for Xception-like it is no wider than conv1."""
    chosen = STRUCTURES[name]
    with pytest.raises(InputError, match="1,000,000 multiply-adds are too few: the narrowest"):
        solve(chosen.unit, 1_000_000, conv1_channels=12, ratio=chosen.ratio)


def test_stage_4_at_38_million_against_the_papers_text():
    ours = {name: chosen.channels[38][-1] for name, chosen in STRUCTURES.items()}
    doubled = abstract(shufflenet, groups=4, width=0.5, rounding="double")
    ours["shufflenet"] = doubled.widths[-1]
    # A bottleneck of 16 groups is wider than the half of ResNeXt's stage 2: see `structures`.
    assert ours == paper.TABLE4_STAGE4_CHANNELS | {"resnext": 176}


@pytest.mark.parametrize("mflops", CONV1_CHANNELS)
def test_xception_like_is_shufflenet_with_one_group(mflops):
    width, _ = paper.TABLE4_SHUFFLENETS[mflops]
    xception = abstract(structure, name="xception_like", mflops=mflops)
    assert nnx.state(xception) == nnx.state(abstract(shufflenet, groups=1, width=width))


def test_shallow_has_26_layers():
    network = abstract(NETWORKS["shufflenet_g3_0.5x_shallow"])
    convs = [module for _, module in nnx.iter_modules(network) if isinstance(module, Conv)]
    assert len(convs) + 1 == 26  # the classifier is the last


@cache
def sizes(constructor, size, stem):
    """Heights of the maps after each stage, from large to small."""

    graphdef, state = nnx.split(abstract(constructor, stem=stem))

    def features(state, images):
        return nnx.merge(graphdef, state).features(images)

    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    outputs = jax.eval_shape(features, state, images)
    return sorted({output.shape[1] for output in outputs.values()}, reverse=True)


@pytest.mark.parametrize("constructor", [mobilenet_v1, mobilenet_v2])
def test_mobilenets_see_maps_as_large_as_shufflenets(constructor):
    assert sizes(constructor, 224, Stem()) == [112, 56, 28, 14, 7]
    for stride in (1, 2):
        stem = Stem(stride=stride, max_pool=False)
        assert sizes(constructor, 24, stem) == sizes(shufflenet, 24, stem)


@pytest.mark.parametrize("name", ["mobilenet_v2", "shufflenet_se", "vgg_like"])
def test_small_images_give_logits(name):
    stem = Stem(stride=2, max_pool=False)

    network = abstract(FAMILIES[name].constructor, stem=stem, num_classes=10)
    graphdef, state = nnx.split(network)

    def logits(state, images):
        return nnx.merge(graphdef, state)(images, train=True)

    images = jax.ShapeDtypeStruct((2, 24, 24, 3), jnp.float32)
    assert jax.eval_shape(logits, state, images).shape == (2, 10)


def test_what_there_is_not():
    with pytest.raises(InputError, match="unknown structure 'inception': choose vgg_like, resnet"):
        structure("inception", rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="for 60 MFLOPs: choose 140, 38, 13"):
        structure("resnet", mflops=60, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="width must be at least 1/32"):
        mobilenet_v1(width=0.01, rngs=nnx.Rngs(0))


def tiny(*, width: "float" = 1.0, num_classes: "int", rngs: "nnx.Rngs"):
    """A network of one's own, its annotations texts as `from __future__ import annotations` has."""
    return nnx.Linear(4, int(num_classes * width), rngs=rngs)


class Tiny(nnx.Module):
    def __init__(
        self,
        size=4,
        *,
        deep=False,
        dropped=0.5,
        kind="plain",
        repeats=(1, 2),
        stem=SMALL_STEM,
        mixed=(1, 0.5),
        nothing=None,
        unit=PlainUnit,
        num_classes,
        rngs,
    ):
        self.set = (size, deep, dropped, kind, repeats, stem)
        self.linear = nnx.Linear(size, num_classes, rngs=rngs)


class GatedUnit(Unit):
    """A unit of one's own: a convolution, scaled."""

    def __init__(self, in_channels, out_channels, stride, *, gain=2.0, deep=False, rngs):
        self.conv = Conv(in_channels, out_channels, 3, stride=stride, rngs=rngs)
        self.gain, self.deep = gain, deep

    def forward(self, x, *, train):
        return self.gain * self.conv(x)


TINY = {
    "size": 4,
    "deep": False,
    "dropped": 0.5,
    "kind": "plain",
    "repeats": (1, 2),
    "stem": SMALL_STEM,
}
SKELETON = {
    "channels": (240, 480, 960),
    "conv1_channels": 24,
    "repeats": (4, 8, 4),
    "stem": IMAGENET_STEM,
}


class Partial(partial):
    """One that `functools.partial` does not merge with another."""


@pytest.mark.parametrize(
    ("thing", "arguments"),
    [
        (tiny, {"width": 1.0}),
        (Tiny, TINY),
        (partial(Tiny, 5), {key: TINY[key] for key in TINY if key != "size"}),
        (partial(partial(Tiny, deep=True), kind="odd"), TINY | {"deep": True, "kind": "odd"}),
        (Partial(Partial(Tiny, deep=True), kind="odd"), TINY | {"deep": True, "kind": "odd"}),
        (GatedUnit, SKELETON | {"gain": 2.0, "deep": False}),
        (partial(GatedUnit, gain=3.0), SKELETON | {"gain": 3.0, "deep": False}),
        (BottleneckUnit, SKELETON | {"groups": 1, "ratio": 4}),
        (partial(SqueezeExcitation, unit=PlainUnit), SKELETON | {"reduction": 16}),
        (Family(tiny, {}), {}),
    ],
)
def test_what_can_be_configured_of_a_constructor(thing, arguments):
    assert family_of(thing).arguments == arguments


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (ShuffleUnit, "ShuffleUnit needs groups: give a default, or bind with functools.partial"),
        (partial(SqueezeExcitation, reduction=8), "SqueezeExcitation needs unit: "),
        (lambda width, depth, *, num_classes, rngs: None, "<lambda> needs width, depth: "),
        (nnx.Linear, "Linear is neither a network's constructor, which takes num_classes and rngs"),
        (dict, "dict is neither"),
        (lambda in_channels, out_channels, stride, rngs, stem=1: None, "<lambda> takes stem, as"),
        ("shufflenet", "'shufflenet' is no constructor"),
        (partial(tiny, 1, 2), "tiny: .*arguments"),
    ],
)
def test_what_is_no_constructor_is_refused(thing, message):
    with pytest.raises(InputError, match=message):
        inspect.unwrap(family_of)(thing)  # as where no type checker watches


def test_the_network_around_a_unit_is_tables_1():
    """ShuffleNet with one group is nothing but the skeleton and its unit."""
    around = family_of(partial(ShuffleUnit, groups=1)).build(
        {"channels": [144, 288], "repeats": [1, 2]}, num_classes=7
    )
    ours = abstract(shufflenet, groups=1, channels=(144, 288), repeats=(1, 2), num_classes=7)
    assert nnx.state(around) == nnx.state(ours)
    wide = family_of(partial(GatedUnit)).build(
        {"conv1_channels": 6, "channels": [8, 9], "repeats": [1, 2], "gain": 5}, num_classes=7
    )
    assert wide.widths == (6, 8, 9)
    assert [len(stage) for stage in wide.stages] == [1, 2]
    assert wide.stages[1][1].gain == 5.0


@pytest.fixture
def registry():
    """Families that are registered are gone after the test."""
    before = dict(FAMILIES)
    yield FAMILIES
    FAMILIES.clear()
    FAMILIES.update(before)


def test_a_registered_network_is_built_from_plain_values(registry):
    register("mine", Tiny)
    plain = json.loads('{"size": 6, "dropped": 1, "repeats": [3], "stem": {"stride": 2}}')
    built = build("mine", plain, num_classes=3, rngs=nnx.Rngs(0))
    assert built.set == (6, False, 1.0, "plain", (3,), Stem(stride=2, max_pool=False))
    assert isinstance(built.set[2], float)
    assert built.linear.kernel.shape == (6, 3)
    assert build("mine", {}, num_classes=3).set[0] == 4


def test_a_network_from_plain_values_is_the_one_that_its_constructor_makes():
    plain = {"groups": 8, "width": 0.25, "repeats": [1, 1, 1], "stem": {"max_pool": False}}
    built = build("shufflenet", plain, num_classes=10, rngs=nnx.Rngs(3))
    made = shufflenet(
        groups=8,
        width=0.25,
        repeats=(1, 1, 1),
        stem=Stem(max_pool=False),
        num_classes=10,
        rngs=nnx.Rngs(3),
    )
    assert nnx.graphdef(built) == nnx.graphdef(made)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(built), nnx.state(made))
    drawn = build("shufflenet", plain, num_classes=10)
    assert {type(leaf) for leaf in jax.tree.leaves(nnx.state(drawn))} == {jax.ShapeDtypeStruct}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("shufflnet", {}, "unknown network 'shufflnet'; did you mean shufflenet"),
        ("wholly else", {}, "unknown network 'wholly else'; there are shufflenet, "),
        ("shufflenet", {"witdh": 1.0}, "shufflenet: unknown argument 'witdh'; did you mean width?"),
        ("vgg16", {"width": 1.0}, "vgg16: unknown argument 'width'; there are init"),
        ("shufflenet", {"groups": 2.0}, "groups must be an integer, not 2.0"),
        ("shufflenet", {"groups": True}, "groups must be an integer, not True"),
        ("shufflenet", {"shuffle": 1}, "shuffle must be true or false, not 1"),
        ("shufflenet", {"width": "wide"}, "width must be a number, not 'wide'"),
        ("shufflenet", {"rounding": None}, "rounding must be a text, not None"),
        ("shufflenet", {"repeats": "123"}, "repeats must be a list, not '123'"),
        ("shufflenet", {"repeats": [1, "2"]}, "each of repeats must be an integer, not '2'"),
        ("shufflenet", {"stem": {"pool": True}}, "stem must have the fields stride, max_pool, not"),
        ("shufflenet", {"stem": {"stride": "2"}}, "stem.stride must be an integer, not '2'"),
        ("shufflenet", {"stem": {"stride": 3}}, "a stem's stride is 1 or 2, not 3"),
        ("shufflenet", {"groups": 5}, "network shufflenet: 272 channels do not divide into 5"),
    ],
)
def test_what_cannot_be_built_is_refused(name, arguments, message):
    with pytest.raises(InputError, match=message):
        build(name, arguments, num_classes=10)


@pytest.mark.parametrize("name", ["shufflenet", "", "2nd", "my net", "a/b", "../up", "net=1", "é"])
def test_names_that_are_taken_or_none_are_refused(registry, name):
    message = "already" if name == "shufflenet" else "cannot be called"
    with pytest.raises(InputError, match=message):
        register(name, tiny)
    assert registry.get(name) is not tiny
    register("my-own.net_2", tiny)
