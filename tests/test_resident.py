"""Images that stay on the devices: the same batches as without, and each image read once."""

import dataclasses
import sys

import jax
import numpy as np
import pytest
from runs import differences
from test_broken import AUGMENTED, BROKEN, Normalised, write_pets

from shufflenet_jax import data
from shufflenet_jax.data import fits
from shufflenet_jax.data.preprocess import draw_moves
from shufflenet_jax.devices import ONE_DEVICE
from shufflenet_jax.errors import InputError
from shufflenet_jax.fit import Intervals, Preempted, fit
from shufflenet_jax.inputs import Streamed
from shufflenet_jax.metrics import read_metrics
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.resident import Resident

MOVED = dataclasses.replace(AUGMENTED, color=0.0, lighting=0.0)


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> data.Dataset:
    """40 images to train on and 12 to test on, some broken and some unusual."""
    return data.load(f"folder:{write_pets(tmp_path_factory.mktemp('pets'), BROKEN)}")


def inputs(kind, dataset, directory, preprocessing=MOVED, budget=0.1, **options):
    """Of one of the two ways; broken images are skipped."""
    skipped = {
        "train": data.Skipped("train", len(dataset.train), budget, directory),
        "test": data.Skipped("test", len(dataset.test), budget, directory),
    }
    arguments = {
        "batch_size": 16,
        "devices": ONE_DEVICE,
        "num_workers": 0,
        "skipped": skipped,
        "go_on": lambda: None,
    }
    return kind(dataset=dataset, preprocessing=preprocessing, **(arguments | options))


def assert_equal_batches(got, expected):
    for one, other in zip(got, expected, strict=True):
        for leaf, other_leaf in zip(*map(jax.tree.leaves, (one, other)), strict=True):
            assert leaf.dtype == other_leaf.dtype
            np.testing.assert_array_equal(leaf, other_leaf)


@pytest.mark.parametrize(
    ("options", "batch_size"),
    [
        ({}, 16),
        ({"flip": False}, 7),
        ({"shift": 0.0}, 40),
        ({"shift": 1.0}, 1),  # some images leave the view
        ({"image_size": 9, "shift": 0.3, "eval_resize": 1.2}, 16),
    ],
)
def test_batches_are_those_of_images_read_anew_bit_by_bit(pets, tmp_path, options, batch_size):
    """Order, moves, flips, stand-ins, labels and masks, over three epochs; then the evaluation."""
    preprocessing = dataclasses.replace(MOVED, **options)
    resident, streamed = (
        inputs(kind, pets, tmp_path, preprocessing, batch_size=batch_size)
        for kind in (Resident, Streamed)
    )
    steps = 3 * 40 // batch_size
    expected = list(streamed.train(3, steps, 0))
    assert sum((~batch.mask).sum() for batch in expected) in (8, 9)  # of three, in three epochs
    assert_equal_batches(resident.train(3, steps, 0), expected)
    assert_equal_batches(resident.train(3, steps, steps - 2), expected[-2:])
    assert_equal_batches(resident.test(), streamed.test())


def test_an_image_is_read_once(pets, tmp_path):
    read = []

    class Counted:
        def __init__(self, examples):
            self.examples = examples

        def __len__(self):
            return len(self.examples)

        def __getitem__(self, index):
            read.append(self.examples[index]["key"])
            return self.examples[index]

    dataset = dataclasses.replace(pets, train=Counted(pets.train), test=Counted(pets.test))
    resident = inputs(Resident, dataset, tmp_path)
    for _ in range(2):
        assert len(list(resident.train(0, 10, 0))) == 10
        assert len(list(resident.test())) == 1
    assert len(read) == len(set(read)) == 40 + 12


def test_nothing_else_is_imported(tmp_path, monkeypatch):
    """grain takes longer to import than a small data set to decode."""
    monkeypatch.setitem(sys.modules, "grain", None)
    resident = inputs(Resident, data.load("digits"), tmp_path)
    assert next(resident.train(0, 1, 0)).image.shape == (16, 16, 16, 3)
    assert sum(batch.mask.sum() for batch in resident.test()) == 449


def test_what_fits():
    """Bytes are counted; and only what is moved and nothing else can stay."""
    dataset = data.load("digits")  # 1,797 of 16 x 16 x 3
    assert fits(dataset, MOVED, 1_380_096e-9)
    assert not fits(dataset, MOVED, 1_380_095e-9)
    assert not fits(dataset, MOVED, 0.0)
    for changed in ({"crop": "random_resized"}, {"color": 0.1}, {"lighting": 0.1}):
        assert not fits(dataset, dataclasses.replace(MOVED, **changed), 1.0)


def test_moves_are_uniform_and_independent():
    """Every shift in both directions and either flip, about equally often."""
    preprocessing = dataclasses.replace(MOVED, image_size=8)  # shifts of at most 1
    moves = draw_moves(preprocessing, 18_000, np.random.default_rng(0))
    seen, counts = np.unique(np.stack(moves), axis=1, return_counts=True)
    assert seen.shape[1] == 3 * 3 * 2
    assert (abs(counts - 1000) < 5 * 1000**0.5).all()


def test_broken_images_are_named_or_counted(pets, tmp_path):
    with pytest.raises(InputError, match=r"cannot read image train/cat/03\.jpg: not an intact"):
        next(inputs(Resident, pets, tmp_path, skipped={"train": None, "test": None}).train(0, 1, 0))
    with pytest.raises(InputError, match=r"3 of 40 train images are broken, more than a share"):
        next(inputs(Resident, pets, tmp_path, budget=0.05).train(0, 1, 0))
    with pytest.raises(InputError, match="batch size 41 exceeds the 40 training images"):
        next(inputs(Resident, pets, tmp_path, batch_size=41).train(0, 1, 0))


def train(dataset, directory, memory_gb, **options):
    return fit(
        Normalised(),
        dataset,
        Recipe(epochs=3, batch_size=16, learning_rate=0.01, preprocessing=MOVED),
        seed=0,
        directory=directory,
        intervals=Intervals(log=1, evaluate=1),
        broken=data.Broken("skip", 0.1),
        memory_gb=memory_gb,
        **options,
    )


def test_a_run_ends_in_the_same_bits_either_way(pets, tmp_path, monkeypatch):
    """Also one that changes over in its middle."""
    train(pets, tmp_path / "streamed", 0.0)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "grain", None)
        train(pets, tmp_path / "resident", 1.0)
    assert differences(tmp_path / "streamed", tmp_path / "resident") == []
    rows = read_metrics(tmp_path / "resident")
    assert sum(row["skipped"] for row in rows if row["split"] == "train") in (8, 9)
    assert [row["skipped"] for row in rows if row["split"] == "test"] == [1, 1, 1]
    calls = iter(range(1000))
    with pytest.raises(Preempted):
        train(pets, tmp_path / "changed", 0.0, interrupted=lambda: next(calls) == 5)
    train(pets, tmp_path / "changed", 1.0)
    assert differences(tmp_path / "streamed", tmp_path / "changed") == []


def test_decoding_is_interrupted(tmp_path):
    """After a part of the training images, without having begun a step."""
    calls = iter(range(1000))
    with pytest.raises(Preempted, match="at step 0"):
        train(data.load("digits"), tmp_path, 1.0, interrupted=lambda: next(calls) == 3)
    assert next(calls) == 4
