"""Which groups of channels a unit's output depends on, by structure and by gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sweeps import SHRUNK, create_sweep

from experiments.__main__ import main
from experiments.report import flow as trained
from experiments.tables import flow
from shufflenet_jax import (
    InputError,
    Network,
    ShuffleUnit,
    Stem,
    channel_shuffle,
    data,
    no_shuffle,
)
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


def network(groups, mix, repeats=(2, 1, 2)):
    """Small, and started with no branch at zero."""
    made = Network(
        partial(ShuffleUnit, groups=groups, mix=mix),
        channels=(24, 48, 96),
        repeats=repeats,
        conv1_channels=12,
        num_classes=5,
        stem=Stem(stride=1, max_pool=False),
        rngs=nnx.Rngs(0),
    )
    initialise(made, "he", nnx.Rngs(1))
    return made


IMAGES = jax.random.normal(jax.random.key(2), (6, 8, 8, 3))
LABELS = np.arange(6) % 5


def test_what_flows_is_what_all_derivatives_say():
    made = network(3, channel_shuffle)
    flows = trained.of_network(made, IMAGES, LABELS)
    assert flows.keys() == {"stage2", "stage4"}  # stage 3 has no unit of stride 1
    first, second = made.stages[0]
    x = first(made.features(IMAGES)["stem"])
    jacobian = jax.jit(jax.jacrev(lambda x: second(x)))(x)  # images, places and channels, twice
    squares = np.square(np.asarray(jacobian)).sum((0, 1, 2, 4, 5, 6)).reshape(3, 8, 3, 8)
    expected = squares.sum((1, 3))
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(flows["stage2"].gradient, expected, atol=0.06)
    assert 0.1 < trained.from_others(flows["stage2"].gradient) < 0.67


def test_without_a_group_is_with_its_mean_instead():
    made = network(2, channel_shuffle, repeats=(1, 1, 2))
    found = trained.of_network(made, IMAGES, LABELS)["stage4"]
    first, second = made.stages[2]
    x = first(made.features(IMAGES)["stage3"])
    y = second(x)

    def error(maps):
        return 100 * np.mean(np.asarray(made.classifier(maps.mean((1, 2)))).argmax(-1) != LABELS)

    changes = np.empty((2, 2))
    for group, channels in enumerate((slice(0, 48), slice(48, 96))):
        other = second(x.at[..., channels].set(x[..., channels].mean((0, 1, 2))))
        changes[:, group] = np.square(np.asarray(other - y)).reshape(-1, 2, 48).sum((0, 2))
        assert found.lost[group] == pytest.approx(error(other) - error(y), abs=1e-4)
    expected = changes / changes.sum(1, keepdims=True)
    np.testing.assert_allclose(found.ablation, expected, rtol=1e-4)


@pytest.mark.parametrize("groups", [2, 3])
def test_without_shuffle_nothing_flows(groups):
    for found in trained.of_network(network(groups, no_shuffle), IMAGES, LABELS).values():
        np.testing.assert_array_equal(found.gradient, np.eye(groups))
        np.testing.assert_array_equal(found.ablation, np.eye(groups))
        assert trained.from_others(found.gradient) == 0


def test_only_networks_with_groups_have_flows():
    for other in (network(1, channel_shuffle), nnx.Linear(2, 3, rngs=nnx.Rngs(0))):
        with pytest.raises(InputError, match="groups of channels are those of a ShuffleNet"):
            trained.of_network(other, IMAGES, LABELS)
    with pytest.raises(InputError, match="no stage of the network has units of stride 1"):
        trained.of_network(network(2, channel_shuffle, repeats=(1, 1, 1)), IMAGES, LABELS)


@pytest.mark.slow
def test_the_flows_of_a_sweep(tmp_path, capsys):
    """Of those of its networks that are trained and have groups, on images of every class."""
    shrunk = [each for each in SHRUNK if "repeats" not in each]
    network = ("--config.network.repeats=1,2,1", "--config.network.init=he")
    arguments = ("--workdir", str(tmp_path / "run"), *shrunk, *network)
    assert main(["run", "table3", "--cells", "0.25x-g3*", *arguments]) == 0
    capsys.readouterr()
    assert main(["flow", "--workdir", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("| 0.25x-g3")]
    assert {line.split()[1] for line in rows} == {"0.25x-g3", "0.25x-g3-noshuffle"}
    for line in rows:
        assert (" 0% " in line) == ("noshuffle" in line)
    digits = data.load("digits")
    some = trained._Some(digits.test, 100)
    assert {some[index]["label"] for index in range(100)} == set(range(10))
    assert some[99]["key"] == digits.test[99 * 449 // 100]["key"]


def test_a_sweep_without_trained_networks_has_none(tmp_path):
    with pytest.raises(InputError, match="no trained ShuffleNet with groups"):
        trained.of_sweep(create_sweep(tmp_path))
