"""Finds the channels with which a network of some unit costs a given number of multiply-adds."""

from bisect import bisect_left
from functools import cache, partial

from shufflenet_jax.cost import abstract, complexity
from shufflenet_jax.errors import InputError
from shufflenet_jax.layers import check_positive
from shufflenet_jax.models.skeleton import REPEATS, Network
from shufflenet_jax.units import UnitConstructor

_INPUT_SHAPE = (224, 224, 3)
_SIZES = (28, 14, 7)
"""Height and width of the output of stages 2 to 4."""

_MOST_STEPS = 2**14
"""Of the width of stage 2, in multiples of the ratio; no network is so wide."""


def solve(
    unit: UnitConstructor, macs: int, *, conv1_channels: int, ratio: int = 1
) -> tuple[int, int, int]:
    """Finds the channels of stages 2 to 4 for which Table 1's skeleton costs nearest to ``macs``.

    Stage 4 has twice the channels of stage 3, and that twice those of stage 2, which are rounded
    down where that is no multiple of the ratio.

    >>> from shufflenet_jax import BottleneckUnit
    >>> solve(BottleneckUnit, 13_000_000, conv1_channels=12, ratio=4)
    (36, 72, 144)

    Args:
      unit: Constructor of the units; see `UnitConstructor`.
      macs: Multiply-adds at 224x224 without the classifier, as in Table 1.
      conv1_channels: Output channels of conv1.
      ratio: Divides the channels of every stage: 4 for a unit with a 1:4 bottleneck.

    Raises:
      InputError: The narrowest network takes more, or the widest less; there is none of the unit;
        a number is not at least 1.
    """
    check_positive(macs=macs, conv1_channels=conv1_channels, ratio=ratio)

    def channels(step: int) -> tuple[int, int, int]:
        stage4 = 2 * ratio * step
        return stage4 // 4 // ratio * ratio, stage4 // 2, stage4

    @cache
    def cost(step: int) -> int:
        """Multiply-adds, or 0 if there is no such network."""
        if not channels(step)[0]:
            return 0
        try:
            return _cost(unit, channels(step), conv1_channels)
        except InputError:  # narrower than conv1, which not every unit can follow
            return 0

    narrow, wide = 1, 16
    while cost(wide) < macs:
        narrow, wide = wide, 2 * wide
        if wide > _MOST_STEPS:
            raise InputError(f"no network of the unit takes {macs:,} multiply-adds")
    above = bisect_left(range(wide), macs, lo=narrow, key=cost)
    if cost(above) > macs and not cost(above - 1):
        raise InputError(f"{macs:,} multiply-adds are too few: the narrowest takes {cost(above):,}")
    return channels(min(above - 1, above, key=lambda step: abs(cost(step) - macs)))


def _cost(unit: UnitConstructor, channels: tuple[int, int, int], conv1_channels: int) -> int:
    """Multiply-adds without the classifier; all units of a stage but its first cost the same."""
    shortest = abstract(
        Network, unit=unit, channels=channels, repeats=(1, 1, 1), conv1_channels=conv1_channels
    )
    total = complexity(shortest, _INPUT_SHAPE).macs_without_head
    for width, size, repeats in zip(channels, _SIZES, REPEATS, strict=True):
        another = abstract(partial(unit, width, width, 1))
        total += (repeats - 1) * complexity(another, (size, size, width)).macs
    return total
