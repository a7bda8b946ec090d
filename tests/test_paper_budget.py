"""The budget `paper` from its data to its table, shortened: the recipe of ImageNet as it stands."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from test_data import encoded
from test_part import photograph
from tfrecords import example, write

from experiments.__main__ import main
from experiments.sweep import manifest
from shufflenet_jax import data
from shufflenet_jax.metrics import read_metrics

SHORT = (
    *("run", "table2", "--budget", "paper", "--cells", "0.25x-g2", "--jobs", "1"),
    *("--config.recipe.epochs=2", "--config.recipe.batch_size=8", "--config.intervals.log=1"),
    "--config.intervals.evaluate=2",
    "--config.recipe.batch_norm=global",  # of the 8 images
)

IMAGES = {"train": 16, "validation": 9}


def mocked(root):
    """TFDS's imagenet2012 of random images, as TFRecords: all that is random is the pixels."""
    root.mkdir()
    for split, count in IMAGES.items():
        with tfds.testing.mock_data(num_examples=count):
            source = tfds.data_source("imagenet2012", split=split)
            records = [
                example(
                    image=encoded(Image.fromarray(each["image"]), "JPEG"),
                    label=int(each["label"]),
                    file_name=each["file_name"].encode(),
                )
                for each in source
            ]
        write(root / f"imagenet2012-{split}.tfrecord-00000-of-00001", records)
    return root


def photographs(root):
    """Class folders of large JPEGs, one of them gray, one of four colours, and one broken."""
    for split, count in IMAGES.items():
        for label in ("cat", "dog"):
            (root / split.removesuffix("idation") / label).mkdir(parents=True)
        for index in range(count):
            image = photograph(500, 375, index)
            if index in (1, 2):
                image = image.convert({1: "L", 2: "CMYK"}[index])
            content = encoded(image, "JPEG")
            path = root / split.removesuffix("idation") / ("cat", "dog")[index % 2]
            (path / f"{index}.JPEG").write_bytes(content[:-500] if index == 3 else content)
    return root


def rows_of(workdir):
    (run,) = manifest.open_sweep(workdir).runs()
    assert run.status == "done"
    assert run.progress["step"] == run.progress["total"] == 4
    assert 0 <= run.progress["waiting"] <= 1
    rows = read_metrics(run.directory)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 4]
    assert all(np.isfinite(row["loss"]) for row in rows)
    return run, rows


@pytest.mark.slow
def test_on_imagenet_of_tfds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("shufflenet_jax.data.convert.IMAGENET_IMAGES", IMAGES)
    place = tmp_path / "data"
    data.prepare("imagenet2012", place, from_tfrecord=mocked(tmp_path / "copy"))
    workdir = ["--workdir", str(tmp_path / "run")]
    assert main([*SHORT, *workdir, f"--config.data.dir={place}"]) == 0
    assert "ShuffleNet 0.25x" in capsys.readouterr().out
    run, rows = rows_of(tmp_path / "run")
    assert rows[-1]["examples"] == 9
    assert rows[0]["loss"] == pytest.approx(np.log(1000), rel=1e-5)
    assert rows[0]["learning_rate"] == 0.5
    values = manifest.open_sweep(tmp_path / "run").values_of(run.cell)
    assert values["recipe.preprocessing.image_size"] == 224
    assert (values["data.name"], values["data.workers"]) == ("imagenet2012", -1)
    assert main(["status", "--json", *workdir]) == 0
    (described,) = json.loads(capsys.readouterr().out)["cells"]
    assert described["status"] == "done"


@pytest.mark.slow
def test_on_class_folders_with_and_without_workers(tmp_path):
    """In the same bits; the broken image is left out of both."""
    root = photographs(tmp_path / "photographs")
    found = {}
    for workers in (0, 1):
        options = [f"--config.data.workers={workers}", "--config.data.broken=skip"]
        options += [f"--config.data.name=folder:{root}", "--config.data.broken_budget=0.2"]
        assert main([*SHORT, "--workdir", str(tmp_path / f"run{workers}"), *options]) == 0
        run, rows = rows_of(tmp_path / f"run{workers}")
        assert sum(row["skipped"] for row in rows if row["split"] == "train") == 2
        assert rows[-1]["examples"] == 8
        found[workers] = (run.directory / "metrics.jsonl").read_bytes()
    assert found[0] == found[1]
