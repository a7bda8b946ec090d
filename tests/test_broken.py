"""Images that cannot be read: an error that names the file, or skipped and nothing else changed."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from sweeps import create_sweep
from test_train import RECIPE, random_batch, tiny

from experiments.__main__ import main
from experiments.sweep import manifest, workdir
from shufflenet_jax import data
from shufflenet_jax.data import decode
from shufflenet_jax.errors import InputError
from shufflenet_jax.fit import Intervals, fit
from shufflenet_jax.metrics import read_metrics
from shufflenet_jax.recipe import Recipe
from shufflenet_jax.train import create_state, make_train_step

AUGMENTED = data.Preprocessing(image_size=16, crop="shift", eval_resize=1.0)


def encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    return Image.fromarray(pixels)


# By their place in a split: what cannot be read, and what is unusual but can be.
BROKEN = {3: b"", 17: encoded(picture(0), "JPEG")[:200], 30: b"no image but text\n"}
UNUSUAL = {
    5: encoded(picture(1).convert("CMYK"), "JPEG"),
    6: encoded(picture(2).convert("L"), "JPEG"),
    # PNG of 16 bits, in the name of a JPEG.
    7: encoded(Image.fromarray(np.asarray(picture(3).convert("L")).astype(np.uint16) * 257), "PNG"),
}


def write_pets(root: Path, broken: dict[int, bytes]) -> Path:
    """40 images to train on and 12 to test on, of two classes; in both some are broken."""
    for split, count in (("train", 40), ("val", 12)):
        for index in range(count):
            path = root / split / ("cat" if 2 * index < count else "dog") / f"{index:02}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = (UNUSUAL | broken).get(index, encoded(picture(index), "JPEG"))
            path.write_bytes(content)
    return root


NAMES = {
    "train": {"train/cat/03.jpg", "train/cat/17.jpg", "train/dog/30.jpg"},
    "test": {"val/cat/03.jpg"},
}


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> dict[str, data.Dataset]:
    """The same data set whole, and with three broken images."""
    root = tmp_path_factory.mktemp("pets")
    return {
        name: data.load(f"folder:{write_pets(root / name, broken)}")
        for name, broken in (("whole", {}), ("broken", BROKEN))
    }


def batches_of(examples, skipped, num_workers=0, start_step=0):
    """Two epochs of 40 images in batches that run across them."""
    return list(
        data.train_batches(
            examples,
            AUGMENTED,
            batch_size=16,
            seed=3,
            steps=5,
            start_step=start_step,
            num_workers=num_workers,
            skipped=skipped,
        )
    )


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_skipped_image_keeps_its_place_and_changes_no_other(pets, tmp_path, workers):
    whole = batches_of(pets["whole"].train, None)
    skipped = data.Skipped("train", 40, 0.1, tmp_path)
    holey = batches_of(pets["broken"].train, skipped, workers)
    assert sum((~batch.mask).sum() for batch in holey) == 6  # three images, two epochs
    for one, other in zip(whole, holey, strict=True):
        assert one.mask.all()
        np.testing.assert_array_equal(one.label, other.label)
        np.testing.assert_array_equal(one.image[other.mask], other.image[other.mask])
        assert (other.image[~other.mask] == (124, 116, 104)).all()
    again = batches_of(pets["broken"].train, skipped, min(workers, 1), start_step=2)
    for one, other in zip(holey[2:], again, strict=True):
        for leaf, other_leaf in zip(*map(jax.tree.leaves, (one, other)), strict=True):
            np.testing.assert_array_equal(leaf, other_leaf)
    assert set(json.loads((tmp_path / "skipped_train.json").read_text())) == NAMES["train"]


def test_an_evaluation_counts_the_others(pets, tmp_path):
    skipped = data.Skipped("test", 12, 0.1, tmp_path)
    batches = data.eval_batches(pets["broken"].test, AUGMENTED, batch_size=5, skipped=skipped)
    mask = np.concatenate([batch.mask for batch in batches])
    assert mask.tolist() == [index != 3 and index < 12 for index in range(15)]


def test_an_image_is_named_once_and_the_budget_is_of_files(tmp_path, caplog):
    for _ in range(2):  # epochs
        skipped = data.Skipped("train", 20, 0.1, tmp_path)  # as after a resume
        for key in ("a.jpg", "b.jpg", "a.jpg"):
            skipped.add(key)
    assert caplog.messages == ["skipped a broken image: a.jpg", "skipped a broken image: b.jpg"]
    message = r"3 of 20 train images are broken, more than a share of 0\.1; one is c\.jpg"
    with pytest.raises(InputError, match=message):
        skipped.add("c.jpg")


def test_what_is_not_broken_is_never_skipped(tmp_path, monkeypatch):
    """Files that have gone or changed, and images that are merely large."""
    root = write_pets(tmp_path / "pets", BROKEN)
    dataset = data.load(f"folder:{root}")
    skipped = data.Skipped("train", 40, 0.1, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(decode, "MOST_PIXELS", 16 * 16 - 1)
        with pytest.raises(InputError, match=r"image train/\S+ has too many pixels to decode"):
            batches_of(dataset.train, skipped)
    path = root / "train" / "dog" / "35.jpg"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(InputError, match=r"train/dog/35\.jpg has changed since it was found"):
        batches_of(dataset.train, skipped)
    path.unlink()
    with pytest.raises(InputError, match=r"train/dog/35\.jpg has gone since it was found"):
        batches_of(dataset.train, skipped)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("ignore",), "broken is 'ignore'"),
        (("skip", 1.0), "broken_budget is 1.0"),
        (("skip", -0.1), "broken_budget is -0.1"),
        (("skip", float("nan")), "broken_budget is nan"),
    ],
)
def test_impossible_policies_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        data.Broken(*options)


class Normalised(nnx.Module):
    """Batch normalisation and a classifier: compiles at once."""

    def __init__(self):
        self.norm = nnx.BatchNorm(16 * 16 * 3, rngs=nnx.Rngs(0))
        self.classifier = nnx.Linear(16 * 16 * 3, 10, rngs=nnx.Rngs(0))

    def __call__(self, images, *, train=False):
        features = images.reshape(len(images), -1)
        return self.classifier(self.norm(features, use_running_average=not train))


@pytest.fixture(scope="module")
def masked_step():
    optimizer = RECIPE.make_optimizer(steps=10)
    graphdef, _ = create_state(Normalised(), optimizer)
    step = make_train_step(graphdef, optimizer, 0.1, masked=True)
    return lambda batch: step(create_state(Normalised(), optimizer)[1], batch)


def test_loss_and_error_are_means_over_the_unmasked(masked_step):
    """Those of a part and of the rest add up to those of the whole; BN sees all in each."""
    batch = random_batch(16)
    part = np.arange(16) % 3 == 0
    _, whole = masked_step(batch)
    of_parts = [masked_step(batch._replace(mask=mask))[1] for mask in (part, ~part)]
    assert [parts["skipped"].item() for parts in of_parts] == [10, 6]
    for name in ("loss", "top1_error"):
        first, rest = (parts[name].item() for parts in of_parts)
        assert first != rest
        assert 6 * first + 10 * rest == pytest.approx(16 * whole[name].item(), rel=1e-5)


def test_the_label_of_a_masked_image_changes_no_bit(masked_step):
    batch = random_batch(16)
    batch.mask[[2, 9]] = False
    relabelled = batch._replace(label=np.where(batch.mask, batch.label, (batch.label + 1) % 10))
    for one, other in zip(
        jax.tree.leaves(masked_step(batch)), jax.tree.leaves(masked_step(relabelled)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_batch_without_an_intact_image_moves_nothing_to_nan(masked_step):
    batch = random_batch(16)
    batch.mask[:] = False
    state, metrics = masked_step(batch)
    assert metrics["loss"] == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


@pytest.mark.slow
def test_where_nothing_is_broken_skipping_changes_no_bit(pets, tmp_path):
    def trained(policy):
        directory = tmp_path / policy
        fit(
            tiny(),
            pets["whole"],
            Recipe(epochs=3, batch_size=16, preprocessing=AUGMENTED),
            seed=0,
            directory=directory,
            intervals=Intervals(log=1),
            broken=data.Broken(policy),
        )
        return read_metrics(directory)

    rows = trained("skip")
    assert [row.pop("skipped") for row in rows] == [0] * len(rows)
    assert rows == trained("error")


SHRUNK = (
    "network.repeats=1,1,1",
    "recipe.epochs=4",
    "recipe.batch_size=16",
    "recipe.preprocessing.image_size=16",
    "intervals.log=1",
    "intervals.checkpoint=1",
    "intervals.evaluate=1",
)


@pytest.mark.faults
def test_corrupt_images(tmp_path, drill):
    """Real cells on real files, in every way in which a run may go: all end in the same bits."""
    root = write_pets(tmp_path / "pets", BROKEN)

    def cell(name: str, *options: str) -> subprocess.Popen:
        create_sweep(tmp_path / name, *SHRUNK, f"data.name=folder:{root}")
        command = [sys.executable, "-m", "experiments", "cell", "0.25x-g3", "--workdir"]
        return subprocess.Popen([*command, tmp_path / name, *options], stderr=subprocess.PIPE)

    def run_of(name: str) -> workdir.Run:
        sweep = manifest.open_sweep(tmp_path / name)
        return sweep.run(sweep.cell("0.25x-g3"), 0)

    def ends(process: subprocess.Popen) -> str:
        return process.communicate()[1].decode()

    skip = ("--config.data.broken=skip", "--config.data.broken_budget=0.1")
    log = ends(cell("whole", *skip))
    for name in NAMES["train"] | NAMES["test"]:
        assert log.count(f"skipped a broken image: {name}\n") == 1
    expected = (run_of("whole").directory / "metrics.jsonl").read_bytes()
    rows = read_metrics(run_of("whole").directory)
    assert run_of("whole").result["examples"] == 11
    assert [row["skipped"] for row in rows if row["split"] == "test"] == [1] * 4
    # Ten steps of 16 are four epochs.
    assert sum(row["skipped"] for row in rows if row["split"] == "train") == 4 * len(NAMES["train"])

    # An error names the file; the same run then goes on under the other policy.
    ends(cell("error"))
    result = run_of("error").result
    assert result["status"] == "failed"
    reason = result["reason"].removeprefix("BrokenImage: ")
    (named,) = (name for name in NAMES["train"] if name in reason)
    assert reason == f"cannot read image {named}: not an intact JPEG, PNG, WebP or BMP"
    ends(cell("error", *skip))

    # Over the budget: 2 of 40 are allowed, then 3.
    ends(cell("budget", "--config.data.broken=skip", "--config.data.broken_budget=0.05"))
    reason = run_of("budget").result["reason"]
    assert "3 of 40 train images are broken, more than a share of 0.05; one is train/" in reason
    ends(cell("budget", *skip))

    ends(cell("workers", *skip, "--config.data.workers=2"))

    process = cell("killed", *skip)
    seals = run_of("killed").directory / "checkpoints" / "sha256"
    while not list(seals.glob("*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    log = ends(process) + ends(cell("killed", *skip))
    for name in NAMES["train"] | NAMES["test"]:
        assert log.count(f"skipped a broken image: {name}\n") == 1

    names = ("error", "budget", "workers", "killed")
    ended = {name: (run_of(name).directory / "metrics.jsonl").read_bytes() for name in names}
    drill(
        "corrupt images",
        tried=len(names) * len(BROKEN),
        wrong=sum(found != expected for found in ended.values()),
    )


def test_a_mistake_in_the_policy_starts_nothing(tmp_path, capsys):
    for assignment, message in (
        ("data.broken=ignore", "broken is 'ignore', but must be 'error' or 'skip'"),
        ("data.broken_budget=2", "broken_budget is 2.0, but must be in [0, 1)"),
    ):
        command = ["run", "table3", "--workdir", str(tmp_path / "new"), f"--config.{assignment}"]
        assert main(command) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
