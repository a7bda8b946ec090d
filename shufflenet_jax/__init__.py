"""ShuffleNet V1 (arXiv 1707.01083) and what it is compared with, in JAX and Flax NNX."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shufflenet_jax.cost import Complexity, abstract, complexity
    from shufflenet_jax.errors import InputError
    from shufflenet_jax.images import normalise
    from shufflenet_jax.inference import fold
    from shufflenet_jax.models.alexnet import alexnet, alexnet_one_tower
    from shufflenet_jax.models.googlenet import Inception, googlenet
    from shufflenet_jax.models.lenet import SparseConv, lenet5
    from shufflenet_jax.models.mobilenet import (
        InvertedUnit,
        SeparableUnit,
        mobilenet_v1,
        mobilenet_v2,
    )
    from shufflenet_jax.models.resnet import resnet50, resnext50_32x4d
    from shufflenet_jax.models.shufflenet import (
        shufflenet,
        shufflenet_se,
        shufflenet_shallow,
        stage_channels,
        stem_channels,
    )
    from shufflenet_jax.models.skeleton import IMAGENET_STEM, SMALL_STEM, Network, Stem
    from shufflenet_jax.models.squeezenet import Fire, squeezenet
    from shufflenet_jax.models.structures import structure
    from shufflenet_jax.models.vgg import vgg16
    from shufflenet_jax.ops import channel_shuffle, depthwise, grouped_pointwise, no_shuffle
    from shufflenet_jax.trained import Trained, load_trained
    from shufflenet_jax.units import (
        BottleneckUnit,
        PlainUnit,
        ResidualUnit,
        ShuffleUnit,
        SqueezeExcitation,
        Unit,
    )

__all__ = [
    "IMAGENET_STEM",
    "SMALL_STEM",
    "BottleneckUnit",
    "Complexity",
    "Fire",
    "Inception",
    "InputError",
    "InvertedUnit",
    "Network",
    "PlainUnit",
    "ResidualUnit",
    "SeparableUnit",
    "ShuffleUnit",
    "SparseConv",
    "SqueezeExcitation",
    "Stem",
    "Trained",
    "Unit",
    "abstract",
    "alexnet",
    "alexnet_one_tower",
    "channel_shuffle",
    "complexity",
    "depthwise",
    "fold",
    "googlenet",
    "grouped_pointwise",
    "lenet5",
    "load_trained",
    "mobilenet_v1",
    "mobilenet_v2",
    "no_shuffle",
    "normalise",
    "resnet50",
    "resnext50_32x4d",
    "shufflenet",
    "shufflenet_se",
    "shufflenet_shallow",
    "squeezenet",
    "stage_channels",
    "stem_channels",
    "structure",
    "vgg16",
]

# Each is imported when it is first asked for: JAX and Flax take most of a second, and what only
# looks at files, as most commands of `experiments` do, needs neither. The imports above are for
# type checkers. No module of this package may have the name of something in this list.
_HOMES = {
    name: f"shufflenet_jax.{module}"
    for module, names in {
        "cost": "Complexity abstract complexity",
        "errors": "InputError",
        "images": "normalise",
        "inference": "fold",
        "models.alexnet": "alexnet alexnet_one_tower",
        "models.googlenet": "Inception googlenet",
        "models.lenet": "SparseConv lenet5",
        "models.mobilenet": "InvertedUnit SeparableUnit mobilenet_v1 mobilenet_v2",
        "models.resnet": "resnet50 resnext50_32x4d",
        "models.shufflenet": "shufflenet shufflenet_se shufflenet_shallow "
        "stage_channels stem_channels",
        "models.skeleton": "IMAGENET_STEM SMALL_STEM Network Stem",
        "models.squeezenet": "Fire squeezenet",
        "models.structures": "structure",
        "models.vgg": "vgg16",
        "ops": "channel_shuffle depthwise grouped_pointwise no_shuffle",
        "trained": "Trained load_trained",
        "units": "BottleneckUnit PlainUnit ResidualUnit ShuffleUnit SqueezeExcitation Unit",
    }.items()
    for name in names.split()
}


def _imported(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


if not TYPE_CHECKING:  # to which any name would be one of this package
    __getattr__ = _imported


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
