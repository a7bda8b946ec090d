"""GoogLeNet (arXiv 1409.4842), which Table 6 compares with, in the form that torchvision has.

That form normalises by batch where the article's normalises two maps by local response, has no
biases in convolutions, and has 3x3 convolutions where the article has 5x5, as its authors' first
TensorFlow code does. It trains from scratch in few epochs, which the article's does not, and costs
the 1,500 million multiply-adds of Table 6. With 5x5 it costs 1,583 million; `large_kernel` chooses.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from shufflenet_jax import chwn
from shufflenet_jax.errors import InputError
from shufflenet_jax.images import Images
from shufflenet_jax.layers import (
    Classifier,
    ConvNorm,
    Linear,
    adaptive_avg_pool,
    dropout,
    flatten,
)
from shufflenet_jax.models.classic import Classic, Logits, split_key
from shufflenet_jax.units import Unit

# Output channels of every inception unit's convolutions, as the article's Table 1 lists them: 1x1;
# 1x1 and the 3x3 after it; 1x1 and the large one after it; 1x1 after the pool.
STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)

AUXILIARY_AFTER = (0, 3)
"""The units of the second stage that an auxiliary head looks at."""

AUXILIARY_WEIGHT = 0.3
"""What an auxiliary head weighs in the loss (section 5 of the article)."""


_conv = partial(ConvNorm, activation=jax.nn.relu, epsilon=1e-3)


class Inception(Unit):
    """Four branches side by side: 1x1; 1x1 and 3x3; 1x1 and a large kernel; max pool and 1x1.

    Args:
      in_channels: Any.
      channels: Output channels of the convolutions, in the order of the article's Table 1.
      large_kernel: Height and width of the large kernel.
      rngs: Source of the initial weights.
    """

    def __init__(
        self,
        in_channels: int,
        channels: tuple[int, int, int, int, int, int],
        *,
        large_kernel: int = 3,
        rngs: nnx.Rngs,
    ):
        one, to_three, three, to_large, large, pooled = channels
        self.one = _conv(in_channels, one, rngs=rngs)
        self.to_three = _conv(in_channels, to_three, rngs=rngs)
        self.three = _conv(to_three, three, 3, rngs=rngs)
        self.to_large = _conv(in_channels, to_large, rngs=rngs)
        self.large = _conv(to_large, large, large_kernel, rngs=rngs)
        self.pooled = _conv(in_channels, pooled, rngs=rngs)

    def forward(self, x: Float[Array, "c h w b"], *, train: bool) -> Float[Array, "c2 h w b"]:
        branches = (
            self.one(x, train=train),
            self.three(self.to_three(x, train=train), train=train),
            self.large(self.to_large(x, train=train), train=train),
            self.pooled(chwn.max_pool(x, stride=1), train=train),
        )
        return jnp.concatenate(branches)


class AuxiliaryHead(nnx.Module):
    """A classifier of a map in the middle of the network, for training alone.

    Args:
      in_channels: Of the map.
      num_classes: Outputs.
      rngs: Source of the initial weights.
    """

    def __init__(self, in_channels: int, num_classes: int, *, rngs: nnx.Rngs):
        self.reduce = _conv(in_channels, 128, rngs=rngs)
        self.hidden = Linear(128 * 4 * 4, 1024, rngs=rngs)
        self.classifier = Classifier(1024, num_classes, rngs=rngs)

    def __call__(self, x: Float[Array, "c h w b"], *, train: bool, key: Array | None) -> Logits:
        x = self.reduce(adaptive_avg_pool(x, 4), train=train)
        return self.classifier(dropout(jax.nn.relu(self.hidden(flatten(x))), 0.7, key))


class GoogLeNet(Classic):
    """Three convolutions, nine inception units, global average pool and classifier.

    Args:
      num_classes: Outputs of the classifier.
      auxiliary: Whether it has the two auxiliary heads, which only training uses.
      large_kernel: Of the inception units: 3 as in torchvision, or 5 as in the article.
      rngs: Source of the initial weights.

    Raises:
      InputError: The large kernel's size is not odd.
    """

    least_size = 15

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        auxiliary: bool = True,
        large_kernel: int = 3,
        rngs: nnx.Rngs,
    ):
        if large_kernel % 2 == 0:
            raise InputError(f"large_kernel must be odd, as 3 or 5, not {large_kernel}")
        self.conv1 = _conv(3, 64, 7, stride=2, rngs=rngs)
        self.conv2 = _conv(64, 64, rngs=rngs)
        self.conv3 = _conv(64, 192, 3, rngs=rngs)
        widths, stages, in_channels = [64, 192], [], 192
        for rows in STAGES:
            stage = []
            for row in rows:
                stage.append(Inception(in_channels, row, large_kernel=large_kernel, rngs=rngs))
                in_channels = row[0] + row[2] + row[4] + row[5]
            stages.append(nnx.List(stage))
            widths.append(in_channels)
        self.widths = tuple(widths)
        self.stages = nnx.List(stages)
        self.auxiliary = nnx.List(
            [AuxiliaryHead(c, num_classes, rngs=rngs) for c in (512, 528) if auxiliary]
        )
        self.classifier = Classifier(in_channels, num_classes, rngs=rngs)

    def forward(self, x: Float[Array, "c h w b"], *, train: bool, key: Array | None) -> Logits:
        *_, last = self._maps(x, train)
        return self._classify(last, key)

    def heads(self, images: Images, key: Array | None) -> list[tuple[float, Logits]]:
        main, *keys = split_key(key, 1 + len(AUXILIARY_AFTER))
        *middle, last = self._maps(self._checked(images), train=True)
        found = [(1.0, self._classify(last, main))]
        # Without auxiliary heads there are none to pair with the maps.
        for head, x, own in zip(self.auxiliary, middle, keys, strict=False):
            found.append((AUXILIARY_WEIGHT, head(x, train=True, key=own)))
        return found

    def _maps(self, x: Float[Array, "c h w b"], train: bool) -> Iterator[Float[Array, "c h w b"]]:
        """What the auxiliary heads look at, and last what the classifier does."""
        x = chwn.max_pool(self.conv1(x, train=train), padding=(0, 1))
        x = self.conv3(self.conv2(x, train=train), train=train)
        for number, stage in enumerate(self.stages):
            size = 2 if number == 2 else 3
            x = chwn.max_pool(x, size, padding=(0, 1))
            for index, unit in enumerate(stage):
                x = unit.apply(x, train=train)
                if number == 1 and index in AUXILIARY_AFTER:
                    yield x
        yield x

    def _classify(self, x: Float[Array, "c h w b"], key: Array | None) -> Logits:
        return self.classifier(dropout(chwn.global_avg_pool(x).T, 0.4, key))


googlenet = GoogLeNet
"""By the name that it has beside the other constructors."""
