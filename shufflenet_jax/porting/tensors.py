"""Arrays out of files of PyTorch and of safetensors, without running anything that is in them.

PyTorch writes a pickle, which is a program: unpickled as it stands, it may call anything. Here the
pickle machine of Python's standard library runs with a few names to call, which make dictionaries
and describe arrays, and refuses every other. `torch.load(weights_only=True)` does so too, but needs
PyTorch, each version of which has rules of its own. Sizes are held against the file before memory
is taken.
"""

import collections
import io
import math
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from shufflenet_jax.errors import InputError

Tensors = dict[str, np.ndarray]
"""Arrays by name."""

_USUAL: tuple[str, ...] = ("state_dict", "model", "model_state_dict")
"""Keys under which checkpoints hold the state dict, where several could be one."""

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

_TYPES: Mapping[str, Any] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


def read_tensors(path: Path) -> Tensors:
    """Reads a state dict: of ``torch.save``, today's or the one before 1.6, or of safetensors.

    Args:
      path: Of the file. A checkpoint that holds the state dict beside other things, under some key,
        will do, as will one of ``DataParallel`` or of a compiled module, whose prefix is taken off.

    Raises:
      InputError: There is no such file, it is damaged, it asks for something to be called, or it
        holds no state dict, or several.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            file.seek(0)
            if path.suffix == ".safetensors":
                return _safetensors(file.read())
            if start.startswith(b"PK"):
                return state_dict(_zipped(file), "it")
            return state_dict(_legacy(file), "it")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # of a damaged pickle, whatever the machine meets
        raise InputError(
            f"{path} is damaged, or no file of PyTorch or safetensors: {_first_line(error)}"
        ) from error


def state_dict(content: Any, source: str) -> Tensors:
    """Finds the state dict in what a file holds.

    Args:
      content: A dictionary of arrays by name, or one that holds such a dictionary under a key.
      source: What to call where it comes from.

    Raises:
      InputError: There is none, or more than one.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{source} holds no dictionary of tensors, but a {type(content).__name__}")
    found = _tensors(content)
    if found is None:
        inner = {
            str(key): tensors
            for key, value in content.items()
            if isinstance(value, Mapping) and (tensors := _tensors(value)) is not None
        }
        usual = [name for name in _USUAL if name in inner]
        if not inner:
            raise InputError(f"{source} holds no dictionary of tensors, at its top or under a key")
        if len(inner) > 1 and not usual:
            raise InputError(
                f"{source} holds several dictionaries of tensors, {', '.join(inner)}: give the one "
                "that you mean"
            )
        found = inner[(usual or list(inner))[0]]
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): each for name, each in found.items()}
    return found


def _tensors(content: Mapping[Any, Any]) -> Tensors | None:
    """A dictionary as arrays; None if it is none of arrays by name."""
    arrays = {}
    for name, value in content.items():
        array = _array(value)
        if not isinstance(name, str) or array is None:
            return None
        arrays[name] = array
    return arrays or None


def _array(value: Any) -> np.ndarray | None:
    """A NumPy array, or a tensor of PyTorch, as an array."""
    if isinstance(value, np.ndarray):
        return value
    if all(hasattr(value, name) for name in ("detach", "cpu", "numpy")):
        value = value.detach().cpu()
        return np.asarray((value.float() if "bfloat16" in str(value.dtype) else value).numpy())
    return None


@dataclass(frozen=True)
class _Storage:
    """What arrays are views of; its memory may be read later."""

    dtype: np.dtype
    size: int
    values: Callable[[], np.ndarray]


@dataclass(frozen=True)
class _View:
    """An array as a pickle describes it."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        count = math.prod(self.shape)
        if count == 0:
            return np.empty(self.shape, self.storage.dtype)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        # One that repeats its memory could be of any size.
        if count > self.storage.size or self.offset < 0 or last >= self.storage.size:
            raise InputError(f"a tensor of shape {self.shape} is larger than what is stored of it")
        values = self.storage.values()
        item = self.storage.dtype.itemsize
        view = np.lib.stride_tricks.as_strided(
            values[self.offset :], self.shape, [item * stride for stride in self.strides]
        )
        return view.copy()


def _rebuilt(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _View:
    """In place of ``torch._utils._rebuild_tensor_v2``."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or len(shape) != len(strides) or len(shape) > 16:
        raise InputError("a tensor is described in a way that PyTorch does not")
    if not all(isinstance(each, int) and each >= 0 for each in numbers):
        raise InputError("a tensor has sizes that are no numbers from 0 on")
    return _View(storage, offset, tuple(shape), tuple(strides))


