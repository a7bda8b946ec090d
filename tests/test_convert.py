"""TFRecords become what is trained on: each image once, or an error that names a file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tfrecords
from tfrecords import COUNTS, example, images, inception_copy, picture, tfds_copy, write

from experiments.__main__ import main
from shufflenet_jax import data
from shufflenet_jax.data import convert
from shufflenet_jax.data.tfrecord import records
from shufflenet_jax.errors import InputError

COPIES = {"tfds": tfds_copy, "inception": inception_copy}

# b"shuffle", b"" and 10 times b"net", as TensorFlow 2.21 wrote them.
BY_TENSORFLOW = bytes.fromhex(
    "0700000000000000bbd79f1173687566666c6505ec08c2000000000000000029039807d8ea82a21e00000000000000"
    "d9dc12326e65746e65746e65746e65746e65746e65746e65746e65746e65746e6574c776a85a"
)


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    """As if ImageNet had no more."""
    known = {split: sum(counts) for split, counts in COUNTS.items()}
    monkeypatch.setattr(convert, "IMAGENET_IMAGES", known)


def expected(split):
    return [
        (picture(number), label, key.decode())
        for file in images(split)
        for number, label, key in file
    ]


def everything(examples):
    return [tuple(examples[index].values()) for index in range(len(examples))]


def test_records_of_tensorflow_are_read(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(BY_TENSORFLOW)
    assert list(records(path)) == [b"shuffle", b"", 10 * b"net"]
    write(path, [b"shuffle", b"", 10 * b"net"])
    assert path.read_bytes() == BY_TENSORFLOW


def test_every_cut_and_every_flipped_bit_is_found(tmp_path):
    path = tmp_path / "a.tfrecord"
    whole = {0, 7 + 16, 7 + 32}  # where a record ends
    for length in range(len(BY_TENSORFLOW)):
        path.write_bytes(BY_TENSORFLOW[:length])
        if length in whole:
            list(records(path))
            continue
        with pytest.raises(InputError, match=r"a\.tfrecord, record \d is cut off"):
            list(records(path))
    for place in range(len(BY_TENSORFLOW)):
        damaged = bytearray(BY_TENSORFLOW)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.tfrecord, record \d is damaged"):
            list(records(path))


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_converted(kind, tmp_path, capsys):
    source = COPIES[kind](tmp_path / "copy")
    command = ["prepare", "imagenet2012", "--from-tfrecord", str(source)]
    assert main([*command, "--data-dir", str(tmp_path / "data")]) == 0
    said = capsys.readouterr()
    assert "imagenet2012 is prepared" in said.out
    assert f"6 files of 0.0 GB in {source} are converted to" in said.err
    assert "train: 4 of 4 files" in said.err
    found = data.find("imagenet2012", tmp_path / "data")
    assert (found.identity["train"], found.identity["test"]) == (10, 5)
    assert found.identity["classes"] == 1000
    assert found.class_names[:2] == ("n01440764", "n01443537")
    dataset = found.open()
    assert everything(dataset.train) == expected("train")
    assert everything(dataset.test) == expected("validation")
    version = tmp_path / "data" / "imagenet2012" / "5.1.0"
    assert [path.name for path in version.parent.iterdir()] == ["5.1.0"]
    assert not [path for path in version.iterdir() if path.name.startswith((".", "converted"))]
    # What is prepared is left alone.
    assert main([*command, "--data-dir", str(tmp_path / "data")]) == 0


def test_both_kinds_are_one_data_set(tmp_path):
    for kind, copy in COPIES.items():
        data.prepare("imagenet2012", tmp_path / kind, from_tfrecord=copy(tmp_path / f"{kind}-copy"))
    one, other = (data.find("imagenet2012", tmp_path / kind).identity for kind in COPIES)
    assert one == other


def test_a_copy_with_all_that_tfds_has_noted(tmp_path):
    """Whatever data set it is; counts are held against what was noted."""
    source = tfds_copy(tmp_path / "copy")
    for path in list(source.iterdir()):
        path.rename(path.with_name(path.name.replace("imagenet2012", "birds")))
    with pytest.raises(InputError, match=r"features\.json is missing"):
        data.prepare("birds", tmp_path / "data", from_tfrecord=source)
    data.prepare("imagenet2012", tmp_path / "of", from_tfrecord=tfds_copy(tmp_path / "other"))
    for name in ("features.json", "label.labels.txt"):
        (source / name).write_bytes((tmp_path / "of/imagenet2012/5.1.0" / name).read_bytes())
    info = {
        "name": "birds",
        "version": "2.0.1",
        "fileFormat": "tfrecord",
        "splits": [
            {"name": split, "shardLengths": [str(count) for count in counts]}
            for split, counts in COUNTS.items()
        ],
    }
    (source / "dataset_info.json").write_text(json.dumps(info))
    data.prepare("birds", tmp_path / "data", from_tfrecord=source)
    found = data.find("birds:2.0.1", tmp_path / "data")
    assert everything(found.open().train) == expected("train")
    info["splits"][0]["shardLengths"][1] = "3"
    (source / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match=r"birds-train\.tfrecord-00001-of-00004 has 2 examples, n"):
        data.prepare("birds", tmp_path / "again", from_tfrecord=source)
    (source / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match=r"dataset_info\.json is damaged"):
        data.prepare("birds", tmp_path / "again", from_tfrecord=source)


def start(source, data_dir):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, tfrecords.__file__, "imagenet2012", str(source), str(data_dir)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_conversion_that_was_killed_goes_on(tmp_path):
    """With the file at which it was; what it had begun of that is no more."""
    source = inception_copy(tmp_path / "copy")
    with start(source, tmp_path / "data") as killed:
        done = [killed.stdout.readline().strip() for _ in range(2)]
        killed.kill()
    partial = tmp_path / "data/imagenet2012/5.1.0.incomplete"
    (partial / ".some.file.of.a.killed.process").write_text("")
    with pytest.raises(InputError, match="is not prepared"):
        data.find("imagenet2012", tmp_path / "data")
    with start(source, tmp_path / "data") as went_on:
        rest = went_on.stdout.read().split()
    assert went_on.returncode == 0
    files = sum(map(len, COUNTS.values()))
    assert files - 2 <= len(rest) <= files - 1  # the second may not have been noted
    assert done[0] not in rest
    dataset = data.load("imagenet2012", tmp_path / "data")
    assert everything(dataset.train) == expected("train")
    assert everything(dataset.test) == expected("validation")
    assert not [path for path in dataset.train.directory.iterdir() if path.name.startswith(".")]


def test_a_file_that_was_mended_meanwhile_is_converted_anew(tmp_path):
    source = tfds_copy(tmp_path / "copy")
    last = source / "imagenet2012-validation.tfrecord-00001-of-00002"
    whole = last.read_bytes()
    last.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"validation\.tfrecord-00001-of-00002, record 2 is cut"):
        data.prepare("imagenet2012", tmp_path / "data", from_tfrecord=source)
    last.write_bytes(whole)
    first = source / "imagenet2012-train.tfrecord-00000-of-00004"
    write(first, [example(image=picture(n), label=0, file_name=b"new") for n in range(3)])
    data.prepare("imagenet2012", tmp_path / "data", from_tfrecord=source)
    keys = [key for _, _, key in everything(data.load("imagenet2012", tmp_path / "data").train)]
    assert keys == ["new"] * 3 + [key for _, _, key in expected("train")[3:]]


def remove(source, name):
    (source / name).unlink()


def change(source, name, content):
    write(source / name, [content])


MISTAKES = {
    "file 2 of 4 of train is missing in .*, beside train-00000-of-00004": lambda source: remove(
        source, "train-00002-of-00004"
    ),
    "has no TFRecords of imagenet2012: expected": lambda source: [
        remove(source, f"validation-{index:05}-of-00002") for index in range(2)
    ],
    "has 8 images of train, not ImageNet's 10": lambda source: change(
        source,
        "train-00000-of-00004",
        example(**{"image/encoded": b"x", "image/class/label": 1, "image/filename": b"x"}),
    ),
    "record 0 of .*train-00003-of-00004 is no image with a class": lambda source: change(
        source, "train-00003-of-00004", example(**{"image/encoded": b"x"})
    ),
    "record 0 of .*train-00001-of-00004 is no image with a class": lambda source: change(
        source,
        "train-00001-of-00004",
        example(**{"image/encoded": b"x", "image/class/label": 1001, "image/filename": b"x"}),
    ),
    "record 0 of .*train-00002-of-00004 is no image": lambda source: change(
        source, "train-00002-of-00004", b"no protocol buffer"
    ),
    "train-00000-of-00005 is of another number of files than 4": lambda source: change(
        source, "train-00000-of-00005", b""
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(message, tmp_path):
    source = inception_copy(tmp_path / "copy")
    MISTAKES[message](source)
    with pytest.raises(InputError, match=message):
        data.prepare("imagenet2012", tmp_path / "data", from_tfrecord=source)
    with pytest.raises(InputError, match="is not prepared"):
        data.find("imagenet2012", tmp_path / "data")


def test_what_cannot_be_converted(tmp_path, monkeypatch):
    source = inception_copy(tmp_path / "copy")
    for name, message in (
        ("digits", "digits does not come as TFRecords"),
        ("folder:/pets", "folder:/pets does not come as TFRecords"),
        ("imagenette/320px-v2", "does not come as TFRecords"),
        ("birds", "in a form that only imagenet2012 comes in, not birds"),
    ):
        with pytest.raises(InputError, match=message):
            data.prepare(name, tmp_path / "data", from_tfrecord=source)
    with pytest.raises(InputError, match="there is no folder"):
        data.prepare("imagenet2012", tmp_path / "data", from_tfrecord=tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is not a folder"):
        data.prepare("imagenet2012", tmp_path / "file", from_tfrecord=source)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(InputError, match=r"needs 0\.0 GB, and its disk has 0\.0 GB left: name"):
        data.prepare("imagenet2012", tmp_path / "data", from_tfrecord=source)


class Usage:
    free = 100


def test_what_imagenet_takes_is_said_before_it_is_begun(tmp_path, monkeypatch):
    said = []
    with pytest.raises(InputError) as error:
        data.prepare("imagenet2012", tmp_path, say=said.append)
    place = tmp_path / "downloads" / "manual"
    for words in (
        "is made of ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar",
        f"put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar into {place}",
        "155 GB more",
        "--from-tfrecord DIR",
        "--config.data.name=folder:PATH",
    ):
        assert words in str(error.value)
    place.mkdir(parents=True)
    (place / "ILSVRC2012_img_train.tar").write_bytes(bytes(80))
    with pytest.raises(InputError, match=r"put ILSVRC2012_img_val\.tar into"):
        data.prepare("imagenet2012", tmp_path, say=said.append)
    (place / "ILSVRC2012_img_val.tar").write_bytes(bytes(80))
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(
        InputError, match=r"takes 0\.0 GB more, and the disk of .* move the archives"
    ):
        data.prepare("imagenet2012", tmp_path, say=said.append)
    assert said == []
    monkeypatch.setattr(Usage, "free", 10**12)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs TensorFlow once"):
        data.prepare("imagenet2012", tmp_path, say=said.append)
    assert len(said) == 1
    assert "it takes 0.0 GB of the 1000.0 GB that are free" in said[0]


@pytest.mark.slow
def test_records_that_tensorflow_writes(tmp_path):
    """Records that no checksum of ours had a part in."""
    tensorflow = pytest.importorskip("tensorflow")
    source = inception_copy(tmp_path / "copy")
    for path in source.iterdir():
        again = list(records(path))
        with tensorflow.io.TFRecordWriter(str(path)) as writer:
            for record in again:
                writer.write(tensorflow.train.Example.FromString(record).SerializeToString())
    data.prepare("imagenet2012", tmp_path / "data", from_tfrecord=source)
    dataset = data.load("imagenet2012", tmp_path / "data")
    assert everything(dataset.train) == expected("train")
