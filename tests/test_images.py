"""What networks take: which images, and which numbers when they are built."""

import math
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend import core

from shufflenet_jax import (
    InputError,
    InvertedUnit,
    Network,
    ResidualUnit,
    ShuffleUnit,
    SqueezeExcitation,
    Stem,
    abstract,
    mobilenet_v1,
    normalise,
    shufflenet,
    stage_channels,
    stem_channels,
)
from shufflenet_jax.chwn import form
from shufflenet_jax.layers import BatchNorm, Conv, local_response_norm
from shufflenet_jax.pixels import PIXEL_MEAN, PIXEL_STD
from shufflenet_jax.widths import solve
from shufflenet_jax.zoo import FAMILIES

SMALL = Stem(stride=2, max_pool=False)
UNITS = {"repeats": (1, 1, 1), "stem": SMALL}
FAMILY = {
    "shufflenet": {"channels": (24, 48, 96), "conv1_channels": 12, **UNITS},
    "shufflenet_se": {"channels": (48, 96, 192), "conv1_channels": 12, **UNITS},
    "vgg_like": UNITS,
    "resnet": UNITS,
    "resnext": UNITS,
    "mobilenet_v1": {},
    "mobilenet_v2": {},
    "vgg16": {},
    "googlenet": {},
    "alexnet": {"upscale_to": 64},
    "squeezenet": {},
    "lenet5": {},
}
"""Families that differ in what they are made of, and arguments that make them small."""


@cache
def network(name):
    return abstract(FAMILIES[name].constructor, num_classes=5, **FAMILY[name])


def types_of_products(jaxpr, in_head=False):
    """The types of what every convolution and matrix product before the classifier is given."""
    for eqn in jaxpr.eqns:
        eqn_in_head = in_head or "head" in str(eqn.source_info.name_stack).split("/")
        if eqn.primitive.name in ("conv_general_dilated", "dot_general") and not eqn_in_head:
            yield from (each.aval.dtype.name for each in eqn.invars)
        for sub in core.jaxprs_in_params(eqn.params):
            yield from types_of_products(sub, eqn_in_head)


@pytest.mark.parametrize("name", FAMILY)
def test_networks_compute_in_the_type_of_their_images(name):
    """In evaluation and in training, up to the classifier, whose logits are float32."""
    graphdef, state = nnx.split(network(name))

    def logits(state, images, train):
        return nnx.merge(graphdef, state, copy=True)(images, train=train)

    for chosen, dtype, train in (
        ("direct", jnp.bfloat16, False),
        ("matmul", jnp.bfloat16, True),
        ("direct", jnp.float16, True),
    ):
        images = jax.ShapeDtypeStruct((2, 32, 32, 3), dtype)
        with form(chosen):
            traced = jax.make_jaxpr(partial(logits, train=train))(state, images)
        assert [(each.dtype.name, each.shape) for each in traced.out_avals] == [("float32", (2, 5))]
        assert set(types_of_products(traced.jaxpr)) == {jnp.dtype(dtype).name}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_maps_have_the_type_of_the_images(dtype):
    graphdef, state = nnx.split(network("shufflenet"))
    images = jax.ShapeDtypeStruct((2, 16, 16, 3), dtype)
    for train in (False, True):
        maps = jax.eval_shape(
            lambda state, images, train=train: nnx.merge(graphdef, state, copy=True).features(
                images, train=train
            ),
            state,
            images,
        )
        assert {each.dtype for each in maps.values()} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("layer", ["norm", "statistics", "local_response_norm"])
