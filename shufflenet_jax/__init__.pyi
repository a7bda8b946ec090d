from .cost import Complexity, abstract, complexity
from .errors import InputError
from .hub import from_pretrained, load, push_to_hub, save
from .images import normalise
from .inference import fold
from .models.alexnet import alexnet, alexnet_one_tower
from .models.googlenet import Inception, googlenet
from .models.lenet import SparseConv, lenet5
from .models.mobilenet import (
    InvertedUnit,
    SeparableUnit,
    mobilenet_v1,
    mobilenet_v2,
)
from .models.ported import shufflenet_ported
from .models.resnet import resnet50, resnext50_32x4d
from .models.shufflenet import (
    shufflenet,
    shufflenet_se,
    shufflenet_shallow,
    stage_channels,
    stem_channels,
)
from .models.skeleton import IMAGENET_STEM, SMALL_STEM, Network, Stem
from .models.squeezenet import Fire, squeezenet
from .models.structures import structure
from .models.vgg import vgg16
from .ops import channel_shuffle, depthwise, grouped_pointwise, no_shuffle
from .porting.state_dicts import load_torch, torch_state_dict
from .trained import Trained, load_trained
from .units import (
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
    "from_pretrained",
    "googlenet",
    "grouped_pointwise",
    "lenet5",
    "load",
    "load_torch",
    "load_trained",
    "mobilenet_v1",
    "mobilenet_v2",
    "no_shuffle",
    "normalise",
    "push_to_hub",
    "resnet50",
    "resnext50_32x4d",
    "save",
    "shufflenet",
    "shufflenet_ported",
    "shufflenet_se",
    "shufflenet_shallow",
    "squeezenet",
    "stage_channels",
    "stem_channels",
    "structure",
    "torch_state_dict",
    "vgg16",
]
