"""The networks that this library shares with torchvision."""

from collections.abc import Iterator
from typing import Any

from flax import nnx

from shufflenet_jax.errors import InputError
from shufflenet_jax.models.alexnet import AlexNet
from shufflenet_jax.models.googlenet import GoogLeNet
from shufflenet_jax.models.mobilenet import InvertedUnit
from shufflenet_jax.models.skeleton import Network
from shufflenet_jax.models.squeezenet import SqueezeNet
from shufflenet_jax.models.vgg import VGG16
from shufflenet_jax.porting.layout import Architecture, Layout, Shapes
from shufflenet_jax.porting.slots import Slot, box
from shufflenet_jax.units import ResidualUnit

# Of each network, a tensor by whose shape it is known, and the classifier's.
_MARKS = {
    "vgg16": ("features.28.weight", (512, 512, 3, 3), "classifier.6.weight"),
    "alexnet_one_tower": ("features.0.weight", (64, 3, 11, 11), "classifier.6.weight"),
    "googlenet": ("inception3a.branch3.1.conv.weight", (32, 16, 3, 3), "fc.weight"),
    "squeezenet": ("features.0.weight", (96, 3, 7, 7), "classifier.1.weight"),
    "mobilenet_v2": ("features.0.0.weight", (32, 3, 3, 3), "classifier.1.weight"),
    "resnet50": ("layer1.0.conv2.weight", (64, 64, 3, 3), "fc.weight"),
    "resnext50_32x4d": ("layer1.0.conv2.weight", (128, 4, 3, 3), "fc.weight"),
}


def _recognise(shapes: Shapes) -> Architecture | None:
    for family, (mark, shape, classifier) in _MARKS.items():
        if shapes.get(mark) == shape and classifier in shapes:
            arguments: dict[str, Any] = {}
            if family == "googlenet":
                arguments["auxiliary"] = "aux1.fc1.weight" in shapes
            return Architecture(family, arguments, shapes[classifier][0])
    return None


def _slots(family: str, network: nnx.Module) -> Iterator[Slot]:
    match network:
        case VGG16():
            yield from _vgg16(network)
        case AlexNet() if family == "alexnet_one_tower":
            yield from _alexnet(network)
        case GoogLeNet():
            yield from _googlenet(network)
        case SqueezeNet():
            yield from _squeezenet(network)
        case Network() if family == "mobilenet_v2":
            yield from _mobilenet_v2(network)
        case Network() if family in ("resnet50", "resnext50_32x4d"):
            yield from _resnet(network)
        case _:
            raise InputError(f"this code has no {family}")


def _vgg16(network: VGG16) -> Iterator[Slot]:
    place = 0
    for block in network.blocks:
        for conv in block:
            yield Slot(f"features.{place}", conv)
            place += 2  # with the ReLU
        place += 1  # the pool
    yield from _large_head(network.head, places=(0, 3, 6))


def _alexnet(network: AlexNet) -> Iterator[Slot]:
    convs = (network.conv1, network.conv2, network.conv3, network.conv4, network.conv5)
    for place, conv in zip((0, 3, 6, 8, 10), convs, strict=True):
        yield Slot(f"features.{place}", conv)
    yield from _large_head(network.head, places=(1, 4, 6))


def _large_head(head: Any, places: tuple[int, int, int]) -> Iterator[Slot]:
    for place, layer in zip(places, (head.first, head.second, head.classifier), strict=True):
        yield Slot(f"classifier.{place}", layer)


def _googlenet(network: GoogLeNet) -> Iterator[Slot]:
    for name in ("conv1", "conv2", "conv3"):
        yield from _named_box(name, getattr(network, name))
    for number, stage in enumerate(network.stages, 3):
        for letter, unit in zip("abcde", stage, strict=False):
            name = f"inception{number}{letter}"
            yield from _named_box(f"{name}.branch1", unit.one)
            yield from _named_box(f"{name}.branch2.0", unit.to_three)
            yield from _named_box(f"{name}.branch2.1", unit.three)
            yield from _named_box(f"{name}.branch3.0", unit.to_large)
            yield from _named_box(f"{name}.branch3.1", unit.large)
            yield from _named_box(f"{name}.branch4.1", unit.pooled)
    for number, head in enumerate(network.auxiliary, 1):
        yield from _named_box(f"aux{number}.conv", head.reduce)
        yield Slot(f"aux{number}.fc1", head.hidden)
        yield Slot(f"aux{number}.fc2", head.classifier)
    yield Slot("fc", network.classifier)


def _named_box(name: str, layer: Any) -> list[Slot]:
    return box(f"{name}.conv", f"{name}.bn", layer)


def _squeezenet(network: SqueezeNet) -> Iterator[Slot]:
    yield Slot("features.0", network.conv1)
    place = 3
    for stage in network.stages:
        for unit in stage:
            yield Slot(f"features.{place}.squeeze", unit.squeeze)
            yield Slot(f"features.{place}.expand1x1", unit.pointwise)
            yield Slot(f"features.{place}.expand3x3", unit.spatial)
            place += 1
        place += 1  # the pool
    yield Slot("classifier.1", network.classifier)


def _mobilenet_v2(network: Network) -> Iterator[Slot]:
    yield from box("features.0.0", "features.0.1", network.conv1)
    *units, last = (unit for stage in network.stages for unit in stage)
    for number, unit in enumerate(units, 1):
        assert isinstance(unit, InvertedUnit)
        name, place = f"features.{number}.conv", 0
        if unit.expands:
            yield from box(f"{name}.0.0", f"{name}.0.1", unit.expand)
            place = 1
        yield from box(f"{name}.{place}.0", f"{name}.{place}.1", unit.depthwise)
        yield from box(f"{name}.{place + 1}", f"{name}.{place + 2}", unit.reduce)
    number = len(units) + 1
    yield from box(f"features.{number}.0", f"features.{number}.1", last.conv)
    yield Slot("classifier.1", network.classifier)


def _resnet(network: Network) -> Iterator[Slot]:
    yield from box("conv1", "bn1", network.conv1)
    for number, stage in enumerate(network.stages, 1):
        for index, unit in enumerate(stage):
            assert isinstance(unit, ResidualUnit)
            name = f"layer{number}.{index}"
            yield from box(f"{name}.conv1", f"{name}.bn1", unit.reduce)
            yield from box(f"{name}.conv2", f"{name}.bn2", unit.spatial)
            yield from box(f"{name}.conv3", f"{name}.bn3", unit.expand)
            if unit.projects:
                name += ".downsample"
                yield from box(f"{name}.0", f"{name}.1", unit.project)
    yield Slot("fc", network.classifier)


TORCHVISION = Layout("torchvision", _recognise, _slots)
"""The layout."""
