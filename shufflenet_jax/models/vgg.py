"""VGG-16 (arXiv 1409.1556, configuration D), which Table 6 compares with."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from shufflenet_jax import chwn
from shufflenet_jax.layers import Conv
from shufflenet_jax.models.classic import Classic, LargeHead, Logits

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""Convolutions, and their output channels, before each of the five max pools."""


class VGG16(Classic):
    """13 convolutions of 3x3 and three linear layers.

    Images are 224x224. Others are averaged to the 7x7 map that the first linear layer expects.

    Args:
      num_classes: Outputs of the classifier.
      rngs: Source of the initial weights.
    """

    least_size = 32

    def __init__(self, *, num_classes: int = 1000, rngs: nnx.Rngs):
        self.widths = tuple(channels for _, channels in BLOCKS)
        blocks, in_channels = [], 3
        for repeat, channels in BLOCKS:
            convs = []
            for _ in range(repeat):
                convs.append(Conv(in_channels, channels, 3, bias=True, rngs=rngs))
                in_channels = channels
            blocks.append(nnx.List(convs))
        self.blocks = nnx.List(blocks)
        self.head = LargeHead(in_channels, 7, num_classes, rngs=rngs)

    def forward(self, x: Float[Array, "c h w b"], *, train: bool, key: Array | None) -> Logits:
        del train
        for block in self.blocks:
            for conv in block:
                x = jax.nn.relu(conv(x))
            x = chwn.max_pool(x, size=2, padding=(0, 0))
        return self.head(x, key)


vgg16 = VGG16
"""By the name that it has beside the other constructors."""
