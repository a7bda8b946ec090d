"""Which groups of channels a unit's output depends on, by structure and by gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.tables import flow
from shufflenet_jax import ShuffleUnit, channel_shuffle, no_shuffle
from shufflenet_jax.initialisation import initialise


@pytest.mark.parametrize("mix", [no_shuffle, channel_shuffle])
@pytest.mark.parametrize(("channels", "groups"), [(24, 3), (32, 2), (96, 8)])
def test_a_channel_depends_on_what_gradients_reach(channels, groups, mix):
    unit = ShuffleUnit(channels, channels, 1, groups=groups, mix=mix, rngs=nnx.Rngs(0))
    initialise(unit, "he", nnx.Rngs(0))  # with a branch that is not zero
    x = jax.random.normal(jax.random.key(0), (4, 3, 3, channels))
    jacobian = jax.jit(jax.jacrev(lambda x: unit(x).sum((0, 1, 2))))(x)
    expected = np.asarray(jnp.abs(jacobian).sum((1, 2, 3)) > 0)
    np.testing.assert_array_equal(flow.reached(unit), expected)


def test_every_group_is_reached_with_shuffle_and_only_its_own_without():
    found = {(each.width, each.groups, each.shuffled): each for each in flow.reaches()}
    for (_, groups, shuffled), reach in found.items():
        if shuffled:
            # A group of the bottleneck sees as many groups as it has channels; with the shortcut,
            # a channel's own too.
            assert reach.fewest[0] >= min(groups, reach.bottleneck)
            assert reach.fewest[-1] == groups
        else:
            assert set(reach.fewest) == {1}
    assert found[0.25, 8, True].fewest[0] < 8 == found[1.0, 8, True].fewest[0]


def test_the_table_has_a_row_for_each_network():
    lines = flow.table().splitlines()
    assert len([line for line in lines if "x g=" in line]) == 12
