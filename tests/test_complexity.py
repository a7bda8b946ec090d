"""Multiply-adds and parameters against the paper's, exactly."""

from functools import cache

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from experiments.tables import paper
from shufflenet_jax import InputError, abstract, complexity, fold, shufflenet
from shufflenet_jax.layers import Classifier, ConvNorm
from shufflenet_jax.zoo import NETWORKS


@cache
def count(shape=(224, 224, 3), **arguments):
    return complexity(abstract(shufflenet, **arguments), shape)


@pytest.mark.parametrize(
    ("groups", "mflops", "params"),
    [
        # Table 1's row to two decimals, without the classifier; conv1 24, FC with bias.
        (1, 142.50, 1_531_936),
        (2, 140.04, 1_733_848),
        (3, 136.50, 1_865_728),
        (4, 133.25, 1_968_344),
        (8, 136.83, 2_434_768),
    ],
)
def test_table_1(groups, mflops, params):
    counted = count(groups=groups)
    assert round(counted.macs_without_head / 1e6, 2) == mflops
    assert round(counted.macs_without_head / 1e6) == paper.TABLE1_MFLOPS[groups]
    assert counted.params == params
    assert counted.macs - counted.macs_without_head == 1000 * 4 * {
        1: 144, 2: 200, 3: 240, 4: 272, 8: 384
    }[groups]  # fmt: skip


@pytest.mark.parametrize(("width", "mflops"), [(2.0, 524), (1.5, 292)])
def test_table_5_counts_the_classifier(width, mflops):
    assert round(count(groups=3, width=width).macs / 1e6) == mflops


def test_one_convolution_by_hand():
    """Section 3.2: the unit costs hw(2cm/g + 9m) multiply-adds."""
    c, m, g, size = 240, 60, 3, 28
    whole = count(groups=g, repeats=(2, 8, 4))
    one_more = count(groups=g, repeats=(3, 8, 4))
    unit = one_more.macs - whole.macs
    assert unit == size * size * (2 * c * m // g + 9 * m)


def test_shuffle_costs_nothing():
    assert count(groups=8, width=0.5, shuffle=False) == count(groups=8, width=0.5)


def test_counts_grow_with_the_area_and_params_do_not():
    small, large = count((224, 224, 3)), count((448, 448, 3))
    assert large.macs_without_head == 4 * small.macs_without_head
    assert large.params == small.params


def test_real_networks_count_like_abstract_ones():
    network = shufflenet(groups=3, width=0.25, rngs=nnx.Rngs(0))
    assert complexity(network, (224, 224, 3)) == count(groups=3, width=0.25)
    shapes = nnx.split(nnx.eval_shape(lambda: network))
    assert shapes == nnx.split(abstract(shufflenet, groups=3, width=0.25))
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
        == complexity(network, (32, 32, 3)).params
    )


@pytest.mark.slow
def test_default_rounding_agrees_best_with_the_paper():
    def distance(rounding):
        return sum(
            abs(count(groups=g, width=w, rounding=rounding).macs_without_head / 1e6 / mflops - 1)
            for w, mflops in paper.TABLE2_MFLOPS.items()
            for g in (2, 4)  # the only group counts where the rules differ
        )

    assert distance("stage") < distance("double")


def test_matmuls_in_nested_calls_are_counted():
    class Nested(nnx.Module):
        def __call__(self, images, train):
            del train
            flat = images.reshape(1, -1)
            return jax.jit(lambda x: jnp.dot(x.T, x))(flat)

    assert complexity(Nested(), (2, 2, 3)).macs == 12 * 12


class Product(nnx.Module):
    """12 * 12 multiply-adds, made by a function of the flat image and of a matrix product."""

    def __init__(self, function):
        self.function = function

    def __call__(self, images, train):
        del train
        square = images.reshape(12, 1) * images.reshape(1, 12)
        return self.function(square, lambda x: x @ jnp.ones(12))


def repeated(times):
    """A function that a loop calls so often on what it returned."""

    def repeat(function, x):
        return jax.lax.scan(lambda x, _: (function(x), None), x, None, length=times)[0]

    return repeat


def product_twelve(x):
    return x @ jnp.ones((12, 12))


@pytest.mark.parametrize(
    ("function", "macs"),
    [
        (lambda x, dot: dot(x), 12 * 12),
        (lambda x, dot: jax.lax.scan(lambda y, row: (y, row @ jnp.ones(12)), 0, x)[1], 12 * 12),
        (lambda x, dot: repeated(5)(product_twelve, x), 5 * 12**3),
        (
            lambda x, dot: repeated(5)(lambda y: repeated(3)(product_twelve, y), x),
            15 * 12**3,
        ),
        (lambda x, dot: jax.lax.fori_loop(0, 7, lambda _, y: product_twelve(y), x), 7 * 12**3),
        (lambda x, dot: jax.lax.map(dot, jnp.stack([x, x])), 2 * 12 * 12),
        # The branch that costs most, wherever it stands.
        (lambda x, dot: jax.lax.cond(x.sum() > 0, dot, lambda x: x[0], x), 12 * 12),
        (lambda x, dot: jax.lax.cond(x.sum() > 0, lambda x: x[0], dot, x), 12 * 12),
        (lambda x, dot: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x + 1, x), 0),
    ],
)
def test_loops_and_branches(function, macs):
    assert complexity(Product(function), (2, 2, 3)).macs == macs


def test_a_loop_that_runs_who_knows_how_often_cannot_be_counted():
    def endless(x, dot):
        del dot
        return jax.lax.while_loop(lambda x: x.sum() < 9, product_twelve, x)

    with pytest.raises(InputError, match="a loop without a fixed number of turns cannot be"):
        complexity(Product(endless), (2, 2, 3))


def test_a_module_of_ones_own_is_counted_and_folded():
    """It has no `widths`, no stages and no stem; what it calls the head counts as that."""

    class Own(nnx.Module):
        def __init__(self, *, rngs):
            self.box = ConvNorm(3, 8, 3, groups=1, rngs=rngs)
            self.classifier = Classifier(8, 5, rngs=rngs)

        def __call__(self, images, *, train):
            x = self.box(jnp.transpose(images, (3, 1, 2, 0)), train=train)
            return self.classifier(x.mean((1, 2)).T)

    counted = complexity(abstract(Own), (4, 6, 3))
    assert counted.macs_without_head == 4 * 6 * 9 * 3 * 8
    assert counted.macs - counted.macs_without_head == 8 * 5
    assert counted.params == 9 * 3 * 8 + 2 * 8 + 8 * 5 + 5
    folded = complexity(fold(Own(rngs=nnx.Rngs(0))), (4, 6, 3))
    assert (folded.macs, folded.params) == (counted.macs, counted.params - 8)


def test_names_say_what_is_built():
    assert "shufflenet_g3_1x" in NETWORKS
    assert "shufflenet_g8_0.25x" in NETWORKS
    network = abstract(NETWORKS["shufflenet_g3_1x_noshuffle"])
    unit = network.stages[0][1]
    assert (unit.groups, unit.mix.__name__) == (3, "no_shuffle")
