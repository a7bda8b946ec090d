"""Data: what is read is what was stored, and every image is seen as often as it should be."""

import hashlib
import io
import itertools
import json
import math
import multiprocessing
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sklearn.datasets import load_digits

from shufflenet_jax import data
from shufflenet_jax.data import folder
from shufflenet_jax.data.decode import BrokenImage, decode
from shufflenet_jax.data.digits import Digits
from shufflenet_jax.data.preprocess import draw_moves, eval_image, train_image
from shufflenet_jax.errors import InputError
from shufflenet_jax.recolor import recolored

ROOT = Path(__file__).parents[1]

PLAIN = data.Preprocessing(
    image_size=8, crop="shift", shift=0.0, flip=False, color=0.0, lighting=0.0, eval_resize=1.0
)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


recolor = jax.jit(recolored)


def augmented(preprocessing, image: bytes, key: str, rng) -> np.ndarray:
    """A training image by all that chance draws for it."""
    moves = draw_moves(preprocessing, 1, rng).of(0)
    pixels, colors = train_image(preprocessing, image, key, moves, rng)
    if preprocessing.recolors:
        (pixels,) = recolor(*jax.tree.map(lambda each: each[None], (pixels, colors)))
    return np.asarray(pixels)


def write_folder(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
        path.write_bytes(encoded(Image.fromarray(noise(9, 12, seed)), kind))
    return root


def everything(examples: data.Examples) -> list[tuple[bytes, int, str]]:
    return [tuple(examples[index].values()) for index in range(len(examples))]


def assert_equal_batches(got, expected) -> None:
    for one, other in zip(got, expected, strict=True):
        for leaf, other_leaf in zip(*map(jax.tree.leaves, (one, other)), strict=True):
            assert leaf.dtype == other_leaf.dtype
            np.testing.assert_array_equal(leaf, other_leaf)


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory) -> Path:
    data_dir = tmp_path_factory.mktemp("digits")
    data.load("digits", data_dir)
    return data_dir


@pytest.fixture(scope="session")
def digits(digits_dir) -> data.Dataset:
    return data.load("digits", digits_dir)


