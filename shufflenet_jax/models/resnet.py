"""ResNet-50 (arXiv 1512.03385) and ResNeXt-50 (1611.05431): Table 1's skeleton, and its model.

Their unit is `ResidualUnit`. Its 3x3 convolution has the stride, as in fb.resnet.torch and
torchvision, from which both are known; in the article of ResNet the 1x1 before it has.
"""

from functools import partial

from flax import nnx

from shufflenet_jax.models.skeleton import IMAGENET_STEM, Network, Stem
from shufflenet_jax.units import ResidualUnit, UnitConstructor


def _fifty_layers(
    unit: UnitConstructor,
    *,
    num_classes: int = 1000,
    stem: Stem = IMAGENET_STEM,
    rngs: nnx.Rngs,
) -> Network:
    """A network of 16 units of three layers each, with a stem and a classifier."""
    return Network(
        unit,
        channels=(256, 512, 1024, 2048),
        repeats=(3, 4, 6, 3),
        strides=(1, 2, 2, 2),
        conv1_channels=64,
        conv1_size=7,
        stem=stem,
        num_classes=num_classes,
        rngs=rngs,
    )


resnet50 = partial(_fifty_layers, partial(ResidualUnit, ratio=4))
"""ResNet-50: takes num_classes, stem and rngs."""

resnext50_32x4d = partial(_fifty_layers, partial(ResidualUnit, ratio=2, groups=32))
"""ResNeXt-50 with 32 groups of 4 channels: takes num_classes, stem and rngs."""
