"""SqueezeNet 1.0 (arXiv 1602.07360), which Table 6 compares with."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from shufflenet_jax import chwn
from shufflenet_jax.layers import Conv, check_positive, dropout
from shufflenet_jax.models.classic import Classic, Logits, check_upscale
from shufflenet_jax.units import Unit

# Squeezed channels and output channels of the fire units after each of the three max pools.
STAGES = (
    ((16, 128), (16, 128), (32, 256)),
    ((32, 256), (48, 384), (48, 384), (64, 512)),
    ((64, 512),),
)


class Fire(Unit):
    """A 1x1 convolution to few channels; a 1x1 and a 3x3 of it side by side; ReLU after each.

    Args:
      in_channels: Any.
      squeezed: Between the convolutions.
      out_channels: Half of them of either kernel.
      rngs: Source of the initial weights.
    """

    def __init__(self, in_channels: int, squeezed: int, out_channels: int, *, rngs: nnx.Rngs):
        half = out_channels // 2
        self.squeeze = Conv(in_channels, squeezed, bias=True, rngs=rngs)
        self.pointwise = Conv(squeezed, half, bias=True, rngs=rngs)
        self.spatial = Conv(squeezed, half, 3, bias=True, rngs=rngs)

    def forward(self, x: Float[Array, "c h w b"], *, train: bool) -> Float[Array, "c2 h w b"]:
        del train
        x = jax.nn.relu(self.squeeze(x))
        return jax.nn.relu(jnp.concatenate([self.pointwise(x), self.spatial(x)]))


class SqueezeNet(Classic):
    """A convolution, eight fire units, and a 1x1 convolution as the classifier.

    Args:
      num_classes: Outputs of the classifier.
      upscale_to: Smaller images are scaled up to that height and width first.
      rngs: Source of the initial weights.
    """

    least_size = 21

    def __init__(self, *, num_classes: int = 1000, upscale_to: int = 0, rngs: nnx.Rngs):
        check_positive(num_classes=num_classes)
        self.upscale_to = check_upscale(upscale_to)
        in_channels = 96
        self.widths = (in_channels, *(units[-1][-1] for units in STAGES))
        self.conv1 = Conv(3, in_channels, 7, stride=2, padding=0, bias=True, rngs=rngs)
        stages = []
        for units in STAGES:
            stage = []
            for squeezed, out_channels in units:
                stage.append(Fire(in_channels, squeezed, out_channels, rngs=rngs))
                in_channels = out_channels
            stages.append(nnx.List(stage))
        self.stages = nnx.List(stages)
        self.classifier = Conv(
            in_channels, num_classes, bias=True, role="rectified classifier", rngs=rngs
        )

    def forward(self, x: Float[Array, "c h w b"], *, train: bool, key: Array | None) -> Logits:
        x = jax.nn.relu(self.conv1(x))
        for stage in self.stages:
            x = chwn.max_pool(x, padding=(0, 1))
            for unit in stage:
                x = unit.apply(x, train=train)
        with jax.named_scope("head"):
            x = jax.nn.relu(self.classifier(dropout(x, 0.5, key)))
            return chwn.global_avg_pool(x.astype(jnp.float32)).T


squeezenet = SqueezeNet
"""By the name that it has beside the other constructors."""