class Distinct:
    """Examples that can be told apart: image i is of intensity i, and so is its label."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        image = encoded(Image.new("L", (8, 8), int(index)))
        return {"image": image, "label": int(index), "key": f"distinct[{index}]"}


# Digits


def test_digits_are_scikit_learns_pixel_by_pixel(digits):
    assert (len(digits.train), len(digits.test)) == (1348, 449)
    assert digits.class_names == tuple("0123456789")
    assert digits.num_classes == 10
    source = load_digits()
    test = np.arange(1797) % 4 == 3
    for examples, chosen in ((digits.train, ~test), (digits.test, test)):
        examples = [examples[index] for index in range(len(examples))]
        images = np.stack([Image.open(io.BytesIO(example["image"])) for example in examples])
        assert images.shape[1:] == (8, 8)
        # 16 levels stay apart on 256, so this loses nothing.
        np.testing.assert_array_equal(np.round(images * (16 / 255)), source.images[chosen])
        assert (images.min(), images.max()) == (0, 255)
        np.testing.assert_array_equal([e["label"] for e in examples], source.target[chosen])


def test_digits_are_known_before_they_are_prepared(tmp_path, digits):
    found = data.find("digits", tmp_path / "below")
    assert not list(tmp_path.iterdir())
    source = load_digits()
    values = np.concatenate([source.images.ravel(), source.target]).astype(np.uint8)
    assert found.identity == {
        "name": "digits",
        "version": str(Digits.VERSION),
        "fingerprint": hashlib.sha256(values.tobytes()).hexdigest()[:16],
        "train": len(digits.train),
        "test": len(digits.test),
        "classes": digits.num_classes,
    }
    assert found.class_names == digits.class_names
    assert found.notes == ()
    found.remember(tmp_path / "listing")
    assert not list(tmp_path.iterdir())


def test_other_data_in_the_place_of_the_digits(tmp_path, digits_dir):
    shutil.copytree(digits_dir, tmp_path, dirs_exist_ok=True)
    replace(tmp_path / "digits" / "1.0.0" / "dataset_info.json", '"1.0.0"', '"1.0.1"')
    with pytest.raises(InputError, match=r"digits/1\.0\.0 holds other data than the digits"):
        data.find("digits", tmp_path)


def test_digits_splits_are_balanced(digits):
    for examples, least in ((digits.train, 125), (digits.test, 40)):
        counts = np.bincount([label for _, label, _ in everything(examples)], minlength=10)
        assert counts.min() >= least
        assert counts.max() <= 1.25 * counts.min()


def test_digits_are_prepared_once(digits_dir, digits):
    before = {path: path.stat().st_mtime_ns for path in digits_dir.rglob("*")}
    again = data.load("digits", digits_dir)
    assert before == {path: path.stat().st_mtime_ns for path in digits_dir.rglob("*")}
    assert everything(again.train) == everything(digits.train)


def test_digits_prepared_elsewhere_are_the_same(tmp_path, digits, capsys):
    assert everything(data.load("digits", tmp_path).test) == everything(digits.test)
    assert capsys.readouterr().out == ""


def _load_digits_together(barrier, data_dir: Path) -> None:
    import sklearn.datasets  # noqa: F401  (so that the two take the same time from here on)

    barrier.wait()
    assert len(data.load("digits", data_dir).train) == 1348


@pytest.mark.slow
def test_two_processes_prepare_digits_at_once(tmp_path, digits):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    other = context.Process(target=_load_digits_together, args=(barrier, tmp_path))
    other.start()
    _load_digits_together(barrier, tmp_path)
    other.join()
    assert other.exitcode == 0
    assert everything(data.load("digits", tmp_path).train) == everything(digits.train)
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_data_dir_defaults_to_tfds_own(digits_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
    assert data.load("digits").train.directory == digits_dir / "digits" / "1.0.0"


def test_an_empty_data_dir_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"not prepared in {tmp_path}/home/tensorflow_datasets:"):
        data.find("cifar10")


def test_without_a_home_directory(tmp_path, monkeypatch):
    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(InputError, match="no home directory for ~/tensorflow_datasets: write out"):
        data.find("digits")
    assert data.find("digits", tmp_path).identity["train"] == 1348
    assert data.find(f"folder:{write_folder(tmp_path, *GOOD)}").identity["train"] == 3


def test_data_dir_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is not a folder of prepared data sets"):
        data.find("cifar10", tmp_path / "file")


@pytest.mark.parametrize("call", [data.load, data.find, data.prepare])
def test_data_dir_that_cannot_be_written(tmp_path, call):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"digits cannot be prepared.*file"):
        call("digits", tmp_path / "file" / "below")


def test_importing_and_finding_touches_neither_device_nor_tensorflow(tmp_path):
    program = (
        "import sys; from pathlib import Path; from shufflenet_jax import data;"
        "assert data.find('digits', Path(sys.argv[1])).identity['train'] == 1348;"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'grain', 'sklearn'} & sys.modules.keys();"
        "assert not heavy, heavy"
    )
    # With no such platform, the first use of a device would fail.
    environment = os.environ | {"JAX_PLATFORMS": "none"}
    command = [sys.executable, "-c", program, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    assert not list(tmp_path.iterdir())


# Folders

GOOD = ("train/cat/b.JPG", "train/cat/a.png", "train/dog/c.jpeg", "val/cat/d.PNG", "val/dog/e.jpg")


def test_folder_is_read_byte_by_byte_in_order(tmp_path):
    root = write_folder(tmp_path / "pets", *GOOD, "train/dog/nested/f.jpg", "train/cat/.hidden.jpg")
    (root / "train" / "cat" / "notes.txt").write_text("not an image")
    dataset = data.load(f"folder:{root}", tmp_path / "data")
    assert not (tmp_path / "data").exists()
    assert dataset.name == f"folder:{root}"
    assert dataset.class_names == ("cat", "dog")
    expected = [("train/cat/a.png", 0), ("train/cat/b.JPG", 0), ("train/dog/c.jpeg", 1)]
    assert everything(dataset.train) == [
        ((root / name).read_bytes(), label, name) for name, label in expected
    ]
    assert [key for _, _, key in everything(dataset.test)] == ["val/cat/d.PNG", "val/dog/e.jpg"]


def test_folder_prefers_val_to_test(tmp_path):
    tests = [name.replace("val/", "test/") for name in GOOD if name.startswith("val/")]
    root = write_folder(tmp_path / "both", *GOOD, *tests)
    assert data.load(f"folder:{root}", tmp_path).test[0]["key"] == "val/cat/d.PNG"
    shutil.rmtree(root / "val")
    assert data.load(f"folder:{root}", tmp_path).test[0]["key"] == "test/cat/d.PNG"


def test_a_changed_folder_is_another_data_set(tmp_path):
    root = write_folder(tmp_path / "pets", *GOOD)
    found = [data.find(f"folder:{root}")]
    path = root / "train" / "cat" / "a.png"
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    found.append(data.find(f"folder:{root}"))
    write_folder(root, "train/dog/z.jpg")
    found.append(data.find(f"folder:{root}"))
    (root / "train" / "dog" / "z.jpg").rename(root / "train" / "cat" / "z.jpg")
    found.append(data.find(f"folder:{root}"))
    (root / "train" / "cat" / "z.jpg").rename(root / "train" / "cat" / "y.jpg")
    found.append(data.find(f"folder:{root}"))
    assert [each.identity["train"] for each in found] == [3, 3, 4, 4, 4]
    assert len({each.identity["fingerprint"] for each in found}) == 5
    with pytest.raises(InputError, match=r"train/cat/a\.png has changed since it was found"):
        everything(found[0].open().train)
    with pytest.raises(InputError, match=r"train/dog/z\.jpg has gone since it was found"):
        everything(found[2].open().train)


def test_a_moved_folder_is_the_same_data_set(tmp_path):
    root = write_folder(tmp_path / "here" / "pets", *GOOD)
    before = data.find(f"folder:{root}")
    expected = everything(before.open().train)
    root.parent.rename(tmp_path / "there")
    after = data.find(f"folder:{tmp_path / 'there' / 'pets'}")
    assert after.identity == before.identity
    assert json.loads(json.dumps(after.identity)) == {
        "name": "folder:pets",
        "version": "",
        "fingerprint": before.identity["fingerprint"],
        "train": 3,
        "test": 2,
        "classes": 2,
    }
    assert everything(after.open().train) == expected


def test_what_is_left_out_of_a_folder_is_said(tmp_path):
    more = ("train/dog/more/f.jpg", "train/dog/more/yet/g.jpg", "train/h.jpg", "test/cat/d.PNG")
    root = write_folder(tmp_path / "pets", *GOOD, *more, "train/cat/.hidden.jpg")
    for name in ("i.gif", "j.GIF", "notes.txt", "README"):
        (root / "train" / "cat" / name).touch()
    (root / "val" / "cat" / "k.jpg").symlink_to("nowhere")
    (root / "val" / "cat" / "empty.jpg").touch()
    (root / "val" / "cat" / "link.jpg").symlink_to(root / "train" / "cat" / "a.png")
    (root / "val" / "eel").symlink_to("nowhere")
    found = data.find(f"folder:{root}")
    assert found.notes == (
        "1 empty, such as val/cat/empty.jpg",
        "2 left out, a link to nothing, such as val/cat/k.jpg",
        "2 left out, deeper than a class folder, such as train/dog/more/f.jpg",
        "4 left out, of other kinds (2 .gif, 1 of no suffix, 1 .txt), such as train/cat/README",
        "1 left out, outside of the class folders, such as train/h.jpg",
        "test is left out, as there is val to test on",
    )
    assert (found.identity["train"], found.identity["test"]) == (3, 4)
    assert data.find(f"folder:{write_folder(tmp_path / 'tidy', *GOOD)}").notes == ()


def test_images_of_every_kind_that_is_read(tmp_path):
    pixels = noise(9, 12)
    root = write_folder(tmp_path / "pets", *GOOD)
    kinds = {"k.webp": "WEBP", "l.BMP": "BMP", "m.jfif": "JPEG", "n.Png": "PNG"}
    for name, kind in kinds.items():
        options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
        image = encoded(Image.fromarray(pixels), kind, **options.get(kind, {}))
        (root / "train" / "dog" / name).write_bytes(image)
    train = data.load(f"folder:{root}").train
    examples = [train[index] for index in range(3, 7)]
    read = {example["key"]: decode(example["image"], "") for example in examples}
    assert list(read) == [f"train/dog/{name}" for name in kinds]
    for key, image in read.items():
        np.testing.assert_allclose(image, pixels, atol=48 if key.endswith("jfif") else 0)


ODD = ("cat ", "line\nbreak", "caf\udce9", " tab\t", "'quoted'", "na\u00efve")


def test_names_of_any_bytes_are_classes_and_keys(tmp_path):
    names = [f"{split}/{name}/{name}.png" for split in ("train", "val") for name in ODD]
    root = write_folder(tmp_path / "pets", *names)
    found = data.find(f"folder:{root}")
    found.remember(tmp_path / "listing")
    assert data.find(f"folder:{root}", known=tmp_path / "listing").identity == found.identity
    assert len(set(found.class_names)) == found.identity["classes"] == len(ODD)
    train = pickle.loads(pickle.dumps(found.open().train))
    assert [(image, label) for image, label, _ in everything(train)] == [
        ((root / f"train/{name}/{name}.png").read_bytes(), label)
        for label, name in enumerate(sorted(ODD))
    ]
    for text in (*found.class_names, *(key for _, _, key in everything(train))):
        text.encode()
        assert text.isprintable()
    assert r"'line\nbreak'" in found.class_names
    (root / "train" / "cat " / "cat .png").unlink()
    for name in ("line\nbreak", "caf\udce9"):
        (root / "train" / name / f"{name}.png").unlink()
        with pytest.raises(InputError) as error:
            data.find(f"folder:{root}")
        assert str(error.value).isprintable()


def test_folder_names_mean_the_same_everywhere(tmp_path, monkeypatch):
    write_folder(tmp_path / "my pets", *GOOD)
    write_folder(tmp_path / "elsewhere", *GOOD)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    relative = data.find("folder:my pets")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(everything(relative.open().train)) == 3
    assert data.find("folder:.").identity["name"] == "folder:elsewhere"
    expected = f"folder:{tmp_path}/my pets"
    for name in (relative.name, "folder:../my pets", "folder:~/my pets", f"{expected}/"):
        found = data.find(name)
        assert (found.name, found.open().name) == (expected, expected)
        assert found.identity == relative.identity
        assert found.identity["name"] == "folder:my pets"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder:", "folder: names no folder: write folder:PATH"),
        ("folder:~nobody_at_all/pets", "no home directory for ~nobody_at_all/pets"),
        ("folder:pe\0ts", "there is no folder .*pe"),
        ("folder: ", "there is no folder "),
    ],
)
def test_folder_names_that_cannot_be(name, message):
    with pytest.raises(InputError, match=message):
        data.find(name)


def remembered(tmp_path: Path) -> tuple[Path, Path, data.Found]:
    root = write_folder(tmp_path / "pets", *GOOD, "train/dog/more/f.jpg")
    found = data.find(f"folder:{root}", known=tmp_path / "listing")
    found.remember(tmp_path / "listing")
    return root, tmp_path / "listing", found


def later(path: Path) -> None:
    """Lets a file or a folder be changed a second later than it was."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def test_a_listing_takes_the_place_of_looking_at_files(tmp_path, monkeypatch):
    root, listing, found = remembered(tmp_path)
    root.rename(tmp_path / "moved")
    root = tmp_path / "moved"
    looked_at = []
    monkeypatch.setattr(folder, "_images", lambda *arguments: looked_at.append(arguments))
    again = data.find(f"folder:{root}", known=listing)
    assert looked_at == []
    assert again.identity == found.identity | {"name": "folder:moved"}
    assert again.class_names == found.class_names
    assert again.notes == found.notes
    assert len(found.notes) == 1
    for split in (again.open().train, again.open().test):
        examples = everything(split)
        assert [image for image, _, _ in examples] == [
            (root / key).read_bytes() for _, _, key in examples
        ]


