"""How networks start: what is drawn, by which scheme, and what a network computes then."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.sweep.budgets import budget
from experiments.sweep.build import network_of
from experiments.sweep.configuration import identity, override
from shufflenet_jax import (
    InputError,
    ResidualUnit,
    ShuffleUnit,
    SqueezeExcitation,
    Stem,
    shufflenet,
    zoo,
)
from shufflenet_jax.initialisation import DEFAULT, SCHEMES, initialise
from shufflenet_jax.layers import BatchNorm, Classifier, Conv, ConvNorm, Linear
from shufflenet_jax.models.mobilenet import InvertedUnit

STEM = Stem(stride=2, max_pool=False)


def small(**options):
    return shufflenet(groups=3, width=0.25, num_classes=10, stem=STEM, **options)


def weights(network):
    return jax.tree.leaves(nnx.to_pure_dict(nnx.state(network, nnx.Param)))


@pytest.mark.parametrize(
    ("scheme", "normalised", "depthwise", "plain", "classifier"),
    [
        # Standard deviations: He et al. 2 / fan in; a uniform distribution up to a has a / sqrt(3).
        ("ours", 1 / math.sqrt(3 * 400), 1 / math.sqrt(27), math.sqrt(2 / 400), 0.0),
        ("he", math.sqrt(2 / 400), math.sqrt(2 / 9), math.sqrt(2 / 400), 0.01),
        *[("pytorch", 1 / math.sqrt(3 * 400), 1 / math.sqrt(27), *[1 / math.sqrt(3 * 400)] * 2)],
        ("authors", 1 / 400, 1.0, 0.01, 0.01),
    ],
)
def test_the_scale_of_what_is_drawn(scheme, normalised, depthwise, plain, classifier):
    rngs = nnx.Rngs(0)
    layers = nnx.List(
        [
            ConvNorm(800, 500, groups=2, rngs=rngs).conv,
            ConvNorm(4000, 4000, 3, groups=4000, rngs=rngs).conv,
            Linear(400, 500, rngs=rngs),
            Classifier(400, 500, rngs=rngs),
        ]
    )
    initialise(layers, scheme, nnx.Rngs(1))
    for layer, expected in zip(layers, (normalised, depthwise, plain, classifier), strict=True):
        kernel = np.asarray(layer.kernel[...])
        assert kernel.std() == pytest.approx(expected, rel=0.02)
        assert abs(kernel.mean()) <= 0.02 * expected
        # No value twice, though they are drawn in runs of one length.
        assert len(np.unique(kernel)) > 0.95 * kernel.size or expected == 0


def test_biases():
    layer, convolution = (
        Linear(400, 500, rngs=nnx.Rngs(0)),
        Conv(100, 500, 2, bias=True, rngs=nnx.Rngs(0)),
    )
    norm = BatchNorm(7, rngs=nnx.Rngs(0))
    everything = nnx.List([layer, convolution, norm])
    for scheme, deviation, shift in (
        ("ours", 0, 0),
        ("pytorch", 0.05 / math.sqrt(3), 0),
        ("authors", 0, 1e-4),
    ):
        initialise(everything, scheme, nnx.Rngs(1))
        for each in (layer, convolution):
            assert np.std(each.bias[...]) == pytest.approx(deviation, rel=0.1)
        np.testing.assert_allclose(norm.bias[...], shift)


def test_images_enter_by_smaller_weights_in_the_authors_scheme():
    network = small(rngs=nnx.Rngs(0))
    initialise(network, "authors", nnx.Rngs(0))
    assert np.std(network.conv1.conv.kernel[...]) == pytest.approx(0.01, rel=0.15)


def test_a_constructor_under_jit_draws_the_same():
    eager = weights(small(rngs=nnx.Rngs(3)))
    traced = jax.jit(lambda: weights(small(rngs=nnx.Rngs(3))))()
    for one, other in zip(eager, traced, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_depends_on_the_key_alone(scheme):
    """Not on what a network was before, nor is any layer left as it was."""
    network, other = small(rngs=nnx.Rngs(0)), small(rngs=nnx.Rngs(1))
    network.stages[0][0].expand.norm.mean[...] = jnp.ones(48)
    for each in (network, other):
        initialise(each, scheme, nnx.Rngs(2))
    states = [nnx.to_pure_dict(nnx.split(each)[1]) for each in (network, other)]
    jax.tree.map(np.testing.assert_array_equal, *states)
    initialise(other, scheme, nnx.Rngs(3))
    changed = [
        not np.array_equal(one, two)
        for one, two in zip(weights(network), weights(other), strict=True)
        if one.ndim > 1
    ]
    assert sum(changed) >= len(changed) - 1  # the classifier may start with zeros


@pytest.mark.parametrize(
    ("make", "starts_as_shortcut"),
    [
        (lambda rngs: ShuffleUnit(24, 24, 1, groups=3, rngs=rngs), True),
        (lambda rngs: ShuffleUnit(24, 48, 2, groups=3, rngs=rngs), False),
        (lambda rngs: ResidualUnit(24, 24, 1, rngs=rngs), True),
        (lambda rngs: ResidualUnit(24, 48, 2, pooled=True, rngs=rngs), False),
        (lambda rngs: InvertedUnit(24, 24, 1, rngs=rngs), True),
        (lambda rngs: InvertedUnit(24, 48, 1, rngs=rngs), False),
        (
            lambda rngs: SqueezeExcitation(
                24, 24, 1, unit=ShuffleUnit, groups=3, reduction=2, rngs=rngs
            ),
            False,
        ),
    ],
)
def test_a_residual_unit_starts_as_its_shortcut(make, starts_as_shortcut):
    unit = make(nnx.Rngs(0))
    x = jnp.abs(jax.random.normal(jax.random.key(0), (2, 6, 6, 24)))
    initialise(unit, "ours", nnx.Rngs(0))
    y = unit(x, train=True)
    if starts_as_shortcut:
        np.testing.assert_array_equal(y, x)
    else:
        # Nor as its shortcut times a weight for each channel.
        assert y.shape != x.shape or np.std(y / x, (1, 2)).min() > 0.1
    initialise(unit, "he", nnx.Rngs(0))
    assert unit(x, train=True).shape != x.shape or np.abs(unit(x, train=True) - x).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_the_loss_before_the_first_step_is_that_of_guessing(name):
    size = {"lenet5": 32, "alexnet": 67, "alexnet_one_tower": 67}.get(name, 48)
    classes = 10 if name == "lenet5" else 1000
    network = zoo.build(name, {}, num_classes=classes, rngs=nnx.Rngs(0))
    graphdef, params, rest = nnx.split(network, nnx.Param, ...)
    images = jax.random.normal(jax.random.key(0), (2, size, size, 3))

    def loss_of(params):
        logits = nnx.merge(graphdef, params, rest, copy=True)(images, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(2)).mean()

    assert float(jax.jit(loss_of)(params)) == pytest.approx(math.log(classes), rel=0.05)


def test_a_relu_after_the_classifier_cuts_no_class_off():
    """From biases of 0 it cut off half of SqueezeNet's outputs at once, and soon all of them."""
    network = zoo.build("squeezenet", {}, num_classes=10, rngs=nnx.Rngs(0))
    graphdef, params, rest = nnx.split(network, nnx.Param, ...)
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))

    def logits_of(params):
        return nnx.merge(graphdef, params, rest, copy=True)(images, train=True)

    np.testing.assert_array_equal(logits_of(params), 1)
    # Each position of the last map has its share in each logit.
    gradient = jax.grad(lambda params: logits_of(params).sum())(params)
    np.testing.assert_allclose(gradient.classifier.bias[...], 2, rtol=1e-6)


def test_a_configuration_chooses_it():
    config = budget("digits")
    assert config.network.init == DEFAULT
    override(config, ["network.width=0.25", "network.init=authors"])
    network = network_of(identity(config), 10, nnx.Rngs(0))
    expected = small(rngs=nnx.Rngs(0))
    initialise(expected, "authors", nnx.Rngs(5))
    found = [np.std(each) for each in weights(network)]
    np.testing.assert_allclose(found, [np.std(each) for each in weights(expected)], rtol=0.5)
    override(config, ["network.name=mobilenet_v1"])
    assert config.network.init == "authors"
    override(config, ["network.init=xavier"])
    with pytest.raises(InputError, match=r"unknown initialisation 'xavier'; there are .*authors"):
        network_of(identity(config), 10)