def test_normalisation_of_16_bits_rounds_once(layer):
    """What is normalised is computed in float32: off by half a unit of the last place at most."""
    maps = jnp.asarray(np.random.default_rng(0).normal(100, 1, (4, 3, 3, 2)), jnp.bfloat16)
    norm = BatchNorm(4, rngs=nnx.Rngs(0))
    norm.mean[...], norm.bias[...] = jnp.full(4, 100.3), jnp.full(4, 0.7)
    norm.scale[...] = jnp.array([0.3, 0.7, 1.1, 1.7])
    compute = {
        "norm": partial(norm, use_running_average=True),
        "statistics": lambda x: norm(x, use_running_average=False),
        "local_response_norm": local_response_norm,
    }[layer]
    found, wide = compute(maps), compute(maps.astype(jnp.float32))
    assert found.dtype == jnp.bfloat16
    assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float32
    np.testing.assert_array_equal(found, wide.astype(jnp.bfloat16))


IMAGES = np.zeros((2, 32, 32, 3), np.float32)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            IMAGES.astype(np.uint8),
            "images are float32, bfloat16, float16, not uint8: normalise them first, with "
            "shufflenet_jax.normalise",
        ),
        (IMAGES.astype(np.int32), "not int32: normalise them first"),
        (IMAGES[0], r"images are \(batch, height, width, channels\), not of shape \(32, 32, 3\)"),
        (IMAGES[None], r"not of shape \(1, 2, 32, 32, 3\)"),
        (IMAGES[:0], r"images of shape \(0, 32, 32, 3\) have no values"),
        (IMAGES[..., :1], "images have 3 channels, not 1"),
        (np.zeros((2, 32, 32, 4), np.float32), "images have 3 channels, not 4"),
    ],
)
def test_images_that_no_network_takes_are_refused_at_its_door(name, images, message):
    if name == "lenet5" and "channels, not" in message:
        return  # it takes colours and gray alike
    with pytest.raises(InputError, match=message):
        network(name)(images)
    if isinstance(network(name), Network):
        with pytest.raises(InputError, match=message):
            network(name).features(images)


def test_units_refuse_maps_of_other_types_and_channels():
    unit = abstract(ShuffleUnit, in_channels=24, out_channels=24, stride=1, groups=3)
    with pytest.raises(InputError, match="maps are float32, bfloat16, float16, not int32"):
        unit(jnp.zeros((2, 4, 4, 24), jnp.int32))
    with pytest.raises(InputError, match=r"not of shape \(4, 4, 24\); one alone is a batch of 1"):
        unit(jnp.zeros((4, 4, 24)))
    graphdef, state = nnx.split(unit)
    with pytest.raises(InputError, match="in 3 groups is for 24 channels, not 12"):
        jax.eval_shape(lambda state: nnx.merge(graphdef, state)(jnp.zeros((2, 4, 4, 12))), state)


def test_images_of_numpy_are_taken_as_jax_takes_them():
    """Its default type has 64 bits, which JAX makes 32."""
    built = Network(
        partial(ShuffleUnit, groups=1),
        channels=(12,),
        repeats=(1,),
        conv1_channels=8,
        num_classes=5,
        stem=SMALL,
        rngs=nnx.Rngs(0),
    )
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    logits = jax.jit(lambda images: built(images))(images)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(built(images), logits, atol=1e-5)


def test_bytes_are_normalised_by_channel():
    images = np.array([0, 255], np.uint8).reshape(1, 2, 1, 1).repeat(3, axis=-1)
    low, high = np.asarray(normalise(images))[0, :, 0]
    np.testing.assert_allclose(low, -np.array(PIXEL_MEAN) / PIXEL_STD, rtol=1e-6)
    np.testing.assert_allclose(high - low, 1 / np.array(PIXEL_STD), rtol=1e-6)