def test_a_listing_is_not_troubled_by_what_is_left_out(tmp_path):
    root, listing, found = remembered(tmp_path)
    (root / "train" / "cat" / ".DS_Store").touch()
    (root / "val" / "dog" / "notes.txt").touch()
    for name in ("train/cat", "val/dog"):
        later(root / name)
    assert data.find(f"folder:{root}", known=listing).identity == found.identity


CHANGES = {
    "train/cat/b.JPG has changed": lambda root: (root / "train/cat/b.JPG").write_bytes(b"more"),
    "val/dog/z.png is new": lambda root: write_folder(root, "val/dog/z.png"),
    "train/cat/a.png has gone": lambda root: (root / "train/cat/a.png").unlink(),
    "train/eel is new": lambda root: write_folder(root, "train/eel/a.png", "val/eel/a.png"),
    "val has gone": lambda root: (root / "val").rename(root / "test"),
    "train/dog has gone": lambda root: shutil.rmtree(root / "train" / "dog"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_since_a_listing_is_named(tmp_path, change):
    root, listing, _ = remembered(tmp_path)
    CHANGES[change](root)
    for path in (root / "train" / "cat", root / "val" / "dog"):
        if path.exists():
            later(path)  # also where the clock is coarse
    message = f"{root}/{change} since the images were listed: restore it, or begin anew"
    with pytest.raises(InputError, match=message):
        data.find(f"folder:{root}", known=listing)


def test_an_image_is_held_against_the_listing_when_it_is_read(tmp_path):
    root, listing, _ = remembered(tmp_path)
    path = root / "val" / "cat" / "d.PNG"
    stat = path.stat()
    path.write_bytes(bytes(stat.st_size))
    test = data.find(f"folder:{root}", known=listing).open().test
    with pytest.raises(InputError, match=r"val/cat/d\.PNG has changed since it was found"):
        everything(test)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert everything(test)[0][0] == bytes(stat.st_size)


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-100], lambda b: b"{}"])
def test_a_damaged_listing_is_named(tmp_path, damage):
    root, listing, _ = remembered(tmp_path)
    listing.write_bytes(damage(listing.read_bytes()))
    with pytest.raises(InputError, match="listing is damaged: delete it"):
        data.find(f"folder:{root}", known=listing)


