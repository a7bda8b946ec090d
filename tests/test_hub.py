"""Networks in directories of their own: every architecture as data, whole or refused."""

import json
import os
import struct

import jax
import numpy as np
import pytest
from flax import nnx

import shufflenet_jax
from shufflenet_jax import InputError, PlainUnit, Trained, hub, load, save, zoo
from shufflenet_jax.data import IMAGENET, Preprocessing
from shufflenet_jax.zoo import NAMED, NETWORKS

ARGUMENTS = {
    "groups": 2,
    "width": 0.25,
    "repeats": [1, 1, 1],
    "stem": {"stride": 2, "max_pool": False},
}
NAMES = ("null", "één", "\udcff\udc80", "三", "a\nb")
GRAY = Preprocessing(image_size=32, pixel_mean=(0.5, 0.5, 0.5), pixel_std=(1 / 255,) * 3)
FROM = {"seed": 3, "data": "drawn"}


def drawn(network, seed=0):
    """A network with no value that a fresh one has."""
    random = np.random.default_rng(seed)
    state = nnx.state(network, (nnx.Param, nnx.BatchStat))
    values = jax.tree.map(
        lambda leaf: random.uniform(0.5, 1.5, leaf.shape).astype(np.float32),
        nnx.to_pure_dict(state),
    )
    nnx.replace_by_pure_dict(state, jax.device_put(values))
    nnx.update(network, state)
    return network


def a_network(name="shufflenet", arguments=ARGUMENTS, classes=NAMES):
    network = drawn(zoo.build(name, arguments, num_classes=len(classes)))
    return Trained(network, GRAY, classes, 7, name, arguments, FROM)


def assert_equal(one, other):
    assert nnx.graphdef(one.network) == nnx.graphdef(other.network)
    values = [nnx.to_pure_dict(nnx.state(each.network)) for each in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *values)
    for field in ("preprocessing", "class_names", "step", "name", "provenance"):
        assert getattr(one, field) == getattr(other, field)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hub") / "network"
    save(a_network(), directory, card="# A card\n")
    return directory


def copied(saved, tmp_path):
    place = tmp_path / "copy"
    place.mkdir()
    for path in saved.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    return place


def test_what_is_saved_comes_back(saved):
    assert sorted(os.listdir(saved)) == ["README.md", "config.json", "model.safetensors"]
    assert [path.name for path in saved.parent.iterdir()] == ["network"]  # nothing is left over
    loaded = load(str(saved))
    assert_equal(loaded, a_network())
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded.network(images), a_network().network(images))
    assert loaded.normalise(np.full((1, 1, 1, 3), 51, np.uint8)).max() == pytest.approx(-76.5)


SOME = ("shufflenet_g8_0.25x_noshuffle", "resnext_13m", "mobilenet_v1_0.25", "alexnet", "lenet5")


@pytest.mark.parametrize(
    "name",
    [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS],
)
def test_every_network_of_the_zoo_can_be_said_as_data(name):
    """By its family's arguments alone, as JSON gives them back."""
    constructor = NETWORKS[name]
    family, arguments = json.loads(json.dumps(NAMED[name]))
    rebuilt = zoo.build(family, arguments, num_classes=10)
    assert nnx.graphdef(rebuilt) == nnx.graphdef(
        shufflenet_jax.abstract(constructor, num_classes=10)
    )


@pytest.mark.parametrize("name", ["lenet5", "squeezenet", "resnext", "mobilenet_v1"])
def test_other_families(name, tmp_path):
    small = {"mobilenet_v1": {"width": 0.25}, "resnext": {"mflops": 13, "repeats": [1, 1, 1]}}
    network = a_network(name, small.get(name, {}))
    save(network, tmp_path / "a")
    assert_equal(load(tmp_path / "a"), network)


def test_a_network_of_ones_own(tmp_path):
    arguments = {"channels": [8], "conv1_channels": 4, "repeats": [1]}
    network = drawn(zoo.family_of(PlainUnit).build(arguments, num_classes=5))
    mine = Trained(network, IMAGENET, NAMES, 0, "mine", arguments)
    save(mine, tmp_path / "a")
    assert_equal(load(tmp_path / "a", PlainUnit), mine)
    with pytest.raises(InputError, match=r"unknown network 'mine'.*give its constructor"):
        load(tmp_path / "a")