BUILD = partial(
    Network,
    partial(ShuffleUnit, groups=1),
    channels=(12, 24),
    repeats=(1, 1),
    conv1_channels=8,
)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(shufflenet, repeats=(0, 8, 4)), r"repeats of all .* at least 1, not \(0, 8, 4\)"),
        (partial(shufflenet, repeats=(-1, 8, 4)), r"at least 1, not \(-1, 8, 4\)"),
        (partial(shufflenet, repeats=(0, 0, 0)), r"at least 1, not \(0, 0, 0\)"),
        (partial(shufflenet, channels=(0, 48, 96)), r"channels of all .*, not \(0, 48, 96\)"),
        (partial(BUILD, strides=(0, 2)), r"strides of all stages are at least 1, not \(0, 2\)"),
        (partial(BUILD, channels=(), repeats=()), r"channels of all stages .*, not \(\)"),
        (partial(BUILD, num_classes=0), "num_classes must be at least 1, not 0"),
        (partial(BUILD, conv1_size=0), "conv1_size must be at least 1, not 0"),
        (partial(shufflenet, conv1_channels=0), "conv1_channels must be at least 1, not 0"),
        (partial(shufflenet, groups=0), "groups must be at least 1, not 0"),
        (partial(shufflenet, num_classes=-3), "num_classes must be at least 1, not -3"),
        (partial(shufflenet, width=math.nan), "width must be positive and finite, not nan"),
        (partial(shufflenet, width=math.inf), "width must be positive and finite, not inf"),
        (partial(shufflenet, width=0.0), "width must be positive and finite, not 0.0"),
        (partial(mobilenet_v1, width=math.nan), "width must be a finite number, not nan"),
        (partial(mobilenet_v1, width=math.inf), "width must be a finite number, not inf"),
        (partial(mobilenet_v1, num_classes=0), "num_classes must be at least 1, not 0"),
        *(
            (partial(FAMILIES[name].constructor, num_classes=0), "num_classes must be at least 1")
            for name in ("lenet5", "squeezenet")
        ),
        *(
            (partial(FAMILIES[name].constructor, upscale_to=-1), "0 for never, not -1")
            for name in ("alexnet", "squeezenet")
        ),
        (partial(FAMILIES["googlenet"].constructor, large_kernel=4), "must be odd, .* not 4"),
        (partial(Conv, 3, 0), "out_channels must be at least 1, not 0"),
        (partial(Conv, 3, 4, 0), "kernel_size must be at least 1, not 0"),
        (partial(Conv, 3, 4, stride=0), "stride must be at least 1, not 0"),
        (partial(ShuffleUnit, 24, 24, 1, groups=3, ratio=0), "ratio must be at least 1, not 0"),
        (partial(ShuffleUnit, 2, 2, 1, groups=1), "out_channels must be at least 1, not 0"),
        (partial(ResidualUnit, 24, 24, 1, groups=0), "groups must be at least 1, not 0"),
        (partial(InvertedUnit, 8, 8, 1, expansion=0), "expansion must be at least 1, not 0"),
        (
            partial(SqueezeExcitation, 24, 24, 1, unit=ShuffleUnit, groups=3, reduction=0),
            "24 channels do not divide into 0 groups",
        ),
    ],
)
def test_numbers_that_no_network_has_are_named(build, message):
    with pytest.raises(InputError, match=message):
        build(rngs=nnx.Rngs(0))


@pytest.mark.parametrize("width", [math.nan, math.inf, 0.0, -1.0])
@pytest.mark.parametrize("channels", [stem_channels, partial(stage_channels, 3)])
def test_widths_that_no_network_has_are_named(channels, width):
    with pytest.raises(InputError, match=f"width must be positive and finite, not {width}"):
        channels(width)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"macs": 0, "conv1_channels": 12}, "macs must be at least 1, not 0"),
        ({"macs": 10**6, "conv1_channels": 0}, "conv1_channels must be at least 1, not 0"),
        ({"macs": 10**6, "conv1_channels": 12, "ratio": 0}, "ratio must be at least 1, not 0"),
    ],
)
def test_budgets_that_no_network_has_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        solve(partial(ShuffleUnit, groups=1), **arguments)


def test_a_unit_that_no_channels_suit_has_no_widths():
    def never(in_channels, out_channels, stride, *, rngs):
        raise InputError("no channels suit")

    with pytest.raises(InputError, match="no network of the unit takes 1,000,000 multiply-adds"):
        solve(never, 10**6, conv1_channels=12)
