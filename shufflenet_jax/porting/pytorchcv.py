"""Networks of pytorchcv: ShuffleNet V1, MobileNet V1 and V2, and classic ones.

Its ShuffleNet puts the branch in front of the pooled shortcut, so that groups see other channels
together, and has channels of its own at some widths: it becomes a `shufflenet_ported`. The
classifier of its MobileNet V2 is a 1x1 convolution without bias: ours is zero.

Its ``resnet50`` has the stride in the first 1x1 convolution of a unit, as the article, and its
``resnet50b`` in the 3x3, as ours. Tensors do not tell which they are of. So it takes a layout of
its own, `PYTORCHCV_B`, to say that they are of the second.
"""

import itertools
from collections.abc import Iterator
from typing import Any

from flax import nnx

from shufflenet_jax.errors import InputError
from shufflenet_jax.layers import Classifier, Conv
from shufflenet_jax.models.alexnet import AlexNet
from shufflenet_jax.models.classic import LargeHead
from shufflenet_jax.models.mobilenet import InvertedUnit, SeparableUnit
from shufflenet_jax.models.skeleton import Network
from shufflenet_jax.models.squeezenet import Fire, SqueezeNet
from shufflenet_jax.models.vgg import VGG16
from shufflenet_jax.porting.layout import Architecture, Layout, Shapes
from shufflenet_jax.porting.shuffle import (
    Unit,
    as_ported,
    is_branch_first,
    order_of,
    shuffled,
    sizes,
)
from shufflenet_jax.porting.slots import Slot, box
from shufflenet_jax.units import ResidualUnit, ShuffleUnit

_FIRST = "features.stage1.unit1"

# A tensor of the first unit, by which the units of each kind are known.
_MARKS = {
    f"{_FIRST}.compress_conv1.weight": "shufflenet",
    f"{_FIRST}.dw_conv.conv.weight": "mobilenet_v1",
    f"{_FIRST}.conv3.conv.weight": "mobilenet_v2",
    f"{_FIRST}.body.conv3.conv.weight": "resnet",
    f"{_FIRST}.squeeze.conv.weight": "squeezenet",
    f"{_FIRST}.conv.weight": "plain",
}


def _recognise(shapes: Shapes) -> Architecture | None:
    kind = next((kind for mark, kind in _MARKS.items() if mark in shapes), None)
    if kind is None:
        return None
    ends = ("", ".fc3", ".final_conv")
    classifier = next((name for end in ends if (name := f"output{end}.weight") in shapes), None)
    if classifier is None:
        raise InputError("output.weight is missing")
    family, arguments = _ARCHITECTURES[kind](shapes)
    return Architecture(family, arguments, shapes[classifier][0])


def _shufflenet(shapes: Shapes) -> tuple[str, dict[str, Any]]:
    units = []
    for stage, number in _numbered(shapes, "compress_conv1.weight"):
        name = f"features.stage{stage}.unit{number}"
        unit = Unit(f"{name}.compress_conv1.weight", f"{name}.expand_conv3.weight", stage)
        if unit.expand not in shapes:
            raise InputError(f"{unit.expand} is missing")
        units.append(unit)
    found = sizes(shapes, _known("features.init_block.conv.weight", shapes), units)
    return "shufflenet_ported", as_ported(found, branch_first=True)


def _mobilenet_v1(shapes: Shapes) -> tuple[str, dict[str, Any]]:
    return "mobilenet_v1", {"width": _width(shapes)}


def _mobilenet_v2(shapes: Shapes) -> tuple[str, dict[str, Any]]:
    expands = f"{_FIRST}.conv1.conv.weight" in shapes
    return "mobilenet_v2", {"width": _width(shapes), "always_expands": expands}


