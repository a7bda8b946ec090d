"""The benchmark of input: every peer does the same recipe to the same files."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from experiments.bench import input, input_peers
from experiments.bench.input_peers import PEERS
from shufflenet_jax.data import Preprocessing

FEW = dataclasses.replace(input.LARGE, images=24, batch=8)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Of 8 classes, with 3 images each of very different brightness."""
    root = tmp_path_factory.mktemp("images")
    for split in ("train", "val"):
        for label in range(8):
            (root / split / f"class{label}").mkdir(parents=True)
            for number in range(3):
                level = np.full((60, 80, 3), 60 * number + 60, np.uint8)
                level[:, :40] //= 2  # dark on the left
                Image.fromarray(level).save(root / split / f"class{label}" / f"{number}.jpg")
    return root


def peers():
    return [
        pytest.param(name, marks=pytest.mark.slow) if peer.packages else name
        for name, peer in PEERS.items()
    ]


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")  # of torchvision
@pytest.mark.parametrize("name", peers())
def test_a_peer_does_the_whole_recipe_to_every_file(images, name):
    """Once an epoch, in random order, mirrored or not, in other colours each time."""
    for package in PEERS[name].packages:
        pytest.importorskip(package)
    batches = PEERS[name].make(images, 24)
    means, orders, sides = [], set(), []
    for _ in range(3):
        pixels, labels = next(batches)
        assert pixels.shape == (24, 224, 224, 3)
        assert pixels.dtype == np.uint8
        if not name.startswith("tf.data"):  # there an epoch runs into the next
            assert sorted(labels) == sorted([*range(8)] * 3)
        orders.add(tuple(labels))
        means.append(pixels.mean(axis=(1, 2, 3)))
        left, right = (
            pixels[:, :, :60].mean(axis=(1, 2, 3)),
            pixels[:, :, -60:].mean(axis=(1, 2, 3)),
        )
        sides.append(left < right)
    assert len(orders) == 3
    assert 15 <= np.sum(sides) <= 57  # of 72
    spread = np.concatenate(means)
    assert len(np.unique(spread.round(3))) > 60  # brightness is of each image
    assert 75 <= spread.mean() <= 105
    assert 25 <= spread.std() <= 60
    channels = pixels.mean(axis=(1, 2))
    assert (np.ptp(channels, axis=1) > 0.3).any()  # lighting is not quite gray


def test_rows_of_peers(images):
    """Ours first; who is not installed is left out, and said to be."""
    missing = input_peers.InputPeer(("no_such_package",), input_peers._ours)
    assert missing.missing() == "no_such_package is not installed"
    assert next(iter(PEERS)) == "ours"
    times = input.recipe_seconds(images, ["ours"], rounds=2, batches=1, batch_size=8)
    assert list(times) == ["ours"]
    assert all(0 < seconds < 1 for seconds in times["ours"])
    text = input._recipe_table(images, times)
    (row,) = [line for line in text.splitlines() if line.startswith("| ours")]
    assert row.split()[-2] == "1.00"
    assert "24 JPEGs of" in text


@pytest.mark.slow
def test_steps_and_ways(tmp_path):
    setting = dataclasses.replace(
        input.SMALL, images=32, batch=16, steps=1, preprocessing=Preprocessing(32, color=0.0)
    )
    setting = dataclasses.replace(setting, ways=("streamed",))
    input.draw(tmp_path, setting)
    assert len(input_peers.files_of(tmp_path)) == 32
    times = input.step_times(setting, str(tmp_path), rounds=2)
    assert list(times) == [input._BASE, "streamed"]
    assert all(len(turns) == 2 and min(map(min, turns)) > 0 for turns in times.values())
    assert input._ratios([(2.0, 3.0), (4.0, 6.0)], [(1.0, 1.0), (2.0, 2.0)]) == [2.0, 3.0]
    found = input.cpu_seconds(setting, str(tmp_path))
    assert list(found) == ["streamed"]