def test_a_split_pickles_as_little_more_than_its_names(tmp_path):
    root = write_folder(tmp_path / "pets", *GOOD)
    content = (root / "train" / "cat" / "a.png").read_bytes()
    for index in range(200):
        (root / "train" / "cat" / f"{index:06}.png").write_bytes(content)
    train = data.load(f"folder:{root}").train
    expected = everything(train)
    pickled = pickle.dumps(train)
    # A size, a time and a name of 10 letters an image, and a kilobyte for all.
    assert len(pickled) < 203 * (8 + 8 + 11) + 1000
    assert everything(pickle.loads(pickled)) == expected
    assert train[-1]["key"] == expected[-1][2]
    with pytest.raises(IndexError):
        train[203]


@pytest.mark.parametrize("call", [data.load, data.find])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "there is no folder .*pets"),
        (("readme.jpg",), "pets has no folder train"),
        (("val/cat/a.jpg",), "pets has no folder train"),
        (("train/cat/a.jpg",), "pets has neither a folder val nor test"),
        (("train/a.jpg", "val/cat/a.jpg"), "train has no class folders"),
        (("train/cat/a.jpg", "val/a.jpg"), "val has no class folders"),
        ((*GOOD, "train/eel/more/a.jpg"), "train/eel has no images"),
        ((*GOOD, "train/eel/a.gif", "val/eel/a.jpg"), "train/eel has no images"),
        ((*GOOD, "train/eel/a.jpg", "train/yak/a.jpg"), "class eel is in train but not in val"),
        ((*GOOD, "val/eel/a.jpg"), "class eel is in val but not in train"),
    ],
)
def test_folder_mistakes(tmp_path, call, names, message):
    root = write_folder(tmp_path / "pets", *names)
    with pytest.raises(InputError, match=message):
        call(f"folder:{root}", tmp_path / "data")


# TFDS data sets by name


