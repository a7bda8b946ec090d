"""ShuffleNet: the channels of Table 1, and what scaling makes of them."""

import math
from collections.abc import Callable, Sequence
from functools import partial

from flax import nnx

from shufflenet_jax.errors import InputError
from shufflenet_jax.layers import check_positive
from shufflenet_jax.models.skeleton import IMAGENET_STEM, REPEATS, Network, Stem
from shufflenet_jax.ops import channel_shuffle, no_shuffle
from shufflenet_jax.units import ShuffleUnit, SqueezeExcitation, Unit

STAGE2_CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
"""Output channels of stage 2 by groups, at 1x; each later stage doubles them."""


def stem_channels(width: float, groups: int = 1) -> int:
    """Output channels of conv1, for the paper's MFLOPs: 12, 12, 24, 24, 48 at 0.25x to 2x.

    24, doubled or halved with every whole power of two of the width, and never below 12; raised to
    a multiple of the groups. Below 0.5x it is 8 where the groups are even: what those add to the
    stages, which they have to divide, is taken from conv1. So at 0.25x the networks of all groups
    cost within 5% of 13 million multiply-adds, where with 12 that of g=8 would cost 15.7.

    Raises:
      InputError: The width is not positive and finite.
    """
    _check_width(width)
    if width < 0.5 and groups % 2 == 0:
        channels = 8
    else:
        channels = max(12, int(24 * 2.0 ** math.floor(math.log2(width))))
    return groups * math.ceil(channels / groups)


def stage_channels(groups: int, width: float, rounding: str = "stage") -> tuple[int, ...]:
    """Output channels of stages 2, 3 and 4 at a width, made valid for the groups.

    Scaling Table 1 does not always give channels that the groups and the 1:4 bottleneck divide
    (0.5x g=4 has a bottleneck of 34), and the paper does not say what it did. The rules:

    * ``stage``: every stage up to a multiple of 4 groups. 0.5x g=4 is 144/272/544, 37.9M. The
      default: over the paper's networks its multiply-adds agree best with 140, 38 and 13 million.
    * ``double``: stage 2 up to a multiple of 4 groups, then doubled. 0.5x g=4 is 144/288/576,
      40.7M; the only simple rule that gives the 576 channels of the paper's text.
    * ``exact``: no rounding; networks that are not valid are refused when they are built.

    Raises:
      InputError: Table 1 has no such groups, there is no such rounding, or the width is not
        positive and finite.
    """
    if groups not in STAGE2_CHANNELS:
        known = ", ".join(map(str, STAGE2_CHANNELS))
        nearest = STAGE2_CHANNELS[max((g for g in STAGE2_CHANNELS if g < groups), default=1)]
        raise InputError(
            f"{nearest} channels do not divide into {groups} groups: Table 1 has widths for "
            f"{known} groups; for others give the channels of each stage"
        )
    _check_width(width)
    scaled = [round(STAGE2_CHANNELS[groups] * width) * factor for factor in (1, 2, 4)]
    multiple = 4 * groups
    match rounding:
        case "exact":
            return tuple(scaled)
        case "stage":
            exact = [STAGE2_CHANNELS[groups] * width * factor for factor in (1, 2, 4)]
            return tuple(multiple * math.ceil(c / multiple) for c in exact)
        case "double":
            stage2 = multiple * math.ceil(STAGE2_CHANNELS[groups] * width / multiple)
            return (stage2, 2 * stage2, 4 * stage2)
    raise InputError(f"unknown rounding {rounding!r}: choose 'stage', 'double' or 'exact'")


def _check_width(width: float) -> None:
    """Raises InputError unless the width is positive and finite."""
    if not 0 < width < math.inf:
        raise InputError(f"width must be positive and finite, not {width}")


def shufflenet(
    *,
    groups: int = 3,
    width: float = 1.0,
    num_classes: int = 1000,
    shuffle: bool = True,
    rounding: str = "stage",
    channels: Sequence[int] | None = None,
    conv1_channels: int | None = None,
    repeats: Sequence[int] = REPEATS,
    stem: Stem = IMAGENET_STEM,
    unit: Callable[..., Unit] = ShuffleUnit,
    rngs: nnx.Rngs,
) -> Network:
    """ShuffleNet width-x with a number of groups (Table 1).

    Args:
      groups: Groups of the 1x1 convolutions: 1, 2, 3, 4 or 8, or any with channels.
      width: Scales the channels of every stage; 0.25 to 2 in the paper.
      num_classes: Outputs of the classifier.
      shuffle: Whether channels are shuffled between the 1x1 convolutions (Table 3).
      rounding: How scaled channels are made valid; see `stage_channels`.
      channels: Output channels of stages 2 to 4, in place of those of Table 1.
      conv1_channels: Output channels of conv1, in place of `stem_channels(width, groups)`, or of
        `stem_channels(width)` where rounding is exact.
      repeats: Units in stages 2 to 4.
      stem: What stands before stage 2.
      unit: Takes groups, first_groups and mix beside a unit's own arguments.
      rngs: Source of the initial weights.

    Raises:
      InputError: Channels that do not divide into the groups, or numbers that no network has.
    """
    check_positive(groups=groups)
    channels = channels or stage_channels(groups, width, rounding)
    if conv1_channels is None:
        conv1_channels = stem_channels(width, 1 if rounding == "exact" else groups)
    bound = partial(unit, groups=groups, mix=channel_shuffle if shuffle else no_shuffle)
    return Network(
        bound,
        first_unit=partial(bound, first_groups=1),
        channels=channels,
        repeats=repeats,
        conv1_channels=conv1_channels,
        stem=stem,
        num_classes=num_classes,
        rngs=rngs,
    )


shufflenet_se = partial(shufflenet, unit=partial(SqueezeExcitation, unit=ShuffleUnit))
"""ShuffleNet with squeeze-and-excitation: takes what `shufflenet` takes, but for the unit."""

shufflenet_shallow = partial(
    shufflenet, groups=3, channels=(168, 336, 672), conv1_channels=18, repeats=(2, 4, 2)
)
"""Table 5's "0.5x (shallow, g=3)": half the units, made wider.

The paper gives neither channels nor how they were found. With those of 0.5x, half the units cost 22
million multiply-adds, not 40. These are 0.7 times those of 1x, which cost 39.8.
"""
