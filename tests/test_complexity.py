"""Multiply-adds and parameters against the paper's, exactly."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from experiments.tables import paper
from shufflenet_jax import abstract, complexity, shufflenet
from shufflenet_jax.zoo import NETWORKS


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


def test_names_say_what_is_built():
    assert "shufflenet_g3_1x" in NETWORKS
    assert "shufflenet_g8_0.25x" in NETWORKS
    network = abstract(NETWORKS["shufflenet_g3_1x_noshuffle"])
    unit = network.stages[0][1]
    assert (unit.groups, unit.mix.__name__) == (3, "no_shuffle")
