"""Table 1's skeleton: stem, stages of any unit, global average pool and classifier."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
from flax import nnx
from jaxtyping import Array, Float

from shufflenet_jax import chwn
from shufflenet_jax.errors import InputError
from shufflenet_jax.images import Images, check_images
from shufflenet_jax.layers import Activation, Classifier, ConvNorm, check_positive
from shufflenet_jax.units import UnitConstructor

REPEATS = (4, 8, 4)
"""Units in stages 2, 3 and 4; the first of each has stride 2."""


@dataclass(frozen=True)
class Stem:
    """What stands before stage 2: a convolution, BN, ReLU and, for large images, a max pool.

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
    """Table 1's skeleton around any unit: stem, stages, global average pool, classifier.

    With other numbers it is the skeleton of ResNet and of MobileNet too.

    Args:
      unit: Constructor of the units; see `UnitConstructor`.
      first_unit: Constructor of the very first unit where it differs.
      last_unit: Constructor of the very last unit where it differs.
      channels: Output channels of each stage, from stage 2 on.
      repeats: Units in each stage.
      strides: Stride of the first unit of each stage; the others have 1. By default all 2.
      conv1_channels: Output channels of the stem.
      conv1_size: Kernel size of the stem's convolution.
      activation: What follows the stem's batch normalisation.
      stem: What stands before stage 2.
      num_classes: Outputs of the classifier.
      rngs: Source of the initial weights.

    Attributes:
      widths: Output channels of conv1 and of each stage, as built.

    Raises:
      InputError: Channels, repeats and strides are not for the same number of stages, or there is
        nothing of what there must be: stages, units, channels or classes.
    """

    def __init__(
        self,
        unit: UnitConstructor,
        *,
        first_unit: UnitConstructor | None = None,
        last_unit: UnitConstructor | None = None,
        channels: Sequence[int],
        repeats: Sequence[int] = REPEATS,
        strides: Sequence[int] | None = None,
        conv1_channels: int,
        conv1_size: int = 3,
        activation: Activation = jax.nn.relu,
        stem: Stem = IMAGENET_STEM,
        num_classes: int = 1000,
        rngs: nnx.Rngs,
    ):
        strides = strides or [2] * len(channels)
        if not len(channels) == len(repeats) == len(strides):
            raise InputError(
                f"{len(channels)} stages have channels, {len(repeats)} have repeats, "
                f"{len(strides)} have strides"
            )
        for name, values in (("channels", channels), ("repeats", repeats), ("strides", strides)):
            if min(values, default=0) < 1:
                raise InputError(f"the {name} of all stages are at least 1, not {tuple(values)}")
        check_positive(
            conv1_channels=conv1_channels, conv1_size=conv1_size, num_classes=num_classes
        )
        self.stem = stem
        self.widths = (conv1_channels, *channels)
        self.conv1 = ConvNorm(
            3, conv1_channels, conv1_size, stride=stem.stride, activation=activation, rngs=rngs
        )
        constructors = [unit] * sum(repeats)
        constructors[0] = first_unit or unit
        if last_unit is not None:  # else a network of one unit would lose its first
            constructors[-1] = last_unit
        make = iter(constructors)
        stages: list[nnx.List] = []
        in_channels = conv1_channels
        for out_channels, repeat, stride in zip(channels, repeats, strides, strict=True):
            units = []
            for index in range(repeat):
                step = 1 if index else stride
                units.append(next(make)(in_channels, out_channels, step, rngs=rngs))
                in_channels = out_channels
            stages.append(nnx.List(units))
        self.stages = nnx.List(stages)
        self.classifier = Classifier(in_channels, num_classes, rngs=rngs)

    def __call__(self, images: Images, *, train: bool = False) -> Float[Array, "b classes"]:
        """Returns logits, in float32.

        Args:
          images: Normalised, (b, h, w, 3), of type float32, bfloat16 or float16, in which the
            network computes.
          train: Whether batch statistics normalise, and the running ones move.

        Raises:
          InputError: Images of another type or shape.
        """
        *_, (_, x) = self._stage_outputs(images, train)
        return self.classifier(chwn.global_avg_pool(x).T)

    def features(
        self, images: Images, *, train: bool = False
    ) -> dict[str, Float[Array, "b _h _w _c"]]:
        """Returns the feature maps by name: stem, stage2, stage3, stage4 and so on.

        Their type is that of the images.

        Raises:
          InputError: Images of another type or shape than the network takes.
        """
        return {name: chwn.to_nhwc(x) for name, x in self._stage_outputs(images, train)}

    def _stage_outputs(self, images: Images, train: bool) -> Iterator[tuple[str, Array]]:
        x = self.conv1(chwn.from_nhwc(check_images(images)), train=train)
        if self.stem.max_pool:
            x = chwn.max_pool(x)
        yield "stem", x
        for number, stage in enumerate(self.stages, start=2):
            for unit in stage:
                x = unit.apply(x, train=train)
            yield f"stage{number}", x
