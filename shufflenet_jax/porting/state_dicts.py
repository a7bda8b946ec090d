"""Networks out of state dicts of PyTorch, and state dicts out of networks."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from shufflenet_jax import zoo
from shufflenet_jax.errors import InputError, did_you_mean
from shufflenet_jax.models.skeleton import Stem
from shufflenet_jax.porting.layout import Architecture, Layout
from shufflenet_jax.porting.megvii import MEGVII
from shufflenet_jax.porting.pytorchcv import PYTORCHCV, PYTORCHCV_B
from shufflenet_jax.porting.slots import fill, state_dict_of
from shufflenet_jax.porting.tensors import Tensors, read_tensors, state_dict
from shufflenet_jax.porting.torchvision import TORCHVISION
from shufflenet_jax.trained import Trained

LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout for layout in (MEGVII, PYTORCHCV, PYTORCHCV_B, TORCHVISION)
}
"""By name, in the order in which they are tried."""


def load_torch(
    source: str | os.PathLike[str] | Mapping[str, Any],
    layout: str = "auto",
    *,
    stem: Stem | None = None,
    class_names: Sequence[str] | None = None,
) -> Trained:
    """The network of a state dict of PyTorch, whose logits are those of the code that it is of.

    Groups, channels, repeats, units of stage 2 without a stride and the number of classes are read
    off the shapes of the tensors. PyTorch need not be installed, and nothing in a file is run.

    Args:
      source: A file of ``torch.save`` or of safetensors; or the state dict itself, of tensors or of
        NumPy arrays. It may be under a key of a checkpoint, or that of ``DataParallel``.
      layout: Whose it is: ``megvii`` (ShuffleNet V1 of megvii-model/ShuffleNet-Series),
        ``pytorchcv``, ``pytorchcv_b`` (its resnet50b, which no tensor tells from its resnet50,
        which is not ours) or ``torchvision``; ``auto`` tells by the names of the tensors.
      stem: What stands before stage 2, where it is not ImageNet's: the stride of a convolution and
        a max pool leave no trace in weights.
      class_names: Of the data set, by label; by default "0", "1" and so on.

    Returns:
      The network, and the preprocessing that its code has: images are RGB in any case.

    Raises:
      InputError: The file cannot be read or is hostile; the layout is unknown; or a tensor, which
        is named, is of no network of this library.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise InputError(f"unknown layout {layout!r}{did_you_mean(layout, ['auto', *LAYOUTS])}")
    provenance: dict[str, Any] = {}
    if isinstance(source, Mapping):
        name, tensors = "the state dict", state_dict(source, "the state dict")
    else:
        path = Path(source).expanduser()
        name, tensors = str(path), read_tensors(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        provenance = {"file": path.name, "sha256": digest}
    chosen, found = _recognised(tensors, name, layout)
    arguments = dict(found.arguments)
    if stem is not None:
        arguments["stem"] = dataclasses.asdict(stem)
    names = tuple(map(str, range(found.num_classes) if class_names is None else class_names))
    if len(names) != found.num_classes:
        raise InputError(f"{name} is of {found.num_classes} classes, and {len(names)} have names")
    try:
        network = zoo.build(found.family, arguments, num_classes=found.num_classes)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    fill(chosen.slots(found.family, network), tensors, name)
    missing = [
        leaf for leaf in jax.tree.leaves(nnx.state(network)) if not isinstance(leaf, jax.Array)
    ]
    assert not missing, missing
    provenance = {"imported_from": chosen.name, **provenance}
    return Trained(network, chosen.preprocessing, names, 0, found.family, arguments, provenance)


def torch_state_dict(trained: Trained, layout: str) -> Tensors:
    """The state dict with which other code computes what a network does: undoes `load_torch`.

    Args:
      trained: The network.
      layout: Whose code is to load it; see `load_torch`.

    Returns:
      Float32 arrays by name, which ``torch.from_numpy`` makes tensors of.

    Raises:
      InputError: The code has no such network; the tensor that has no place is named.
    """
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout {layout!r}{did_you_mean(layout, LAYOUTS)}")
    try:
        return state_dict_of(LAYOUTS[layout].slots(trained.name, trained.network))
    except InputError as error:
        raise InputError(f"{trained.name} in the layout of {layout}: {error}") from error


def _recognised(tensors: Tensors, source: str, layout: str) -> tuple[Layout, Architecture]:
    shapes = {name: tuple(each.shape) for name, each in tensors.items()}
    for each in LAYOUTS.values() if layout == "auto" else [LAYOUTS[layout]]:
        try:
            found = each.recognise(shapes)
        except (InputError, ValueError, IndexError, ZeroDivisionError) as error:
            said = error if isinstance(error, InputError) else "tensors have shapes of no network"
            raise InputError(f"{source}, in the layout of {each.name}: {said}") from error
        if found is not None:
            return each, found
    known = ", ".join(LAYOUTS) if layout == "auto" else layout
    some = ", ".join(list(shapes)[:3])
    raise InputError(f"{source} has tensors such as {some}, which are none of {known}")
