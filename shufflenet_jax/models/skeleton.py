"""Table 1's skeleton: stem, three stages of any unit, global average pool and classifier."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
from flax import nnx
from jaxtyping import Array, Float

from shufflenet_jax import chwn
from shufflenet_jax.errors import InputError
from shufflenet_jax.layers import BatchNorm, Conv
from shufflenet_jax.units import UnitConstructor

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
            return self.classifier(chwn.global_avg_pool(x).T)

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
