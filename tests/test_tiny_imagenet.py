"""Tiny ImageNet from an archive that is laid out as Stanford's."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from experiments.__main__ import main
from shufflenet_jax import InputError, data

CLASSES = ("n02", "n01")
TRAIN = {f"train/{name}/images/{name}_{i}.JPEG": name for name in CLASSES for i in range(3)}
VAL = {"val/images/val_0.JPEG": "n01", "val/images/val_1.JPEG": "n02"}


def jpeg(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


IMAGES = {name: jpeg(seed) for seed, name in enumerate([*TRAIN, *VAL])}


def archive(path, without=()):
    files = dict(IMAGES)
    files["wnids.txt"] = "\n".join(CLASSES).encode()
    lines = [f"{name.split('/')[-1]}\t{label}\t0\t32\t44\t62\n" for name, label in VAL.items()]
    files["val/val_annotations.txt"] = "".join(lines).encode()
    files["test/images/test_0.JPEG"] = jpeg(99)  # without a label
    with zipfile.ZipFile(path, "w") as made:
        for name, content in files.items():
            if name not in without:
                made.writestr(f"tiny-imagenet-200/{name}", content)
    return path


def examples(split):
    return {example["key"]: (example["label"], example["image"]) for example in split}


def test_every_labelled_image_is_there_with_its_class(tmp_path, capsys):
    made = archive(tmp_path / "tiny-imagenet-200.zip")
    command = ["prepare", "tiny_imagenet", str(made), "--data-dir", str(tmp_path / "data")]
    assert main(command) == 0
    assert "tiny_imagenet is prepared" in capsys.readouterr().out
    made.unlink()  # it is needed once
    assert main(command) == 0
    found = data.load("tiny_imagenet", tmp_path / "data")
    assert found.class_names == ("n01", "n02")
    for split, labels in ((found.train, TRAIN), (found.test, VAL)):
        expected = {
            name.split("/")[-1]: (found.class_names.index(label), IMAGES[name])
            for name, label in labels.items()
        }
        assert examples(split[i] for i in range(len(split))) == expected


def test_without_the_archive_it_is_said_where_to_get_it(tmp_path):
    with pytest.raises(InputError, match=r"download http\S+ and run .* prepare tiny_imagenet"):
        data.prepare("tiny_imagenet", tmp_path)


def test_other_data_sets_take_no_archive(tmp_path):
    with pytest.raises(InputError, match="digits is not made of an archive"):
        data.prepare("digits", tmp_path, tmp_path / "some.zip")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("wnids.txt", "is not Tiny ImageNet: it has no wnids.txt"),
        ("val/val_annotations.txt", "is not Tiny ImageNet"),
        ("val/images/val_1.JPEG", r"val_1.JPEG in \S+ cannot be read"),
        (None, "cannot be read as a zip archive"),
    ],
)
def test_an_archive_of_something_else_is_refused_and_leaves_nothing(missing, message, tmp_path):
    path = tmp_path / "some.zip"
    if missing is None:
        path.write_bytes(b"text")
    else:
        archive(path, without=[missing])
    with pytest.raises(InputError, match=message):
        data.prepare("tiny_imagenet", tmp_path / "data", path)
    with pytest.raises(InputError, match="not prepared"):
        data.find("tiny_imagenet", tmp_path / "data")
