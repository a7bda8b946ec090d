"""Budgets whose data cannot be had here, on a few made-up images in the same form."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from jax.sharding import AbstractMesh
from PIL import Image
from unchecked import unchecked

from experiments.__main__ import main
from experiments.sweep import manifest
from experiments.sweep.budgets import BUDGETS
from shufflenet_jax.devices import Devices

CLASSES = {"tiny_imagenet": 200, "imagenet_resized": 1000}


def stand_in(dataset, size):
    """A builder with the name, features and splits of the real one, and 96 + 32 images."""

    class StandIn(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = dataset
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = (
            [tfds.core.BuilderConfig(name=f"{size}x{size}")]
            if dataset == "imagenet_resized"
            else []
        )

        def _info(self):
            encoding = "jpeg" if dataset == "tiny_imagenet" else "png"
            image = tfds.features.Image(shape=(size, size, 3), encoding_format=encoding)
            label = tfds.features.ClassLabel(num_classes=CLASSES[dataset])
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(96), "validation": self._generate_examples(32)}

        def _generate_examples(self, count):
            random = np.random.default_rng(count)
            for index in range(count):
                pixels = random.integers(0, 256, (size, size, 3)).astype(np.uint8)
                stream = io.BytesIO()
                Image.fromarray(pixels).save(
                    stream, "JPEG" if dataset == "tiny_imagenet" else "PNG"
                )
                stream.seek(0)
                yield index, {"image": stream, "label": int(random.integers(CLASSES[dataset]))}

    return StandIn


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budget", "name", "size"),
    [
        ("tiny_imagenet", "tiny_imagenet", 64),
        ("imagenet32", "imagenet_resized", 32),
        ("imagenet64", "imagenet_resized", 64),
    ],
)
def test_a_budget_trains_on_data_of_its_form(budget, name, size, tmp_path, capsys):
    stand_in(name, size)(data_dir=tmp_path / "data").download_and_prepare(
        file_format="array_record"
    )
    arguments = [
        *("--budget", budget, "--cells", "0.25x-g8", "--workdir", str(tmp_path / "run")),
        f"--config.data.dir={tmp_path / 'data'}",
        *("--config.recipe.epochs=1", "--config.recipe.batch_size=32"),
        *("--config.network.repeats=1,1,1",),
    ]
    assert main(["run", "table3", *arguments]) == 0
    sweep = manifest.open_sweep(tmp_path / "run")
    cell = sweep.cell("0.25x-g8")
    result = sweep.run(cell, 0).result
    assert (result["status"], result["examples"]) == ("done", 32)
    assert f"{size}x{size}" in capsys.readouterr().out


def test_the_paper_normalises_what_each_of_its_four_gpus_had():
    """On any number of devices. All other budgets keep what their records have."""
    groups = {name: budget.recipe.batch_norm for name, budget in BUDGETS.items()}
    assert groups.pop("paper") == "256"
    assert set(groups.values()) == {"global"}
    for count in (1, 2, 4, 8, 16, 32):
        mesh = AbstractMesh((count,), ("data",)) if count > 1 else None
        devices = unchecked(Devices, mesh=mesh)
        axis, parts = devices.normalised_together("256", 1024 // count)
        together = 1 if axis is None else axis.together or count
        assert 1024 // count * together // parts == 256