def _parameter(data: Any, *_: Any) -> Any:
    """In place of ``torch._utils._rebuild_parameter``."""
    return data


_CALLABLE: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuilt,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): tuple,
}


class _Unpickler(pickle.Unpickler):
    """Runs a pickle that may call what is in `_CALLABLE`, and nothing else."""

    def __init__(self, file: io.BufferedIOBase, storage: Callable[[np.dtype, str, int], _Storage]):
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _TYPES:
            return np.dtype(_TYPES[name])
        if (module, name) not in _CALLABLE:
            raise InputError(
                f"it asks for {module}.{name} to be called, which is no tensor: nothing of it was "
                "run; save the state dict alone"
            )
        return _CALLABLE[module, name]

    def persistent_load(self, place: Any) -> _Storage:
        match place:
            case ("storage", np.dtype() as dtype, str() as key, str(), int() as size, *rest):
                if any(each is not None for each in rest):
                    raise InputError("a storage is a view of another one: save it anew")
                if size < 0:
                    raise InputError(f"a storage has {size} values")
                return self._storage(dtype, key, size)
        raise InputError("a storage is described in a way that PyTorch does not")


def _zipped(file: io.BufferedIOBase) -> Any:
    with zipfile.ZipFile(file) as archive:
        sizes = {each.filename: each for each in archive.infolist()}
        pickles = [name for name in sizes if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise InputError("it is a zip file, but not one of PyTorch")
        folder = pickles[0].removesuffix("data.pkl")

        def content(name: str) -> bytes:
            if sizes[name].compress_type != zipfile.ZIP_STORED:
                raise InputError(f"{name} in it is compressed, as PyTorch does not")
            return archive.read(name)

        if (order := folder + "byteorder") in sizes and content(order) != b"little":
            raise InputError("its numbers are not little-endian: save it anew")

        def storage(dtype: np.dtype, key: str, size: int) -> _Storage:
            name = f"{folder}data/{key}"
            if name not in sizes or sizes[name].file_size != size * dtype.itemsize:
                raise InputError(f"{name} is missing, or not of {size} values")
            return _Storage(dtype, size, lambda: np.frombuffer(content(name), dtype))

        return _as_arrays(_Unpickler(io.BytesIO(content(pickles[0])), storage).load())


def _legacy(file: io.BufferedIOBase) -> Any:
    """What PyTorch wrote before 1.6: pickles, and behind them the memory of every storage."""
    storages: dict[str, tuple[_Storage, list[np.ndarray]]] = {}

    def storage(dtype: np.dtype, key: str, size: int) -> _Storage:
        if key not in storages:
            memory: list[np.ndarray] = []
            storages[key] = _Storage(dtype, size, lambda: memory[0]), memory
        return storages[key][0]

    def unpickled() -> Any:
        return _Unpickler(file, storage).load()

    if unpickled() != _MAGIC or unpickled() != _PROTOCOL:
        raise InputError("it is no file of PyTorch")
    system = unpickled()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise InputError("its numbers are not little-endian: save it anew")
    content, keys = unpickled(), unpickled()
    left = os.fstat(file.fileno()).st_size - file.tell()
    for key in keys:
        if key not in storages or storages[key][1]:
            raise InputError("it names a storage that there is not")
        expected, memory = storages[key]
        if int.from_bytes(file.read(8), "little") != expected.size:
            raise InputError("a storage has another size than its tensors say")
        length = expected.size * expected.dtype.itemsize
        left -= 8 + length
        if left < 0:
            raise InputError("it ends within a storage")
        memory.append(np.frombuffer(file.read(length), expected.dtype))
    if any(not memory for _, memory in storages.values()):
        raise InputError("it lacks a storage")
    return _as_arrays(content)


def _as_arrays(content: Any, depth: int = 0) -> Any:
    """Dictionaries with arrays in place of their descriptions."""
    if isinstance(content, _View):
        return content.array()
    if isinstance(content, dict) and depth < 8:
        return {key: _as_arrays(value, depth + 1) for key, value in content.items()}
    return content


def _safetensors(content: bytes) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(content)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"it is no file of safetensors: {_first_line(error)}") from error
    return state_dict(tensors, "it")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
