"""MobileNet (arXiv 1704.04861), which Table 5 compares with, and MobileNet V2 (1801.04381).

Both are Table 1's skeleton with other units and numbers. They have no max pool: what it does in
ShuffleNet, halving the map a second time, the first unit of stride 2 does. So a `Stem` without a
max pool, for small images, makes the stride of that unit 1, and maps are as large as ShuffleNet's.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import jax
from flax import nnx
from jaxtyping import Array, Float

from shufflenet_jax.errors import InputError
from shufflenet_jax.layers import ConvNorm, check_positive
from shufflenet_jax.models.skeleton import IMAGENET_STEM, Network, Stem
from shufflenet_jax.units import Unit


class SeparableUnit(Unit):
    """MobileNet's unit: 3x3 depthwise convolution, BN, ReLU; 1x1 convolution, BN, ReLU.

    Args:
      in_channels, out_channels: Any.
      stride: Of the depthwise convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, rngs: nnx.Rngs):
        relu = jax.nn.relu
        self.depthwise = ConvNorm(
            in_channels,
            in_channels,
            3,
            stride=stride,
            groups=in_channels,
            activation=relu,
            rngs=rngs,
        )
        self.pointwise = ConvNorm(in_channels, out_channels, activation=relu, rngs=rngs)

    def forward(self, x: Float[Array, "c h w b"], *, train: bool) -> Float[Array, "c2 h2 w2 b"]:
        return self.pointwise(self.depthwise(x, train=train), train=train)


class InvertedUnit(Unit):
    """MobileNet V2's unit: a bottleneck inside out, with a linear end.

    1x1 convolution, BN, ReLU6; 3x3 depthwise convolution, BN, ReLU6; 1x1 convolution, BN. The input
    is added where the shape stays.

    Args:
      in_channels, out_channels: Any.
      stride: Of the depthwise convolution.
      expansion: Channels inside over those of the input; with 1 there is no first convolution.
      always_expands: But there is, though it adds no channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        expansion: int = 6,
        always_expands: bool = False,
        rngs: nnx.Rngs,
    ):
        check_positive(expansion=expansion)
        inside, relu6 = expansion * in_channels, jax.nn.relu6
        self.expands = expansion != 1 or always_expands
        if self.expands:
            self.expand = ConvNorm(in_channels, inside, activation=relu6, rngs=rngs)
        self.depthwise = ConvNorm(
            inside, inside, 3, stride=stride, groups=inside, activation=relu6, rngs=rngs
        )
        self.adds = (stride, in_channels) == (1, out_channels)
        self.reduce = ConvNorm(inside, out_channels, ends_residual=self.adds, rngs=rngs)

    def forward(self, x: Float[Array, "c h w b"], *, train: bool) -> Float[Array, "c2 h2 w2 b"]:
        y = self.expand(x, train=train) if self.expands else x
        y = self.depthwise(y, train=train)
        y = self.reduce(y, train=train)
        return x + y if self.adds else y


class LastUnit(Unit):
    """What MobileNet V2 ends with: 1x1 convolution, BN, ReLU6.

    Args:
      in_channels, out_channels: Any.
      stride: Of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, rngs: nnx.Rngs):
        self.conv = ConvNorm(
            in_channels, out_channels, stride=stride, activation=jax.nn.relu6, rngs=rngs
        )

    def forward(self, x: Float[Array, "c h w b"], *, train: bool) -> Float[Array, "c2 h2 w2 b"]:
        return self.conv(x, train=train)


def mobilenet_v1(
    *,
    width: float = 1.0,
    num_classes: int = 1000,
    stem: Stem = IMAGENET_STEM,
    rngs: nnx.Rngs,
) -> Network:
    """MobileNet of a width (its Table 1): 28 layers, 569 million multiply-adds at width 1.

    Args:
      width: Scales the channels of every layer; 1, 0.75, 0.5 and 0.25 in its paper.
      num_classes: Outputs of the classifier.
      stem: For small images, one without a max pool; see the module.
      rngs: Source of the initial weights.

    Raises:
      InputError: The width is no finite number, or gives a layer no channels.
    """
    if not math.isfinite(width):
        raise InputError(f"width must be a finite number, not {width}")
    scaled = [int(width * channels) for channels in (32, 64, 128, 256, 512, 1024)]
    if scaled[0] < 1:
        raise InputError(f"width must be at least 1/32, not {width}")
    return Network(
        SeparableUnit,
        channels=scaled[1:],
        repeats=(1, 2, 2, 6, 2),
        strides=_strides((1, 2, 2, 2, 2), stem),
        conv1_channels=scaled[0],
        stem=replace(stem, max_pool=False),
        num_classes=num_classes,
        rngs=rngs,
    )


def mobilenet_v2(
    *,
    width: float = 1.0,
    always_expands: bool = False,
    num_classes: int = 1000,
    stem: Stem = IMAGENET_STEM,
    rngs: nnx.Rngs,
) -> Network:
    """MobileNet V2 of a width (its Table 2): 300 million multiply-adds at width 1.

    Args:
      width: Scales the channels of every layer, rounded down, but for the last before the
        classifier, which below a width of 1 keeps its 1,280.
      always_expands: Whether the first unit has a 1x1 convolution too, that expands nothing.
      num_classes: Outputs of the classifier, before which there is no dropout.
      stem: For small images, one without a max pool; see the module.
      rngs: Source of the initial weights.

    Raises:
      InputError: The width is no finite number, or gives a layer no channels.
    """
    if not math.isfinite(width):
        raise InputError(f"width must be a finite number, not {width}")
    conv1, *scaled = (int(width * channels) for channels in (32, 16, 24, 32, 64, 96, 160, 320))
    return Network(
        InvertedUnit,
        first_unit=partial(InvertedUnit, expansion=1, always_expands=always_expands),
        last_unit=LastUnit,
        channels=(*scaled, int(1280 * max(width, 1.0))),
        repeats=(1, 2, 3, 4, 3, 3, 1, 1),
        strides=_strides((1, 2, 2, 2, 1, 2, 1, 1), stem),
        conv1_channels=conv1,
        activation=jax.nn.relu6,
        stem=replace(stem, max_pool=False),
        num_classes=num_classes,
        rngs=rngs,
    )


def _strides(strides: Sequence[int], stem: Stem) -> list[int]:
    """The strides of the stages, the first 2 made 1 for a stem without a max pool."""
    made = list(strides)
    if not stem.max_pool:
        made[made.index(2)] = 1
    return made
