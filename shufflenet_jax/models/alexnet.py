"""AlexNet (Krizhevsky et al., 2012), where group convolution comes from: Tables 6 and 8.

It was trained on two GPUs, so three of its convolutions have two groups, one on each GPU. The
one-tower form (arXiv 1404.5997), the one that torchvision has, has no groups, fewer channels and no
normalisation.
"""

from collections.abc import Sequence
from functools import partial

import jax
from flax import nnx
from jaxtyping import Array, Float

from shufflenet_jax import chwn
from shufflenet_jax.layers import Conv, local_response_norm
from shufflenet_jax.models.classic import Classic, LargeHead, Logits, check_upscale


class AlexNet(Classic):
    """Five convolutions, three max pools, and three linear layers.

    Images are 224x224, padded by 2 where the article's figures need images of 227x227. Larger ones
    are averaged to the 6x6 map that the first linear layer expects.

    Args:
      channels: Output channels of the five convolutions.
      groups: Groups of the second, fourth and fifth.
      normalise: Whether local response normalisation follows the first two.
      num_classes: Outputs of the classifier.
      upscale_to: Smaller images are scaled up to that height and width first.
      rngs: Source of the initial weights.
    """

    least_size = 63

    def __init__(
        self,
        *,
        channels: Sequence[int],
        groups: int,
        normalise: bool,
        num_classes: int = 1000,
        upscale_to: int = 0,
        rngs: nnx.Rngs,
    ):
        self.upscale_to = check_upscale(upscale_to)
        first, second, third, fourth, fifth = self.widths = tuple(channels)
        self.normalise = normalise
        self.conv1 = Conv(3, first, 11, stride=4, padding=2, bias=True, rngs=rngs)
        self.conv2 = Conv(first, second, 5, groups=groups, bias=True, rngs=rngs)
        self.conv3 = Conv(second, third, 3, bias=True, rngs=rngs)
        self.conv4 = Conv(third, fourth, 3, groups=groups, bias=True, rngs=rngs)
        self.conv5 = Conv(fourth, fifth, 3, groups=groups, bias=True, rngs=rngs)
        self.head = LargeHead(fifth, 6, num_classes, rngs=rngs)

    def forward(self, x: Float[Array, "c h w b"], *, train: bool, key: Array | None) -> Logits:
        del train
        for conv in (self.conv1, self.conv2):
            x = jax.nn.relu(conv(x))
            if self.normalise:
                x = local_response_norm(x)
            x = chwn.max_pool(x, padding=(0, 0))
        for conv in (self.conv3, self.conv4, self.conv5):
            x = jax.nn.relu(conv(x))
        return self.head(chwn.max_pool(x, padding=(0, 0)), key)


alexnet = partial(AlexNet, channels=(96, 256, 384, 384, 256), groups=2, normalise=True)
"""The network of 2012: takes num_classes and rngs."""

alexnet_one_tower = partial(AlexNet, channels=(64, 192, 384, 256, 256), groups=1, normalise=False)
"""The form for one GPU: takes num_classes and rngs."""