def _resnet(shapes: Shapes, stride_in_3x3: bool = False) -> tuple[str, dict[str, Any]]:
    name = f"{_FIRST}.body.conv2.conv.weight"
    outputs, seen, *_ = shapes[_known(name, shapes)]
    families = {1: "resnet50", 32: "resnext50_32x4d"}
    if outputs // seen == 1 and not stride_in_3x3:
        raise InputError(_AMBIGUOUS)
    if outputs // seen not in families:
        raise InputError(f"{name} has {outputs // seen} groups, and the networks here have 1 or 32")
    return families[outputs // seen], {}


def _plain(shapes: Shapes) -> tuple[str, dict[str, Any]]:
    name = f"{_FIRST}.conv.weight"
    match shapes[name]:
        case (64, 3, 3, 3):
            return "vgg16", {}
        case (64, 3, 11, 11):
            return "alexnet_one_tower", {}
        case (96, 3, 11, 11):
            name = "features.stage2.unit1.conv.weight"
            raise InputError(
                f"{name} has one group: the AlexNet of 2012 has two, and that of one tower other "
                "channels"
            )
    raise InputError(f"{name} is of shape {list(shapes[name])}: of no network that is known here")


_AMBIGUOUS = (
    "features.stage2.unit1.body.conv1.conv.weight has the stride in resnet50, which is no network "
    "of this library, and has none in resnet50b, which is: for that one say layout pytorchcv_b"
)

_ARCHITECTURES = {
    "shufflenet": _shufflenet,
    "mobilenet_v1": _mobilenet_v1,
    "mobilenet_v2": _mobilenet_v2,
    "resnet": _resnet,
    "squeezenet": lambda shapes: ("squeezenet", {}),
    "plain": _plain,
}


def _width(shapes: Shapes) -> float:
    """That of a MobileNet, whose first convolution has 32 channels at width 1."""
    return shapes[_known("features.init_block.conv.weight", shapes)][0] / 32


def _known(name: str, shapes: Shapes) -> str:
    if name not in shapes:
        raise InputError(f"{name} is missing")
    return name


def _numbered(shapes: Shapes, end: str) -> Iterator[tuple[int, int]]:
    """Stage and unit, from 1, of all tensors of some name."""
    for stage in itertools.count(1):
        if f"features.stage{stage}.unit1.{end}" not in shapes:
            return
        for unit in itertools.count(1):
            if f"features.stage{stage}.unit{unit}.{end}" not in shapes:
                break
            yield stage, unit


def _recognise_b(shapes: Shapes) -> Architecture | None:
    if f"{_FIRST}.body.conv3.conv.weight" not in shapes or "output.weight" not in shapes:
        return None
    return Architecture(*_resnet(shapes, stride_in_3x3=True), shapes["output.weight"][0])


def _slots(family: str, network: nnx.Module) -> Iterator[Slot]:
    if family == "resnet50":
        raise InputError(_AMBIGUOUS)
    yield from _all_slots(family, network)


def _all_slots(family: str, network: nnx.Module) -> Iterator[Slot]:
    match network:
        case Network():
            yield from _skeleton(family, network)
        case SqueezeNet():
            yield from _squeezenet(network)
        case VGG16() | AlexNet() if family != "alexnet":
            yield from _plain_slots(network)
        case _:
            raise InputError(f"this code has no {family}")


def _skeleton(family: str, network: Network) -> Iterator[Slot]:
    stages = [list(stage) for stage in network.stages]
    first = stages[0][0]
    init = "features.init_block"
    if isinstance(first, ResidualUnit):
        init += ".conv"
    yield from _box(init, network.conv1)
    if isinstance(first, SeparableUnit):
        pass
    elif isinstance(first, InvertedUnit):
        # Stages begin at strides of 2 there, and the last convolution is of none.
        final = stages.pop()[0]
        merged: list[list[Any]] = []
        for own in stages:
            if len(merged) > 1 and own[0].depthwise.conv.stride == 1:
                merged[-1] += own
            else:
                merged.append(own)
        stages = merged
    for stage, units in enumerate(stages, 1):
        for number, unit in enumerate(units, 1):
            yield from _unit(family, f"features.stage{stage}.unit{number}", unit)
    assert isinstance(network.classifier, Classifier)
    if isinstance(first, InvertedUnit):
        yield from _box("features.final_block", final.conv)
        yield Slot("output", network.classifier, has_bias=False, is_conv=True)
    else:
        yield Slot("output", network.classifier)


def _unit(family: str, name: str, unit: nnx.Module) -> Iterator[Slot]:
    match unit:
        case ShuffleUnit():
            yield from _shuffle_unit(name, unit)
        case SeparableUnit():
            yield from _box(f"{name}.dw_conv", unit.depthwise)
            yield from _box(f"{name}.pw_conv", unit.pointwise)
        case InvertedUnit():
            if unit.expands:
                yield from _box(f"{name}.conv1", unit.expand)
            yield from _box(f"{name}.conv2", unit.depthwise)
            yield from _box(f"{name}.conv3", unit.reduce)
        case ResidualUnit() if not unit.concatenates:
            yield from _box(f"{name}.body.conv1", unit.reduce)
            yield from _box(f"{name}.body.conv2", unit.spatial)
            yield from _box(f"{name}.body.conv3", unit.expand)
            if unit.projects:
                yield from _box(f"{name}.identity_conv", unit.project)
        case _:
            raise InputError(f"this code has no {family}")


def _shuffle_unit(name: str, unit: ShuffleUnit) -> Iterator[Slot]:
    order = order_of(unit)
    if (order != shuffled(len(order), unit.groups)).any():
        raise InputError(f"{name}.dw_conv2.weight: this code shuffles otherwise than the network")
    if unit.stride == 2 and not is_branch_first(unit):
        raise InputError(
            f"{name}.expand_conv3.weight: this code puts the branch first, and the network does "
            "not; a shufflenet_ported with branch_first would"
        )
    yield from box(f"{name}.compress_conv1", f"{name}.compress_bn1", unit.reduce)
    yield from box(f"{name}.dw_conv2", f"{name}.dw_bn2", unit.depthwise)
    yield from box(f"{name}.expand_conv3", f"{name}.expand_bn3", unit.expand)


def _box(name: str, layer: Any) -> list[Slot]:
    return box(f"{name}.conv", f"{name}.bn", layer)


def _squeezenet(network: SqueezeNet) -> Iterator[Slot]:
    yield Slot("features.init_block.conv", network.conv1)
    for stage, units in enumerate(network.stages, 1):
        for number, unit in enumerate(units, 1):
            assert isinstance(unit, Fire)
            name = f"features.stage{stage}.unit{number}"
            yield Slot(f"{name}.squeeze.conv", unit.squeeze)
            yield Slot(f"{name}.expand1x1.conv", unit.pointwise)
            yield Slot(f"{name}.expand3x3.conv", unit.spatial)
    yield Slot("output.final_conv", network.classifier)


def _plain_slots(network: VGG16 | AlexNet) -> Iterator[Slot]:
    blocks: Any = network.blocks if isinstance(network, VGG16) else _blocks(network)
    for stage, convs in enumerate(blocks, 1):
        for number, conv in enumerate(convs, 1):
            yield Slot(f"features.stage{stage}.unit{number}.conv", conv)
    head = network.head
    assert isinstance(head, LargeHead)
    yield Slot("output.fc1.fc", head.first)
    yield Slot("output.fc2.fc", head.second)
    yield Slot("output.fc3", head.classifier)


def _blocks(network: AlexNet) -> list[list[Conv]]:
    """Its convolutions, by the pools behind them."""
    return [[network.conv1], [network.conv2], [network.conv3, network.conv4, network.conv5]]


PYTORCHCV = Layout("pytorchcv", _recognise, _slots)
"""The layout."""

PYTORCHCV_B = Layout("pytorchcv_b", _recognise_b, _all_slots)
"""That of ResNet-50 with the stride in the 3x3 convolutions."""
