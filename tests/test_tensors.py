"""Files of PyTorch and of safetensors: tensors only, and nothing in them is run."""

import collections
import contextlib
import os
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from shufflenet_jax import InputError
from shufflenet_jax.porting.tensors import read_tensors

CALLED = []


def call(*arguments):
    """What a hostile file asks for."""
    CALLED.append(arguments)


class Hostile:
    """Unpickled, it calls something."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def written(path, content):
    path.write_bytes(content)
    return path


def zipped(path, content, storages=(), **entries):
    """A file as PyTorch writes it, around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for key, memory in dict(storages).items():
            archive.writestr(f"archive/data/{key}", memory)
        for name, memory in entries.items():
            archive.writestr(f"archive/{name}", memory)
    return path


def refused(path, message):
    with pytest.raises(InputError, match=message) as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not CALLED


HOSTILE = {
    "a function": Hostile(call, "x"),
    "a system call": Hostile(os.system, "exit 1"),
    "eval": Hostile(eval, "1"),
    "a class": Hostile(collections.Counter, "aab"),
    "a getattr": Hostile(getattr, dict, "fromkeys"),
    "a partial within a dictionary": {"state_dict": {"a": Hostile(call)}},
    "a function behind tensors": collections.OrderedDict(a=1, b=Hostile(call, 2)),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_what_asks_to_be_called_is_refused(name, protocol, tmp_path):
    content = pickle.dumps(HOSTILE[name], protocol)
    refused(zipped(tmp_path / "a.pth", content), r"asks for .* to be called.*nothing of it was run")
    start = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    start += pickle.dumps({"little_endian": True}, 2)
    refused(written(tmp_path / "b.pth", start + content), "asks for .* to be called")
    refused(written(tmp_path / "c.pth", content), "asks for .* to be called")


def op(name):
    return getattr(pickle, name)


def a_storage(key="0", size=1):
    """The instructions that make a storage of floats."""
    return (
        op("MARK")
        + b"X\x07\x00\x00\x00storage"
        + b"ctorch\nFloatStorage\n"
        + b"X"
        + struct.pack("<I", len(key))
        + key.encode()
        + b"X\x03\x00\x00\x00cpu"
        + b"L%dL\n" % size
        + op("TUPLE")
        + op("BINPERSID")
    )


def a_tensor(shape=(1,), strides=(1,), offset=0, size=1):
    """A pickle of a state dict of one tensor, as described."""

    def numbers(values):
        return op("MARK") + b"".join(b"L%dL\n" % each for each in values) + op("TUPLE")

    return (
        b"\x80\x02"
        + op("EMPTY_DICT")
        + b"X\x01\x00\x00\x00a"
        + b"ctorch._utils\n_rebuild_tensor_v2\n"
        + op("MARK")
        + a_storage(size=size)
        + b"L%dL\n" % offset
        + numbers(shape)
        + numbers(strides)
        + op("NEWFALSE")
        + b"ccollections\nOrderedDict\n"
        + op("EMPTY_TUPLE")
        + op("REDUCE")
        + op("TUPLE")
        + op("REDUCE")
        + op("SETITEM")
        + op("STOP")
    )


def test_a_tensor_written_by_hand_is_read(tmp_path):
    memory = np.arange(6, dtype=np.float32)
    content = a_tensor(shape=(2, 2), strides=(1, 2), offset=1, size=6)
    found = read_tensors(zipped(tmp_path / "a.pth", content, {"0": memory.tobytes()}))
    np.testing.assert_array_equal(found["a"], [[1, 3], [2, 4]])


@pytest.mark.parametrize(
    ("described", "memory", "message"),
    [
        ({"shape": (2,)}, 4, "larger than what is stored"),
        ({"shape": (2**40,), "strides": (0,)}, 4, "larger than what is stored"),
        ({"shape": (1,), "offset": 1}, 4, "larger than what is stored"),
        ({"shape": (-1,)}, 4, "no numbers from 0 on"),
        ({"strides": (-1,)}, 4, "no numbers from 0 on"),
        ({"shape": (1, 1)}, 4, "in a way that PyTorch does not"),
        ({"size": 2**50}, 4, "data/0 is missing, or not of 1125899906842624 values"),
        ({"size": -1}, 4, "has -1 values"),
        ({}, 8, "data/0 is missing, or not of 1 values"),
    ],
)
def test_sizes_that_are_not_there_are_refused(described, memory, message, tmp_path):
    content = a_tensor(**described)
    refused(zipped(tmp_path / "a.pth", content, {"0": bytes(memory)}), message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged, or no file"),
        (b"\x00" * 100, "damaged, or no file"),
        (b"PK\x03\x04 torn", "damaged, or no file"),
        (pickle.dumps(3, 2), "no file of PyTorch"),
        (pickle.dumps({"a": 1}, 2), "no file of PyTorch"),
        (b"\x80\x02" + b"(" * 1000, "damaged, or no file"),
    ],
)
def test_other_files_are_refused(content, message, tmp_path):
    refused(written(tmp_path / "a.pth", content), message)