class Stripes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A stand-in for a stock data set, whose code ``load`` must not need."""

    VERSION = tfds.core.Version("1.10.0")
    BUILDER_CONFIGS = (
        tfds.core.BuilderConfig(name="wide-v2"),
        tfds.core.BuilderConfig(name="unlabelled"),
        tfds.core.BuilderConfig(name="pair"),
        tfds.core.BuilderConfig(name="train_only"),
    )

    def _info(self):
        features = {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(num_classes=3),
        }
        if self.builder_config.name == "pair":
            features["other"] = features.pop("image")
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        splits = {"train": self._generate_examples([0, 1, 2])}
        if self.builder_config.name != "train_only":
            splits["validation"] = self._generate_examples([2, 1])
        if self.builder_config.name == "unlabelled":
            splits["test"] = self._generate_examples([-1])
        return splits

    def _generate_examples(self, labels):
        image = "other" if self.builder_config.name == "pair" else "image"
        for index, label in enumerate(labels):
            stripe = Image.new("RGB", (12, 9), (index, 0, 0))
            yield index, {image: io.BytesIO(encoded(stripe)), "label": label}


@pytest.fixture(scope="session")
def stripes_dir(tmp_path_factory) -> Path:
    data_dir = tmp_path_factory.mktemp("tfds")
    for config in Stripes.BUILDER_CONFIGS:
        builder = Stripes(config=config.name, data_dir=data_dir)
        builder.download_and_prepare(file_format="array_record")
    return data_dir


@pytest.mark.parametrize("name", ["stripes", "stripes/wide-v2", "stripes/wide-v2:1.10.0"])
def test_prepared_tfds_data_set_is_found_by_name(stripes_dir, name):
    data.find(name, stripes_dir)
    dataset = data.load(name, stripes_dir)
    assert dataset.class_names == ("0", "1", "2")
    assert [(label, key) for _, label, key in everything(dataset.train)] == [
        (0, "train[0]"),
        (1, "train[1]"),
        (2, "train[2]"),
    ]
    assert [(label, key) for _, label, key in everything(dataset.test)] == [
        (2, "validation[0]"),
        (1, "validation[1]"),
    ]
    assert decode(dataset.train[2]["image"], "").getpixel((0, 0)) == (2, 0, 0)


def test_newest_prepared_version_is_read(stripes_dir, tmp_path):
    shutil.copytree(stripes_dir, tmp_path, dirs_exist_ok=True)
    shutil.copytree(tmp_path / "stripes/wide-v2/1.10.0", tmp_path / "stripes/wide-v2/1.9.0")
    assert data.load("stripes/wide-v2", tmp_path).train.directory.name == "1.10.0"
    assert data.load("stripes/wide-v2:1.9.0", tmp_path).train.directory.name == "1.9.0"


def test_test_split_without_labels_is_passed_over(stripes_dir):
    assert data.load("stripes/unlabelled", stripes_dir).test[0]["key"] == "validation[0]"


def test_prepare_leaves_alone_what_is_prepared(stripes_dir):
    data.prepare("stripes", stripes_dir)


@pytest.mark.parametrize("call", [data.load, data.find])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10", "cifar10 is not prepared in .*: run python -m experiments prepare cifar10$"),
        ("stripes:1.9.0", "run python -m experiments prepare stripes:1.9.0$"),
        ("stripes/tall", "run python -m experiments prepare stripes/tall$"),
        ("stripes/pair", "no features image and label"),
        ("stripes/train_only", "neither test nor validation"),
        ("../stripes", "no data set is called '../stripes'"),
        ("", "no data set is called ''"),
        ("my stripes", "no data set is called 'my stripes'"),
        ("stripes ", "no data set is called 'stripes '"),
    ],
)
def test_tfds_mistakes(stripes_dir, call, name, message):
    with pytest.raises(InputError, match=message):
        call(name, stripes_dir)


@pytest.mark.parametrize("name", ["", "my stripes", "/data/pets"])
def test_nothing_is_prepared_under_an_impossible_name(tmp_path, name):
    with pytest.raises(InputError, match=f"no data set is called '{name}': use digits, folder:"):
        data.prepare(name, tmp_path)


@pytest.mark.parametrize("call", [data.load, data.find])
def test_other_file_format(stripes_dir, tmp_path, call):
    shutil.copytree(stripes_dir, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "stripes" / "wide-v2" / "1.10.0" / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fileFormat": "tfrecord"}))
    message = "other than array_record.*run python -m experiments prepare stripes$"
    with pytest.raises(InputError, match=message):
        call("stripes", tmp_path)


def damaged(stripes_dir: Path, tmp_path: Path) -> Path:
    """A copy of the data set to damage."""
    shutil.copytree(stripes_dir / "stripes" / "wide-v2", tmp_path / "stripes" / "wide-v2")
    return tmp_path / "stripes" / "wide-v2" / "1.10.0"


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


TRAIN, VALIDATION = (
    f"stripes-{split}.array_record-00000-of-00001" for split in ("train", "validation")
)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        *(
            (name, change, f"{name} is {how}")
            for name in ("dataset_info.json", "features.json")
            for change, how in (
                (Path.unlink, "missing"),
                (lambda path: path.write_bytes(b""), "damaged"),
                (lambda path: path.write_bytes(b"\xff"), "damaged"),
                (lambda path: path.write_text("[]"), "damaged"),
            )
        ),
        ("dataset_info.json", lambda path: path.write_text("{}"), "dataset_info.json is damaged"),
        ("label.labels.txt", lambda path: path.write_text("one\n"), "label.labels.txt is damaged"),
        (TRAIN, Path.unlink, f"{TRAIN} is missing"),
        (TRAIN, lambda path: path.write_bytes(b""), f"{TRAIN} is damaged"),
        (TRAIN, lambda path: os.truncate(path, path.stat().st_size - 1), f"{TRAIN} is damaged"),
        (
            TRAIN,
            lambda path: shutil.copy(
                path.with_name(path.name.replace("train", "validation")), path
            ),
            f"{TRAIN} has 2 examples, not 3",
        ),
        (VALIDATION, Path.unlink, f"{VALIDATION} is missing"),
        (
            "features.json",
            lambda path: path.write_text(path.read_text().replace("dtype", "of")),
            "TFDS cannot",
        ),
    ],
)
def test_damaged_tfds_data_sets_are_found_out(stripes_dir, tmp_path, name, change, message):
    directory = damaged(stripes_dir, tmp_path)
    change(directory / name)
    remedy = f"move {directory} away and run python -m experiments prepare stripes/wide-v2$"
    with pytest.raises(InputError, match=f"{message}.*: {remedy}"):
        data.find("stripes/wide-v2", tmp_path)
    with pytest.raises(InputError, match=message):
        data.prepare("stripes/wide-v2", tmp_path)


def test_a_damaged_record_is_named(stripes_dir, tmp_path):
    directory = damaged(stripes_dir, tmp_path)
    train = data.load("stripes/wide-v2", tmp_path).train
    content = bytearray((directory / TRAIN).read_bytes())
    place = content.index(train[1]["image"])
    content[place] ^= 1
    (directory / TRAIN).write_bytes(content)
    with pytest.raises(InputError, match=r"train\[1\] in .*1\.10\.0 is damaged: move the"):
        data.load("stripes/wide-v2", tmp_path).train[1]


def test_a_damaged_default_configuration_is_named(stripes_dir, tmp_path):
    shutil.copytree(stripes_dir, tmp_path, dirs_exist_ok=True)
    (tmp_path / "stripes" / ".config" / "metadata.json").write_text("")
    with pytest.raises(InputError, match=r"metadata\.json is damaged: name a configuration, as in"):
        data.find("stripes", tmp_path)
    assert data.find("stripes/wide-v2", tmp_path).identity["train"] == 3


def test_what_makes_a_tfds_data_set_another(stripes_dir, tmp_path):
    directory = damaged(stripes_dir, tmp_path)
    found = data.find("stripes/wide-v2", stripes_dir)
    assert found.identity == {
        "name": "stripes/wide-v2",
        "version": "1.10.0",
        "fingerprint": found.identity["fingerprint"],
        "train": 3,
        "test": 2,
        "classes": 3,
    }
    assert data.find("stripes/wide-v2", tmp_path).identity == found.identity
    fingerprints = {found.identity["fingerprint"]}
    for count, (name, old, new) in enumerate(
        (
            ("dataset_info.json", '"1.10.0"', '"1.10.1"'),
            ("dataset_info.json", '"numBytes": "', '"numBytes": "1'),
            ("features.json", '"uint8"', '"uint16"'),
            ("label.labels.txt", "0", "zero"),
        ),
        start=2,
    ):
        path = directory / name
        whole = path.read_text() if path.exists() else "0\n1\n2\n"
        path.write_text(whole)
        replace(path, old, new)
        fingerprints.add(data.find("stripes/wide-v2", tmp_path).identity["fingerprint"])
        assert len(fingerprints) == count
        path.write_text(whole)
    text = (directory / "dataset_info.json").read_text()
    (directory / "dataset_info.json").write_text(json.dumps(json.loads(text)))
    assert data.find("stripes/wide-v2", tmp_path).identity == found.identity


def test_examples_pickle_small(digits):
    everything(digits.train)
    pickled = pickle.dumps(digits.train)
    assert len(pickled) < 500
    assert everything(pickle.loads(pickled)) == everything(digits.train)


# Preprocessing


def test_decode_grayscale_palette_and_bits():
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    expected = np.repeat(gray[..., None], 3, axis=-1)
    image = Image.fromarray(gray)
    palette = image.quantize(64)
    sixteen = Image.fromarray(gray.astype(np.uint16) * 257)
    assert sixteen.mode == "I;16"
    for picture in (image, image.convert("LA"), image.convert("RGBA"), palette, sixteen):
        np.testing.assert_array_equal(decode(encoded(picture), "gray"), expected)
    transparent = encoded(palette, transparency=bytes(range(64)))
    np.testing.assert_array_equal(decode(transparent, "gray"), expected)
    black_and_white = np.asarray(decode(encoded(image.convert("1")), "gray"))
    assert set(black_and_white.ravel()) == {0, 255}


def test_decode_cmyk():
    image = Image.new("RGB", (16, 16), (200, 100, 50))
    cmyk = encoded(image.convert("CMYK"), "JPEG", quality=100)
    assert Image.open(io.BytesIO(cmyk)).mode == "CMYK"
    np.testing.assert_allclose(decode(cmyk, "cmyk"), image, atol=3)


PNG, JPEG, GIF, WEBP, BMP, TIFF = (
    encoded(Image.fromarray(noise(32, 32)), kind)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b"", id="empty"),
        pytest.param(PNG[:1000], id="truncated PNG"),
        pytest.param(JPEG[:1000], id="truncated JPEG"),
        pytest.param(PNG[:11] + b"\0" + PNG[12:], id="PNG header of no length"),
        pytest.param(PNG[:36] + b"\0" + PNG[37:], id="PNG chunk of wrong length"),
        pytest.param(GIF, id="GIF"),
        pytest.param(TIFF, id="TIFF"),
        pytest.param(WEBP[:200], id="truncated WebP"),
        pytest.param(BMP[:1000], id="truncated BMP"),
    ],
)
def test_broken_image_is_named(broken):
    rng = np.random.default_rng(0)
    for read in (
        lambda: decode(broken, "n01/x.JPEG"),
        lambda: eval_image(PLAIN, broken, "n01/x.JPEG"),
        lambda: augmented(PLAIN, broken, "n01/x.JPEG", rng),
    ):
        with pytest.raises(BrokenImage, match=r"cannot read image n01/x\.JPEG: "):
            read()


def test_small_values_of_16_bits_are_kept():
    """Masks of 8 bits in files of 16 bits; where one value needs more, the upper byte is kept."""
    mask = np.arange(64, dtype=np.uint16).reshape(8, 8)
    pixels = np.asarray(decode(encoded(Image.fromarray(mask)), ""))
    np.testing.assert_array_equal(pixels, np.repeat(mask[..., None], 3, axis=-1))
    mask[0, 0] = 256
    assert np.asarray(decode(encoded(Image.fromarray(mask)), "")).sum() == 3


def test_remarks_of_any_size_do_not_matter(monkeypatch):
    """Profiles, text and EXIF that PIL refuses, or warns of."""
    pixels = noise(16, 16)
    text = PngInfo()
    text.add_text("large", "x" * 2**21, zip=True)
    text.add_itxt("larger", "x" * 2**21, zip=True)
    png = encoded(Image.fromarray(pixels), pnginfo=text, icc_profile=bytes(2**21))
    with pytest.raises(ValueError, match="Decompressed data too large"):
        Image.open(io.BytesIO(png)).load()
    np.testing.assert_array_equal(decode(png, ""), pixels)
    plain = encoded(Image.fromarray(pixels), "JPEG")
    # A directory of 1000 entries, of which none is there.
    exif = b"Exif\0\0II*\0\x08\0\0\0\xe8\x03"
    jpeg = encoded(
        Image.fromarray(pixels), "JPEG", exif=exif, comment=b"none", icc_profile=b"-" * 2**17
    )
    jpeg = jpeg.replace(
        b"JFIF\0\x01\x01\x00\x00\x01\x00\x01", b"JFIF\0\x01\x01\x07\x00\x01\x00\x01"
    )
    np.testing.assert_array_equal(decode(jpeg, ""), decode(plain, ""))


def test_first_frames_are_read():
    frames = [Image.fromarray(noise(16, 16, seed)) for seed in range(2)]
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        animated = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert Image.open(io.BytesIO(animated)).n_frames == 2
        np.testing.assert_array_equal(decode(animated, ""), frames[0])


def test_sizes_that_pil_guards_servers_against(monkeypatch):
    image = Image.fromarray(noise(64, 64))
    files = [encoded(image, kind) for kind in ("PNG", "JPEG", "BMP")]
    expected = [np.asarray(decode(file, "")) for file in files]
    # PIL would refuse these, and with twice the limit warn.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for file, pixels in zip(files, expected, strict=True):
        np.testing.assert_array_equal(decode(file, ""), pixels)
    monkeypatch.setattr("shufflenet_jax.data.decode.MOST_PIXELS", 64 * 64 - 1)
    for file in (*files, encoded(image, "WEBP")):
        with pytest.raises(InputError, match="image large has too many pixels to decode") as error:
            decode(file, "large")
        assert not isinstance(error.value, BrokenImage)
    # A JPEG need not be decoded at its full size.
    preprocessing = data.Preprocessing(8, eval_resize=1.0)
    assert eval_image(preprocessing, files[1], "").shape == (8, 8, 3)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_shift_is_a_translation_with_zeros(seed):
    preprocessing = data.Preprocessing(**(PLAIN.__dict__ | {"image_size": 16, "shift": 0.25}))
    pixels = noise(16, 16) | 1
    shifted = augmented(
        preprocessing, encoded(Image.fromarray(pixels)), "", np.random.default_rng(seed)
    )
    padded = np.pad(pixels, ((4, 4), (4, 4), (0, 0)))
    candidates = [
        (x, y)
        for x, y in itertools.product(range(9), repeat=2)
        if np.array_equal(padded[y : y + 16, x : x + 16], shifted)
    ]
    assert len(candidates) == 1


def test_shifts_reach_every_offset_in_both_directions():
    preprocessing = data.Preprocessing(**(PLAIN.__dict__ | {"shift": 0.125}))
    dot = np.zeros((8, 8), np.uint8)
    dot[4, 4] = 255
    image = encoded(Image.fromarray(dot))
    rng = np.random.default_rng(0)
    places = {
        tuple(np.argwhere(augmented(preprocessing, image, "", rng)[..., 0])[0]) for _ in range(200)
    }
    assert places == set(itertools.product((3, 4, 5), repeat=2))


@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([(0.08, 1.0), (0.49, 1.0), (0.2, 0.3), (1.0, 1.0)]),
)
@settings(max_examples=50, deadline=None)
def test_random_resized_part_keeps_its_bounds(seed, scale):
    preprocessing = data.Preprocessing(
        image_size=32, scale=scale, ratio=(0.7, 1.4), flip=False, color=0.0, lighting=0.0
    )
    # Red tells x, green tells y: the slopes of the result are the part's width and height.
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8), (256, 256))
    image = encoded(Image.fromarray(np.stack([ramp, ramp.T, 0 * ramp], axis=-1)))
    part = augmented(preprocessing, image, "", np.random.default_rng(seed))
    assert part.shape == (32, 32, 3)
    assert part.dtype == np.uint8
    inner = part[4:-4, 4:-4].astype(float)
    width = 32 * np.diff(inner[..., 0], axis=1).mean()
    height = 32 * np.diff(inner[..., 1], axis=0).mean()
    assert scale[0] - 0.04 <= width * height / 256**2 <= scale[1] + 0.04
    assert 0.7 - 0.05 <= width / height <= 1.4 + 0.05


def test_random_part_of_a_strip_is_its_central_square():
    strip = np.zeros((8, 200, 3), np.uint8)
    strip[:, 96:104] = 255
    preprocessing = data.Preprocessing(image_size=8, scale=(0.9, 1.0), color=0.0, lighting=0.0)
    part = augmented(preprocessing, encoded(Image.fromarray(strip)), "", np.random.default_rng(0))
    assert (part == 255).all()


@pytest.mark.parametrize("crop", ["shift", "random_resized"])
def test_flip_mirrors_half_of_the_images_or_none(crop):
    bright_left = np.zeros((16, 16), np.uint8)
    bright_left[:, :4] = 255
    image = encoded(Image.fromarray(bright_left))
    rng = np.random.default_rng(0)

    def flipped(flip: bool) -> float:
        preprocessing = data.Preprocessing(
            16, crop, shift=0.0, flip=flip, color=0.0, eval_resize=1.0
        )
        parts = [augmented(preprocessing, image, "", rng).astype(int) for _ in range(200)]
        return np.mean([part[:, 8:].sum() > part[:, :8].sum() for part in parts])

    assert flipped(False) == 0
    assert 0.35 < flipped(True) < 0.65


def test_color_changes_by_no_more_than_asked():
    image = encoded(Image.new("RGB", (8, 8), (100, 100, 100)))
    rng = np.random.default_rng(0)
    values = {}
    for color in (0.0, 0.4):
        preprocessing = data.Preprocessing(8, "shift", shift=0.0, color=color, lighting=0.0)
        values[color] = [augmented(preprocessing, image, "", rng)[0, 0, 0] for _ in range(300)]
    assert set(values[0]) == {100}
    # On an even gray only the brightness tells.
    assert 60 <= min(values[0.4]) < 65
    assert 135 < max(values[0.4]) <= 140


def test_lighting_moves_all_pixels_alike_without_wrapping():
    image = encoded(Image.fromarray(np.array([[0, 128, 255]], np.uint8)).resize((9, 9), 0))
    preprocessing = data.Preprocessing(
        9, "shift", shift=0.0, color=0.0, lighting=0.3, eval_resize=1.0
    )
    rng = np.random.default_rng(0)
    offsets = []
    for _ in range(100):
        pixels = augmented(preprocessing, image, "", rng).astype(int)
        offset = pixels[0, 4] - 128
        np.testing.assert_array_equal(pixels[:, 4], np.broadcast_to(128 + offset, (9, 3)))
        np.testing.assert_array_equal(pixels[0, [0, 8]].min(0), np.maximum(offset, 0))
        np.testing.assert_array_equal(pixels[0, [0, 8]].max(0), np.minimum(255 + offset, 255))
        offsets.append(offset)
    # The principal components' standard deviations, 0.3 times 255 over: mostly gray.
    expected = 0.3 * 255 * np.hypot(np.hypot(0.5675 * 0.2175, 0.7192 * 0.0188), 0.4009 * 0.0045)
    np.testing.assert_allclose(np.std(offsets, axis=0)[0], expected, rtol=0.25)


def test_evaluation_sees_the_centre():
    rings = np.zeros((64, 96, 3), np.uint8)
    rings[4:60, 20:76] = 255
    preprocessing = data.Preprocessing(image_size=56, eval_resize=64 / 56)
    pixels = eval_image(preprocessing, encoded(Image.fromarray(rings)), "")
    np.testing.assert_array_equal(pixels, np.full((56, 56, 3), 255))


def test_large_jpeg_looks_like_its_full_decoding():
    image = Image.fromarray(noise(15, 20)).resize((2000, 1500), Image.Resampling.BICUBIC)
    jpeg = encoded(image, "JPEG", quality=95)
    preprocessing = data.Preprocessing(image_size=64, eval_resize=1.0)
    expected = decode(jpeg, "").resize((64, 64), Image.Resampling.BICUBIC, (250, 0, 1750, 1500))
    got = eval_image(preprocessing, jpeg, "").astype(int)
    difference = np.abs(got - np.asarray(expected))
    assert difference.mean() < 1
    assert difference.max() < 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size is 0, but must be at least 1"),
        ({"crop": "centre"}, "crop is 'centre', but must be 'random_resized' or 'shift'"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (0.5, 0.4)}, "scale"),
        ({"ratio": (2.0, 1.0)}, "ratio"),
        ({"shift": 1.5}, "shift is 1.5"),
        ({"color": -0.1}, "color is -0.1"),
        ({"lighting": -1.0}, "lighting is -1"),
        ({"eval_resize": 0.9}, "eval_resize is 0.9"),
        ({"image_size": 10**9}, "image_size is 1000000000, but must be at least 1, at most 8192"),
        ({"ratio": (0.5, math.inf)}, "ratio is"),
        ({"ratio": (math.nan, 1.0)}, "ratio is"),
        *(
            ({name: value}, f"{name} is {value}")
            for name in ("shift", "color", "lighting", "eval_resize")
            for value in (math.nan, math.inf)
        ),
    ],
)
def test_preprocessing_mistakes(options, message):
    with pytest.raises(InputError, match=message):
        data.Preprocessing(**options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", 224.5),
        ("image_size", True),
        ("crop", 3),
        ("scale", 0.5),
        ("scale", (0.5,)),
        ("scale", (0.5, 1.0, 1.0)),
        ("scale", ("0.5", 1.0)),
        ("ratio", None),
        ("shift", "0.1"),
        ("flip", "no"),
        ("color", False),
    ],
)
def test_preprocessing_of_wrong_types(name, value):
    # Past the annotations, which are checked in tests only.
    preprocessing = object.__new__(data.Preprocessing)
    preprocessing.__dict__.update(data.Preprocessing().__dict__ | {name: value})
    with pytest.raises(InputError, match=f"{name} is {re.escape(repr(value))}, but must be "):
        preprocessing.__post_init__()


# Batches

SHIFT = data.Preprocessing(image_size=32, crop="shift", lighting=0.0, eval_resize=1.0)


def labels_of(batches) -> list[int]:
    return np.concatenate([batch.label for batch in batches]).tolist()


def test_every_image_once_an_epoch_in_a_new_order():
    batches = list(data.train_batches(Distinct(40), PLAIN, batch_size=8, seed=0, steps=15))
    labels = labels_of(batches)
    epochs = [labels[start : start + 40] for start in (0, 40, 80)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(40))] * 3
    assert len({tuple(epoch) for epoch in [*epochs, range(40)]}) == 4
    for batch in batches:
        assert batch.image.dtype == np.uint8
        assert batch.label.dtype == np.int32
        assert batch.mask.dtype == bool
        assert batch.mask.all()
        expected = np.broadcast_to(batch.label[:, None, None, None], (8, 8, 8, 3))
        np.testing.assert_array_equal(batch.image, expected)


def test_batches_run_across_epochs():
    labels = labels_of(data.train_batches(Distinct(5), PLAIN, batch_size=3, seed=0, steps=5))
    assert sorted(labels) == sorted([*range(5)] * 3)


def test_augmentation_differs_by_epoch(digits):
    batches = data.train_batches([digits.train[0]], SHIFT, batch_size=1, seed=0, steps=20)
    assert len({(batch.image.tobytes(), batch.colors.factor.tobytes()) for batch in batches}) == 20


def test_resumed_batches_are_the_same(digits):
    options = {"batch_size": 32, "seed": 1, "steps": 20}  # an epoch is 14
    whole = list(data.train_batches(digits.test, SHIFT, **options))
    assert len(whole) == 20
    for start in (1, 14, 20):
        resumed = data.train_batches(digits.test, SHIFT, start_step=start, **options)
        assert_equal_batches(list(resumed), whole[start:])


def test_seeds_differ_in_order_and_augmentation(digits):
    first, second = (
        next(data.train_batches(digits.train, SHIFT, batch_size=64, seed=seed, steps=1))
        for seed in (0, 1)
    )
    assert (first.label != second.label).any()
    one, other = (
        next(data.train_batches([digits.train[0]], SHIFT, batch_size=1, seed=seed, steps=1))
        for seed in (0, 1)
    )
    assert (one.image != other.image).any()


@pytest.mark.parametrize("batch_size", [1, 7, 449, 500])
def test_evaluation_sees_every_image_once_in_order(digits, batch_size):
    batches = list(data.eval_batches(digits.test, PLAIN, batch_size=batch_size))
    assert {batch.image.shape for batch in batches} == {(batch_size, 8, 8, 3)}
    assert len(batches) == -(-449 // batch_size)
    images, labels, masks = map(np.concatenate, zip(*map(jax.tree.leaves, batches), strict=True))
    assert masks.sum() == masks[:449].sum() == 449
    assert not images[449:].any()
    assert not labels[449:].any()
    for index in range(449):
        example = digits.test[index]
        assert labels[index] == example["label"]
        np.testing.assert_array_equal(images[index], decode(example["image"], ""))


@pytest.mark.slow
def test_workers_make_the_same_batches_without_a_device(digits, monkeypatch):
    # With no such platform, the first use of a device in a worker would fail.
    monkeypatch.setenv("JAX_PLATFORMS", "none")
    options = {"batch_size": 32, "seed": 1, "steps": 50}
    alone = list(data.train_batches(digits.train, SHIFT, **options))
    workers = data.train_batches(digits.train, SHIFT, num_workers=2, **options)
    assert_equal_batches(list(workers), alone)
    workers = data.train_batches(digits.train, SHIFT, num_workers=1, start_step=7, **options)
    assert_equal_batches(list(workers), alone[7:])
    alone = list(data.eval_batches(digits.test, SHIFT, batch_size=100))
    workers = data.eval_batches(digits.test, SHIFT, batch_size=100, num_workers=1)
    assert_equal_batches(list(workers), alone)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_broken_image_among_good_ones_is_named(tmp_path, workers):
    root = write_folder(tmp_path / "pets", *GOOD)
    path = root / "val" / "dog" / "e.jpg"
    path.write_bytes(path.read_bytes()[:200])
    test = data.load(f"folder:{root}", tmp_path).test
    with pytest.raises(InputError, match=r"cannot read image val/dog/e\.jpg"):
        list(data.eval_batches(test, PLAIN, batch_size=2, num_workers=workers))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": -1}, "num_workers is -1, but must be at least 0"),
        ({"batch_size": 0}, "batch size is 0, but must be at least 1"),
    ],
)
def test_impossible_batches(options, message):
    options = {"batch_size": 4} | options
    with pytest.raises(InputError, match=message):
        data.train_batches(Distinct(40), PLAIN, seed=0, steps=1, **options)
    with pytest.raises(InputError, match=message):
        data.eval_batches(Distinct(40), PLAIN, **options)


def test_batch_larger_than_the_data_set():
    with pytest.raises(InputError, match="batch size 41 exceeds the 40 training images"):
        data.train_batches(Distinct(40), PLAIN, batch_size=41, seed=0, steps=1)
