"""Table 1: the network, as data and as a skeleton that takes any unit."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from shufflenet_jax import chwn
from shufflenet_jax.errors import InputError
from shufflenet_jax.ops import channel_shuffle, no_shuffle
from shufflenet_jax.units import BatchNorm, Conv, ShuffleUnit, Unit, UnitConstructor

STAGE2_CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
"""Output channels of stage 2 by groups, at 1x; each later stage doubles them."""

REPEATS = (4, 8, 4)
"""Units in stages 2, 3 and 4; the first of each has stride 2."""


@dataclass(frozen=True)
class Stem:
    """What stands before stage 2: a 3x3 convolution, BN, ReLU and, for large images, a max pool.

    Attributes:
      stride: Stride of the convolution.
      max_pool: Whether a 3x3 max pool of stride 2 follows.
    """

    stride: int = 2
    max_pool: bool = True

    def __post_init__(self) -> None:
        if self.stride not in (1, 2):
            raise InputError(f"a stem's stride is 1 or 2, not {self.stride}")


IMAGENET_STEM = Stem(stride=2, max_pool=True)
"""Table 1's: a 224x224 image enters stage 2 as 56x56."""

SMALL_STEM = Stem(stride=1, max_pool=False)
"""For images of about 32x32, which enter stage 2 whole; stride 2 where time is short."""


def stem_channels(width: float) -> int:
    """Output channels of conv1. Those of the paper's MFLOPs: 12, 12, 24, 24, 48 at 0.25x to 2x.

    24, doubled or halved with every whole power of two of the width, and never below 12.
    """
    return max(12, int(24 * 2.0 ** math.floor(math.log2(width))))


def stage_channels(groups: int, width: float, rounding: str = "stage") -> tuple[int, ...]:
    """Output channels of stages 2, 3 and 4 at a width, made valid for the groups.

    Scaling Table 1 does not always give channels that the groups and the 1:4 bottleneck divide
    (0.5x g=4 has a bottleneck of 34), and the paper does not say what it did. The rules:

    * ``stage``: every stage up to a multiple of 4 groups. 0.5x g=4 is 144/272/544, 37.9M. The
      default: over the paper's networks its multiply-adds agree best with 140, 38 and 13 million.
    * ``double``: stage 2 up to a multiple of 4 groups, then doubled. 0.5x g=4 is 144/288/576,
      40.7M; the only simple rule that gives the 576 channels of the paper's text.
    * ``exact``: no rounding; networks that are not valid are refused when they are built.
    """
    if groups not in STAGE2_CHANNELS:
        known = ", ".join(map(str, STAGE2_CHANNELS))
        nearest = STAGE2_CHANNELS[max((g for g in STAGE2_CHANNELS if g < groups), default=1)]
        raise InputError(
            f"{nearest} channels do not divide into {groups} groups: Table 1 has widths for "
            f"{known} groups; for others give the channels of each stage"
        )
    if not width > 0:
        raise InputError(f"width must be positive, not {width}")
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


class Network(nnx.Module):
    """Table 1's skeleton around any unit: stem, stages 2 to 4, global average pool, classifier.

    Args:
      unit: Constructor of the units; see `UnitConstructor`.
      first_unit: Constructor of the first unit of stage 2 where it differs.
      channels: Output channels of each stage.
      repeats: Units in each stage; the first has stride 2.
      conv1_channels: Output channels of the stem.
      stem: What stands before stage 2.
      num_classes: Outputs of the classifier.
      rngs: Source of the initial weights.

    Attributes:
      widths: Output channels of conv1 and of each stage, as built.
    """

    def __init__(
        self,
        unit: UnitConstructor,
        *,
        first_unit: UnitConstructor | None = None,
        channels: Sequence[int],
        repeats: Sequence[int] = REPEATS,
        conv1_channels: int,
        stem: Stem = IMAGENET_STEM,
        num_classes: int = 1000,
        rngs: nnx.Rngs,
    ):
        if len(channels) != len(repeats):
            raise InputError(f"{len(channels)} stages have channels, {len(repeats)} have repeats")
        self.stem = stem
        self.widths = (conv1_channels, *channels)
        self.conv1 = Conv(3, conv1_channels, 3, stride=stem.stride, rngs=rngs)
        self.conv1_norm = BatchNorm(conv1_channels, rngs=rngs)
        stages: list[nnx.List] = []
        in_channels, make = conv1_channels, first_unit or unit
        for out_channels, repeat in zip(channels, repeats, strict=True):
            units = []
            for index in range(repeat):
                units.append(make(in_channels, out_channels, 1 if index else 2, rngs=rngs))
                in_channels, make = out_channels, unit
            stages.append(nnx.List(units))
        self.stages = nnx.List(stages)
        self.classifier = nnx.Linear(in_channels, num_classes, rngs=rngs)

    def __call__(
        self, images: Float[Array, "b h w 3"], *, train: bool = False
    ) -> Float[Array, "b classes"]:
        """Returns logits; with train, batch statistics normalise and the running ones move."""
        *_, (_, x) = self._stage_outputs(images, train)
        with jax.named_scope("head"):
            return self.classifier(jnp.mean(x, axis=(1, 2)).T)

    def features(
        self, images: Float[Array, "b h w 3"], *, train: bool = False
    ) -> dict[str, Float[Array, "b _h _w _c"]]:
        """Returns the feature maps by name: stem, stage2, stage3, stage4."""
        return {name: chwn.to_nhwc(x) for name, x in self._stage_outputs(images, train)}

    def _stage_outputs(self, images: Array, train: bool):
        x = self.conv1(chwn.from_nhwc(images))
        x = jax.nn.relu(self.conv1_norm(x, use_running_average=not train))
        if self.stem.max_pool:
            x = chwn.max_pool(x)
        yield "stem", x
        for number, stage in enumerate(self.stages, start=2):
            for unit in stage:
                x = unit.forward(x, train=train)
            yield f"stage{number}", x


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
      conv1_channels: Output channels of conv1, in place of `stem_channels(width)`, raised to a
        multiple of the groups unless rounding is exact.
      repeats: Units in stages 2 to 4.
      stem: What stands before stage 2.
      unit: Takes groups, first_groups and mix beside a unit's own arguments.
      rngs: Source of the initial weights.

    Raises:
      InputError: Channels that do not divide into the groups.
    """
    channels = channels or stage_channels(groups, width, rounding)
    if conv1_channels is None:
        conv1_channels = stem_channels(width)
        if rounding != "exact":
            conv1_channels = groups * math.ceil(conv1_channels / groups)
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
