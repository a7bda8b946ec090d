"""Table 4: other structures in Table 1's skeleton, at ShuffleNet's complexity.

Stages 2 to 4 are built of another unit, and its channels are chosen so that the network costs as
many multiply-adds as ShuffleNet at 1x, 0.5x or 0.25x. The paper names the unit, the bottleneck and
the number of groups of each structure, but its channels only once: those of stage 4 at 38 million
are 50 (VGG-like), 192 (ResNet), 192 (ResNeXt) and 288 (Xception-like). Those below are what
`shufflenet_jax.widths.solve` finds, which is 50, 192, 176 and 288, with one exception:

* Xception-like is ShuffleNet with g=1, for whose errors Tables 2 and 4 have the same numbers, so it
  has the channels of Table 1. At 140 million the solver finds 568 channels for stage 4, not 576.
* ResNet has its own shortcut at stride 2, a 1x1 convolution. With a pooled one, 192 channels would
  cost 35 million.
* ResNeXt has ShuffleNet's shortcut, an average pool that is concatenated. With ResNet's, the 192
  channels of the text would cost 41 million, with this one 37.7: but stage 2 then has 48, half of
  which, its 1:2 bottleneck, does not divide into 16 groups. Here such a bottleneck is raised to the
  next multiple of 16, which costs what brings stage 4 down to 176.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from flax import nnx

from shufflenet_jax.errors import InputError
from shufflenet_jax.models.skeleton import IMAGENET_STEM, REPEATS, Network, Stem
from shufflenet_jax.units import BottleneckUnit, PlainUnit, ResidualUnit, UnitConstructor


@dataclass(frozen=True)
class Structure:
    """A unit, and the channels that it is built with.

    Attributes:
      unit: Its constructor.
      ratio: Output channels over those of the bottleneck; divides the channels of every stage.
      channels: Those of stages 2 to 4 by budget, in millions of multiply-adds.
    """

    unit: UnitConstructor
    ratio: int
    channels: dict[int, tuple[int, int, int]]


CONV1_CHANNELS = {140: 24, 38: 12, 13: 12}
"""Output channels of conv1 by budget: those of ShuffleNet at 1x, 0.5x and 0.25x."""

STRUCTURES = {
    "vgg_like": Structure(
        PlainUnit,
        ratio=1,
        channels={140: (24, 49, 98), 38: (12, 25, 50), 13: (6, 13, 26)},
    ),
    "resnet": Structure(
        partial(ResidualUnit, ratio=4),
        ratio=4,
        channels={140: (92, 188, 376), 38: (48, 96, 192), 13: (24, 48, 96)},
    ),
    "xception_like": Structure(
        BottleneckUnit,
        ratio=4,
        channels={140: (144, 288, 576), 38: (72, 144, 288), 13: (36, 72, 144)},
    ),
    "resnext": Structure(
        partial(ResidualUnit, ratio=2, groups=16, pooled=True),
        ratio=2,
        channels={140: (94, 188, 376), 38: (44, 88, 176), 13: (18, 36, 72)},
    ),
}
"""The structures of Table 4 beside ShuffleNet's own. Budgets do not count the classifier."""


def structure(
    name: str,
    *,
    mflops: int = 140,
    num_classes: int = 1000,
    repeats: Sequence[int] = REPEATS,
    stem: Stem = IMAGENET_STEM,
    rngs: nnx.Rngs,
) -> Network:
    """A network of Table 4.

    Args:
      name: ``vgg_like``, ``resnet``, ``xception_like`` or ``resnext``.
      mflops: The budget: 140, 38 or 13 million multiply-adds at 224x224, classifier aside. For
        another, find channels with `shufflenet_jax.widths.solve` and build a `Network` with them.
      num_classes: Outputs of the classifier.
      repeats: Units in stages 2 to 4; the budget is kept with those of Table 1.
      stem: What stands before stage 2.
      rngs: Source of the initial weights.

    Raises:
      InputError: No such structure or budget.
    """
    if name not in STRUCTURES:
        raise InputError(f"unknown structure {name!r}: choose {', '.join(STRUCTURES)}")
    if mflops not in CONV1_CHANNELS:
        budgets = ", ".join(map(str, CONV1_CHANNELS))
        raise InputError(f"no channels are known for {mflops} MFLOPs: choose {budgets}")
    chosen = STRUCTURES[name]
    return Network(
        chosen.unit,
        channels=chosen.channels[mflops],
        repeats=repeats,
        conv1_channels=CONV1_CHANNELS[mflops],
        stem=stem,
        num_classes=num_classes,
        rngs=rngs,
    )