def test_zip_files_of_other_kinds(tmp_path):
    refused(tmp_path / "none.pth", "cannot be read: No such file")
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a.txt", "a")
    refused(tmp_path / "a.pth", "a zip file, but not one of PyTorch")
    with zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    refused(tmp_path / "b.pth", "is compressed")
    big = zipped(tmp_path / "c.pth", a_tensor(), {"0": bytes(4)}, byteorder="big")
    refused(big, "not little-endian")
    refused(zipped(tmp_path / "d.pth", pickle.dumps([1], 2)), "holds no dictionary of tensors")


def test_hostile_safetensors(tmp_path):
    for content in (b"", struct.pack("<Q", 2**62), b"\xff" * 50):
        refused(written(tmp_path / "a.safetensors", content), "no file of safetensors")


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_pytorch(legacy, tmp_path):
    """Of every type, shared, transposed, nested, and of what torch.load itself gives back."""
    torch = pytest.importorskip("torch", reason="pip install -e '.[parity]'")
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tensors = collections.OrderedDict(
        base=base,
        transposed=base.T[1:],
        parameter=torch.nn.Parameter(torch.ones(2)),
        half=torch.tensor([1.5], dtype=torch.float16),
        wide=torch.tensor([1.5], dtype=torch.float64),
        brain=torch.tensor([1.5], dtype=torch.bfloat16),
        count=torch.tensor(3),
        mask=torch.tensor([True, False]),
        empty=torch.zeros(0, 3),
    )
    tensors._metadata = {"": {"version": 1}}
    path = tmp_path / "a.pth"
    checkpoint = {"epoch": 3, "state_dict": tensors, "best": 0.5, "shape": base.shape}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=not legacy)
    found = read_tensors(path)
    assert found.keys() == tensors.keys()
    for name, each in tensors.items():
        expected = each.detach()
        if name == "brain":
            assert found[name].dtype == ml_dtypes.bfloat16
            expected = expected.float()
        np.testing.assert_array_equal(np.asarray(found[name], expected.numpy().dtype), expected)
    content = path.read_bytes()
    for length in (len(content) // 2, len(content) - 8):
        refused(written(tmp_path / "torn.pth", content[:length]), "torn.pth")


def test_a_whole_module_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="pip install -e '.[parity]'")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "asks for torch.nn.modules.linear.Linear to be called")


def test_no_file_of_random_damage_does_anything(tmp_path):
    """One byte of a file changed, anywhere: arrays come back, or one line of an error."""
    memory = np.arange(6, dtype=np.float32)
    content = a_tensor(shape=(2, 2), strides=(1, 2), offset=1, size=6)
    zipped(tmp_path / "a.pth", content, {"0": memory.tobytes()})
    whole = (tmp_path / "a.pth").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] = random.integers(256)
        with contextlib.suppress(InputError):
            found = read_tensors(written(tmp_path / "b.pth", bytes(damaged)))
            assert all(isinstance(each, np.ndarray) for each in found.values())
    assert not CALLED


def test_safetensors_are_read(tmp_path):
    from safetensors.numpy import save

    tensors = {"module.a": np.ones((2, 3), np.float32)}
    found = read_tensors(written(tmp_path / "a.safetensors", save(tensors)))
    np.testing.assert_array_equal(found["a"], tensors["module.a"])
