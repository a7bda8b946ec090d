"""Table 1: output sizes, channels and what the skeleton does with a unit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from shufflenet_jax import (
    InputError,
    Stem,
    Unit,
    abstract,
    shufflenet,
    stage_channels,
    stem_channels,
)
from shufflenet_jax.chwn import form
from shufflenet_jax.train import split

TABLE1 = {
    1: (144, 288, 576),
    2: (200, 400, 800),
    3: (240, 480, 960),
    4: (272, 544, 1088),
    8: (384, 768, 1536),
}


NAMES = ("stem", "stage2", "stage3", "stage4")


def features_of(shape, **arguments):
    """Shapes of the named stage outputs, without computing anything."""

    graphdef, state = nnx.split(abstract(shufflenet, **arguments))

    def features(state, images):
        return nnx.merge(graphdef, state).features(images)

    outputs = jax.eval_shape(features, state, jax.ShapeDtypeStruct(shape, jnp.float32))
    return {name: output.shape for name, output in outputs.items()}


@pytest.mark.parametrize("groups", TABLE1)
def test_output_sizes_of_table_1(groups):
    stage2, stage3, stage4 = TABLE1[groups]
    assert features_of((2, 224, 224, 3), groups=groups) == {
        "stem": (2, 56, 56, 24),
        "stage2": (2, 28, 28, stage2),
        "stage3": (2, 14, 14, stage3),
        "stage4": (2, 7, 7, stage4),
    }


def test_other_image_sizes_round_up():
    sizes = features_of((1, 225, 97, 3), groups=3)
    assert [sizes[name][1:3] for name in NAMES] == [(57, 25), (29, 13), (15, 7), (8, 4)]


@pytest.mark.parametrize(("stride", "first"), [(1, 32), (2, 16)])
def test_small_stem_keeps_small_images_large(stride, first):
    sizes = features_of((1, 32, 32, 3), stem=Stem(stride=stride, max_pool=False))
    assert [sizes[name][1] for name in NAMES] == [first, first // 2, first // 4, first // 8]


@pytest.mark.parametrize(
    ("groups", "width", "rounding", "expected"),
    [
        (3, 1.0, "stage", (240, 480, 960)),
        (4, 0.5, "exact", (136, 272, 544)),
        (4, 0.5, "stage", (144, 272, 544)),
        (4, 0.5, "double", (144, 288, 576)),
        (8, 0.25, "stage", (96, 192, 384)),
        (2, 0.25, "stage", (56, 104, 200)),
        (3, 2.0, "stage", (480, 960, 1920)),
    ],
)
def test_stage_channels(groups, width, rounding, expected):
    assert stage_channels(groups, width, rounding) == expected


def test_stem_channels_are_those_of_the_papers_mflops():
    widths = (0.25, 0.5, 1.0, 1.5, 2.0)
    assert [stem_channels(width) for width in widths] == [12, 12, 24, 24, 48]
    assert [stem_channels(0.25, groups) for groups in (1, 2, 3, 4, 8)] == [12, 8, 12, 8, 8]
    assert [stem_channels(0.5, groups) for groups in (1, 2, 3, 4, 8)] == [12, 12, 12, 12, 16]


def test_networks_that_are_not_valid_name_both_numbers():
    build = partial(abstract, shufflenet)
    with pytest.raises(InputError, match="34 channels do not divide into 4 groups"):
        build(groups=4, width=0.5, rounding="exact")
    with pytest.raises(InputError, match="272 channels do not divide into 7 groups"):
        build(groups=7)
    with pytest.raises(InputError, match="unknown rounding 'up'"):
        build(rounding="up")
    build(groups=5, channels=(220, 440, 880), conv1_channels=25)  # valid without Table 1


def test_first_pointwise_of_stage_2_is_not_grouped():
    network = abstract(shufflenet, groups=8, width=0.25)
    first, second = network.stages[0][0], network.stages[0][1]
    assert (first.reduce.conv.groups, first.expand.conv.groups) == (1, 8)
    assert (second.reduce.conv.groups, second.expand.conv.groups) == (8, 8)
    assert [len(stage) for stage in network.stages] == [4, 8, 4]


def test_any_unit_takes_the_place_of_the_shuffle_unit():
    class Doubling(Unit):
        def __init__(self, in_channels, out_channels, stride, *, rngs, **_):
            self.stride, self.repeat = stride, out_channels // in_channels

        def forward(self, x, *, train):
            return jnp.repeat(x[:, :: self.stride, :: self.stride], self.repeat, axis=0)

    network = shufflenet(unit=Doubling, channels=(24, 48, 96), num_classes=5, rngs=nnx.Rngs(0))
    assert jax.jit(network)(jnp.ones((2, 64, 64, 3))).shape == (2, 5)


def test_both_forms_of_the_whole_network_agree():
    network = shufflenet(width=0.25, num_classes=10, repeats=(1, 2, 1), rngs=nnx.Rngs(0))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 64, 64, 3)), jnp.float32)
    graphdef, params, batch_stats = split(network)
    logits = {}
    for name in ("direct", "matmul"):
        with form(name):
            merged = nnx.merge(graphdef, params, batch_stats)
            logits[name] = jax.jit(merged)(images)
    scale = jnp.abs(logits["direct"]).max()
    np.testing.assert_allclose(logits["matmul"], logits["direct"], atol=1e-5 * scale)


def test_a_network_of_one_unit_has_its_first():
    one = abstract(shufflenet, groups=3, channels=(240,), repeats=(1,))
    assert one.stages[0][0].reduce.conv.groups == 1  # the others have 3
