"""ShuffleNet V1 (arXiv 1707.01083) in JAX and Flax NNX."""

from shufflenet_jax.complexity import Complexity, complexity
from shufflenet_jax.errors import InputError
from shufflenet_jax.inference import fold
from shufflenet_jax.models.shufflenet import shufflenet, stage_channels, stem_channels
from shufflenet_jax.models.skeleton import IMAGENET_STEM, SMALL_STEM, Network, Stem
from shufflenet_jax.ops import channel_shuffle, depthwise, grouped_pointwise, no_shuffle
from shufflenet_jax.units import BottleneckUnit, ShuffleUnit, Unit

__all__ = [
    "IMAGENET_STEM",
    "SMALL_STEM",
    "BottleneckUnit",
    "Complexity",
    "InputError",
    "Network",
    "ShuffleUnit",
    "Stem",
    "Unit",
    "channel_shuffle",
    "complexity",
    "depthwise",
    "fold",
    "grouped_pointwise",
    "no_shuffle",
    "shufflenet",
    "stage_channels",
    "stem_channels",
]
