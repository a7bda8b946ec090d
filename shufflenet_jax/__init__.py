"""ShuffleNet V1 (arXiv 1707.01083) and what it is compared with, in JAX and Flax NNX."""

from shufflenet_jax.complexity import Complexity, abstract, complexity
from shufflenet_jax.errors import InputError
from shufflenet_jax.images import normalise
from shufflenet_jax.inference import fold
from shufflenet_jax.models.alexnet import alexnet, alexnet_one_tower
from shufflenet_jax.models.googlenet import Inception, googlenet
from shufflenet_jax.models.lenet import SparseConv, lenet5
from shufflenet_jax.models.mobilenet import (
    InvertedUnit,
    SeparableUnit,
    mobilenet_v1,
    mobilenet_v2,
)
from shufflenet_jax.models.resnet import resnet50, resnext50_32x4d
from shufflenet_jax.models.shufflenet import (
    shufflenet,
    shufflenet_se,
    shufflenet_shallow,
    stage_channels,
    stem_channels,
)
from shufflenet_jax.models.skeleton import IMAGENET_STEM, SMALL_STEM, Network, Stem
from shufflenet_jax.models.squeezenet import Fire, squeezenet
from shufflenet_jax.models.structures import structure
from shufflenet_jax.models.vgg import vgg16
from shufflenet_jax.ops import channel_shuffle, depthwise, grouped_pointwise, no_shuffle
from shufflenet_jax.trained import Trained, load_trained
from shufflenet_jax.units import (
    BottleneckUnit,
    PlainUnit,
    ResidualUnit,
    ShuffleUnit,
    SqueezeExcitation,
    Unit,
)

__all__ = [
    "IMAGENET_STEM",
    "SMALL_STEM",
    "BottleneckUnit",
    "Complexity",
    "Fire",
    "Inception",
    "InputError",
    "InvertedUnit",
    "Network",
    "PlainUnit",
    "ResidualUnit",
    "SeparableUnit",
    "ShuffleUnit",
    "SparseConv",
    "SqueezeExcitation",
    "Stem",
    "Trained",
    "Unit",
    "abstract",
    "alexnet",
    "alexnet_one_tower",
    "channel_shuffle",
    "complexity",
    "depthwise",
    "fold",
    "googlenet",
    "grouped_pointwise",
    "lenet5",
    "load_trained",
    "mobilenet_v1",
    "mobilenet_v2",
    "no_shuffle",
    "normalise",
    "resnet50",
    "resnext50_32x4d",
    "shufflenet",
    "shufflenet_se",
    "shufflenet_shallow",
    "squeezenet",
    "stage_channels",
    "stem_channels",
    "structure",
    "vgg16",
]
