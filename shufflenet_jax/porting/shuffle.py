"""What the tensors of a ShuffleNet say of it, and the permutations between orders of shuffles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int64

from shufflenet_jax.errors import InputError
from shufflenet_jax.layers import Conv
from shufflenet_jax.models.ported import PortedUnit
from shufflenet_jax.models.shufflenet import STAGE2_CHANNELS, stage_channels, stem_channels
from shufflenet_jax.porting.layout import Shapes
from shufflenet_jax.units import ShuffleUnit
from shufflenet_jax.zoo import WIDTHS

Order = Int64[np.ndarray, " m"]
"""Position k after a shuffle holds the channel ``order[k]`` before it."""


@dataclass(frozen=True)
class Unit:
    """The names of a unit's two 1x1 convolutions in a state dict, and where it stands.

    Attributes:
      reduce, expand: The names of the weights.
      stage: Its number, from 0; None where the names do not tell.
    """

    reduce: str
    expand: str
    stage: int | None = None


@dataclass(frozen=True)
class Sizes:
    """What a ShuffleNet is built with."""

    groups: int
    conv1_channels: int
    channels: tuple[int, ...]
    repeats: tuple[int, ...]
    strides: tuple[int, ...]


def sizes(shapes: Shapes, conv1: str, units: Sequence[Unit]) -> Sizes:
    """Reads the sizes off the shapes of tensors.

    A unit has stride 2 where its branch has fewer channels than it returns, which is four times the
    bottleneck: the others are the shortcut's.

    Args:
      shapes: Of all tensors.
      conv1: Name of the first convolution.
      units: In the order of the network.

    Raises:
      InputError: They are of no ShuffleNet unit; a tensor is named.
    """
    channels = conv1_channels = shapes[conv1][0]
    if shapes[conv1][1:] != (3, 3, 3):
        raise InputError(f"{conv1} is of shape {list(shapes[conv1])}: conv1 is 3x3 on 3 channels")
    stages: list[list[int]] = []  # out_channels, units, stride
    groups: set[int] = set()
    last_stage: int | None = None
    for number, unit in enumerate(units):
        bottleneck, seen, *_ = shapes[unit.reduce]
        branch, seen_by_expand, *_ = shapes[unit.expand]
        out_channels = 4 * bottleneck
        first_groups, rest = divmod(channels, seen)
        groups.add(bottleneck // seen_by_expand)
        if rest or (number == 0 and first_groups != 1):
            raise InputError(
                f"{unit.reduce} is of shape {list(shapes[unit.reduce])}, on maps of {channels} "
                "channels: the first 1x1 convolution has one group in a ShuffleNet"
            )
        if number and first_groups not in groups:
            raise InputError(f"{unit.reduce} has {first_groups} groups, and others have {groups}")
        if branch == out_channels == channels:
            stride = 1
        elif branch == out_channels - channels:
            stride = 2
        else:
            raise InputError(
                f"{unit.expand} has {branch} outputs: with a bottleneck of {bottleneck} and maps "
                f"of {channels} channels they are {out_channels} or {out_channels - channels}"
            )
        if not stages or stride == 2 or unit.stage != last_stage:
            stages.append([out_channels, 0, stride])
        stages[-1][1] += 1
        last_stage, channels = unit.stage, out_channels
    if len(groups) != 1:
        raise InputError(f"{units[0].expand} and others have different groups: {sorted(groups)}")
    found = [tuple(each) for each in zip(*stages, strict=True)]
    return Sizes(groups.pop(), conv1_channels, *found)


def as_in_table_1(sizes: Sizes) -> dict[str, Any] | None:
    """The arguments of `shufflenet` for these sizes; None where it cannot have them."""
    if sizes.groups not in STAGE2_CHANNELS or set(sizes.strides) != {2}:
        return None
    for width in WIDTHS:
        for rounding in ("stage", "double", "exact"):
            conv1 = stem_channels(width, 1 if rounding == "exact" else sizes.groups)
            channels = stage_channels(sizes.groups, width, rounding)
            if (channels, conv1) == (sizes.channels, sizes.conv1_channels):
                return {
                    "groups": sizes.groups,
                    "width": width,
                    "rounding": rounding,
                    "repeats": list(sizes.repeats),
                }
    return None


def as_ported(sizes: Sizes, **orders: bool) -> dict[str, Any]:
    """The arguments of `shufflenet_ported`."""
    return {
        "groups": sizes.groups,
        "channels": list(sizes.channels),
        "conv1_channels": sizes.conv1_channels,
        "repeats": list(sizes.repeats),
        "strides": list(sizes.strides),
        **orders,
    }


def shuffled(channels: int, groups: int) -> Order:
    """That of (g, n) transposed to (n, g), as in the paper."""
    return np.arange(channels).reshape(groups, -1).T.ravel()


def unshuffled(channels: int, groups: int) -> Order:
    """That of (n, g) transposed to (g, n)."""
    return np.arange(channels).reshape(-1, groups).T.ravel()


@dataclass(frozen=True)
class Orders:
    """Permutations that make one unit compute what another does, which shuffles in another order.

    Attributes:
      reduce: Our output of the first 1x1 convolution is their ``reduce[o]``.
      depthwise: Our channel of the depthwise convolution is theirs of that number *before* their
        shuffle, where they have it behind the depthwise convolution.
      expand: By group, our input of the last 1x1 convolution is their ``expand[group, i]``.
    """

    reduce: Order
    depthwise: Order
    expand: Int64[np.ndarray, "g n"]


def orders(ours: Order, theirs: Order, groups: int) -> Orders | None:
    """Finds the permutations; None where there are none, as the groups mix otherwise.

    Within a group, the order of the outputs of the first convolution and of the inputs of the last
    one is free. So the k-th channel that we lead from one group to another can be the k-th that
    they do, if there are as many.

    >>> orders(shuffled(96, 8), unshuffled(96, 8), groups=8) is None
    True
    >>> orders(shuffled(6, 3), unshuffled(6, 3), groups=3).expand.tolist()
    [[0, 1], [1, 0], [0, 1]]

    Args:
      ours, theirs: The shuffles.
      groups: Of both 1x1 convolutions.
    """
    size = len(ours) // groups
    reduce = np.zeros_like(ours)
    to = [np.argsort(each) for each in (ours, theirs)]  # where each channel goes
    for source in range(groups):
        block = np.arange(source * size, (source + 1) * size)
        for target in range(groups):
            mine, other = (block[where[block] // size == target] for where in to)
            if len(mine) != len(other):
                return None
            reduce[mine] = other
    depthwise = reduce[ours]
    expand = to[1][depthwise].reshape(groups, size) - size * np.arange(groups)[:, None]
    return Orders(reduce, depthwise, expand)


def order_of(unit: ShuffleUnit) -> Order:
    """The shuffle of a unit of ours."""
    assert isinstance(unit.depthwise.conv, Conv)
    channels = unit.depthwise.conv.groups
    return np.asarray(unit.mix(jnp.arange(channels), unit.groups, axis=0), np.int64)


def is_branch_first(unit: ShuffleUnit) -> bool:
    """Whether a unit of ours puts the branch in front of the shortcut."""
    return isinstance(unit, PortedUnit) and unit.branch_first


def same_routes(sizes: Sizes) -> bool:
    """Whether the paper's shuffle and its inverse lead as many channels from group to group."""
    return all(
        orders(shuffled(c // 4, sizes.groups), unshuffled(c // 4, sizes.groups), sizes.groups)
        for c in sizes.channels
    )