def test_what_is_there_is_never_written_over(saved, tmp_path):
    (tmp_path / "empty").mkdir()
    save(a_network(), tmp_path / "empty")
    before = (saved / "config.json").read_bytes()
    with pytest.raises(InputError, match=f"{saved} is there already"):
        save(a_network(), saved)
    assert (saved / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arguments": {**ARGUMENTS, "shuffle": False}}, "same arrays, and computes otherwise"),
        ({"arguments": {**ARGUMENTS, "width": 0.5}}, "is float32.* in the network that is to be"),
        ({"arguments": {**ARGUMENTS, "repeats": [1, 1]}}, "stages have channels"),
        ({"class_names": NAMES[:4]}, "classifier.bias is float32"),
        ({"class_names": ()}, "needs the names of its classes"),
        ({"provenance": {"a": {1, 2}}}, "cannot be written down"),
    ],
)
def test_what_a_network_is_not_is_not_written(changes, message, tmp_path):
    network = a_network()
    wrong = Trained(**{**{f: getattr(network, f) for f in Trained.__dataclass_fields__}, **changes})
    with pytest.raises(InputError, match=message) as caught:
        save(wrong, tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_crash_while_saving_leaves_no_network(tmp_path, monkeypatch):
    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(hub.os, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        save(a_network(), tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "config.json has format 2"),
        ({"library_name": "x"}, "not of a network that this library saved"),
        ({"family": "shuflenet"}, "config.json: network shuflenet|unknown network 'shuflenet'"),
        ({"family": 3}, "config.json is damaged, or of another version"),
        ({"arguments": {"depth": 3}}, "config.json: .*unknown argument 'depth'"),
        ({"arguments": {"repeats": [10**9] * 3}}, "more units than model.safetensors has arrays"),
        ({"arguments": {**ARGUMENTS, "width": 1.0}}, "is float32.*, and float32.* in the network"),
        ({"id2label": {"1": "a"}}, "config.json is damaged, or of another version"),
        ({"id2label": []}, "config.json is damaged, or of another version|at least 1"),
        ({"preprocessing": {"image_size": 0}}, "config.json: image_size is 0"),
        ({"preprocessing": {"pixel_std": [0.0, 0.0, 0.0]}}, "config.json: pixel_std is"),
        ({"weights": {}}, "config.json is damaged, or of another version"),
        ({"weights": {"sha256": "0"}}, "model.safetensors is damaged"),
    ],
)
def test_a_damaged_or_hostile_configuration_is_refused(saved, tmp_path, change, message):
    place = copied(saved, tmp_path)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, **change}))
    refused(place, message)


def refused(place, message):
    with pytest.raises(InputError, match=message) as caught:
        load(place)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x00", b"[1]", b"{", b"[" * 10**5])
def test_what_is_no_configuration_is_refused(saved, tmp_path, content):
    place = copied(saved, tmp_path)
    (place / "config.json").write_bytes(content)
    refused(place, "config.json is")


def test_missing_files_are_named(tmp_path, saved):
    refused(tmp_path, "config.json cannot be read")
    place = copied(saved, tmp_path)
    (place / "model.safetensors").unlink()
    refused(place, "model.safetensors cannot be read")


def _claims(header):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 64,
        struct.pack("<Q", 2**60),
        _claims({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        _claims({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}),
        _claims({"a": {"dtype": "O", "shape": [], "data_offsets": [0, 0]}}),
        _claims([]),
    ],
)
def test_hostile_weights_are_refused(saved, tmp_path, content):
    """Also where the configuration has been made to agree with them."""
    place = copied(saved, tmp_path)
    (place / "model.safetensors").write_bytes(content)
    refused(place, "model.safetensors is damaged, or not the file")
    config = json.loads((place / "config.json").read_text())
    config["weights"]["sha256"] = hub.hashlib.sha256(content).hexdigest()
    (place / "config.json").write_text(json.dumps(config))
    refused(place, "model.safetensors is no file of safetensors")


def test_a_flipped_bit_is_found(saved, tmp_path):
    place = copied(saved, tmp_path)
    content = bytearray((place / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (place / "model.safetensors").write_bytes(content)
    refused(place, "model.safetensors is damaged")


class Folder:
    """A hub that is a folder: what huggingface_hub does over the network, done on a disk."""

    def __init__(self, root):
        self.root = root

    def create_repo(self, name, *, private, exist_ok):
        (self.root / name).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, commit_message):
        from huggingface_hub.utils import filter_repo_objects

        names = [path.name for path in folder_path.iterdir()]
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            (self.root / repo_id / name).write_bytes((folder_path / name).read_bytes())
        return f"file://{self.root / repo_id}"

    def snapshot_download(self, name, *, revision, allow_patterns):
        if not (self.root / name).is_dir():
            raise OSError("404")
        return str(self.root / name)


def test_the_hub(saved, tmp_path, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="pip install -e '.[hub]'")
    folder = Folder(tmp_path)
    for name in ("create_repo", "upload_folder", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, getattr(folder, name))
    place = copied(saved, tmp_path)
    (place / "secret.txt").write_text("stays here")
    shufflenet_jax.push_to_hub(place, "me/tiny")
    assert sorted(os.listdir(tmp_path / "me/tiny")) == sorted(os.listdir(saved))
    assert_equal(shufflenet_jax.from_pretrained("me/tiny"), a_network())
    assert_equal(shufflenet_jax.from_pretrained(saved), a_network())
    with pytest.raises(InputError, match="me/none is no directory, and cannot be had"):
        shufflenet_jax.from_pretrained("me/none")
    with pytest.raises(InputError, match=r"config.json cannot be read"):
        shufflenet_jax.push_to_hub(tmp_path, "me/other")
