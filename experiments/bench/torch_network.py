"""The networks as one would write them in PyTorch, with the weights of ours."""

from collections.abc import Callable

import numpy as np
import torch
from flax import nnx
from jax import Array
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from experiments.bench import inputs
from shufflenet_jax import layers
from shufflenet_jax.models.skeleton import Network
from shufflenet_jax.units import ShuffleUnit

Shuffle = Callable[[torch.Tensor, int], torch.Tensor]
"""What shuffles the channels of maps (b, c, h, w) in so many groups."""


class TorchNetwork(nn.Module):
    """The whole network; its units shuffle in the way that is given."""

    def __init__(self, network: Network, shuffle: Shuffle):
        super().__init__()
        self.stem = ConvNorm(network.conv1)
        self.max_pool = network.stem.max_pool
        units = [TorchUnit(unit, shuffle) for stage in network.stages for unit in stage]
        self.units = nn.Sequential(*units)
        self.classifier = nn.Linear(*network.classifier.kernel.shape)
        with torch.no_grad():
            self.classifier.weight.copy_(_tensor(network.classifier.kernel).T)
            self.classifier.bias.copy_(_tensor(network.classifier.bias))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(images))
        if self.max_pool:
            x = max_pool(x)
        return self.classifier(self.units(x).mean((2, 3)))


class TorchUnit(nn.Module):
    """The ShuffleNet unit."""

    def __init__(self, unit: ShuffleUnit, shuffle: Shuffle):
        super().__init__()
        self.groups, self.stride, self.shuffle = unit.groups, unit.stride, shuffle
        self.reduce = ConvNorm(unit.reduce)
        self.depthwise = ConvNorm(unit.depthwise)
        self.expand = ConvNorm(unit.expand)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.shuffle(functional.relu(self.reduce(x)), self.groups)
        y = self.expand(self.depthwise(y))
        if self.stride == 1:
            return functional.relu(x + y)
        return functional.relu(torch.cat([avg_pool(x), y], dim=1))


class ConvNorm(nn.Module):
    """A convolution without bias, then BN."""

    def __init__(self, box: layers.ConvNorm):
        super().__init__()
        conv, norm = inputs.parts(box)
        size, _, in_channels, out_channels = conv.kernel.shape
        self.conv = nn.Conv2d(
            in_channels * conv.groups,
            out_channels,
            size,
            conv.stride,
            size // 2,
            groups=conv.groups,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(out_channels)
        with torch.no_grad():
            self.conv.weight.copy_(_tensor(conv.kernel).permute(3, 2, 0, 1))
            for mine, theirs in (
                (self.norm.weight, norm.scale),
                (self.norm.bias, norm.bias),
                (self.norm.running_mean, norm.mean),
                (self.norm.running_var, norm.var),
            ):
                mine.copy_(_tensor(theirs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


def channel_shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Shuffles in NCHW order, as most code on PyTorch does; ONNX has one transpose for it."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def channel_shuffle_nhwc(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Shuffles in NHWC order, which is one copy of maps that are channels_last."""
    y = x.permute(0, 2, 3, 1).unflatten(3, (groups, -1)).transpose(3, 4).flatten(3)
    return y.permute(0, 3, 1, 2)


def max_pool(x: torch.Tensor) -> torch.Tensor:
    """Max pooling, 3x3, stride 2, padded by 1."""
    return functional.max_pool2d(x, 3, 2, 1)


def avg_pool(x: torch.Tensor) -> torch.Tensor:
    """Average pooling, 3x3, stride 2, padded by 1; padding counts as zeros."""
    return functional.avg_pool2d(x, 3, 2, 1)


def fold(module: nn.Module) -> None:
    """Folds the running statistics of every BN into the convolution before it."""
    for each in module.modules():
        if isinstance(each, ConvNorm):
            each.conv, each.norm = fuse_conv_bn_eval(each.conv, each.norm), nn.Identity()


def sgd(module: nn.Module, *, rate: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """SGD with Nesterov momentum; as in our recipes, only kernels decay."""
    kernels = [each for each in module.parameters() if each.ndim > 1]
    others = [each for each in module.parameters() if each.ndim == 1]
    return torch.optim.SGD(
        [{"params": kernels, "weight_decay": weight_decay}, {"params": others}],
        lr=rate,
        momentum=momentum,
        nesterov=True,
    )


def _tensor(variable: nnx.Variable[Array]) -> torch.Tensor:
    return torch.tensor(np.asarray(variable[...]))
