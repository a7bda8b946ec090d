"""Every network by name, and what can be configured of each family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flax import nnx

from shufflenet_jax.models.alexnet import alexnet, alexnet_one_tower
from shufflenet_jax.models.googlenet import googlenet
from shufflenet_jax.models.lenet import lenet5
from shufflenet_jax.models.mobilenet import mobilenet_v1, mobilenet_v2
from shufflenet_jax.models.resnet import resnet50, resnext50_32x4d
from shufflenet_jax.models.shufflenet import (
    STAGE2_CHANNELS,
    shufflenet,
    shufflenet_se,
    shufflenet_shallow,
)
from shufflenet_jax.models.skeleton import IMAGENET_STEM, REPEATS
from shufflenet_jax.models.squeezenet import squeezenet
from shufflenet_jax.models.structures import CONV1_CHANNELS, STRUCTURES, structure
from shufflenet_jax.models.vgg import vgg16


@dataclass(frozen=True)
class Family:
    """A constructor, and which of its arguments a configuration can set.

    Attributes:
      constructor: Takes the arguments, num_classes and rngs.
      arguments: The default of each: a number, a truth value, a text, a tuple or a `Stem`. A family
        that has no argument ``stem`` needs images of the size it was made for.
    """

    constructor: Callable[..., nnx.Module]
    arguments: Mapping[str, Any] = field(default_factory=dict)


_STEM = {"stem": IMAGENET_STEM}
_SHUFFLENET = {
    "groups": 3,
    "width": 1.0,
    "shuffle": True,
    "rounding": "stage",
    "repeats": REPEATS,
    **_STEM,
}
_STRUCTURE = {"mflops": 140, "repeats": REPEATS, **_STEM}
_UPSCALE = {"upscale_to": 0}

FAMILIES: dict[str, Family] = {
    "shufflenet": Family(shufflenet, _SHUFFLENET),
    "shufflenet_se": Family(shufflenet_se, _SHUFFLENET),
    "shufflenet_shallow": Family(shufflenet_shallow, _STEM),
    **{name: Family(partial(structure, name), _STRUCTURE) for name in STRUCTURES},
    "mobilenet_v1": Family(mobilenet_v1, {"width": 1.0, **_STEM}),
    "mobilenet_v2": Family(mobilenet_v2, _STEM),
    "resnet50": Family(resnet50, _STEM),
    "resnext50_32x4d": Family(resnext50_32x4d, _STEM),
    "vgg16": Family(vgg16),
    "googlenet": Family(googlenet, {"auxiliary": True, "large_kernel": 3}),
    "alexnet": Family(alexnet, _UPSCALE),
    "alexnet_one_tower": Family(alexnet_one_tower, _UPSCALE),
    "squeezenet": Family(squeezenet, _UPSCALE),
    "lenet5": Family(lenet5),
}
"""The families of networks, as ``--config.network.name`` knows them."""

_SINGLE = (
    "mobilenet_v2",
    "resnet50",
    "resnext50_32x4d",
    "vgg16",
    "googlenet",
    "alexnet",
    "alexnet_one_tower",
    "squeezenet",
    "lenet5",
)
"""Families of which each is one network."""

WIDTHS = (2.0, 1.5, 1.0, 0.5, 0.25)
"""The widths of the paper's networks."""

MOBILENET_WIDTHS = ("1.0", "0.75", "0.5", "0.25")
"""The widths of MobileNet in Table 5, as its names write them."""


def shufflenet_name(groups: int, width: float, shuffle: bool) -> str:
    """The name of a ShuffleNet: ``shufflenet_g8_0.25x_noshuffle``."""
    return f"shufflenet_g{groups}_{width:g}x{'' if shuffle else '_noshuffle'}"


NETWORKS: dict[str, Callable[..., nnx.Module]] = {
    **{
        shufflenet_name(groups, width, shuffle): partial(
            shufflenet, groups=groups, width=width, shuffle=shuffle
        )
        for width in WIDTHS
        for groups in STAGE2_CHANNELS
        for shuffle in (True, False)
        if shuffle or groups > 1
    },
    "shufflenet_g3_2x_se": partial(shufflenet_se, groups=3, width=2.0),
    "shufflenet_g3_0.5x_shallow": shufflenet_shallow,
    **{
        f"{name}_{mflops}m": partial(structure, name, mflops=mflops)
        for mflops in CONV1_CHANNELS
        for name in STRUCTURES
    },
    **{
        f"mobilenet_v1_{width}": partial(mobilenet_v1, width=float(width))
        for width in MOBILENET_WIDTHS
    },
    **{name: FAMILIES[name].constructor for name in _SINGLE},
}
"""Every single network: constructors that need only ``rngs``."""
