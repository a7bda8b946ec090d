"""PyTorch: the same networks as one would write them there, in channels_last memory."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from flax import nnx
from jax import Array
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from experiments.bench import inputs
from experiments.bench.peers import Prepared
from experiments.bench.workloads import Operation, Workload
from shufflenet_jax import layers
from shufflenet_jax.models.skeleton import Network
from shufflenet_jax.units import ShuffleUnit

Value = TypeVar("Value")


def prepare(workload: Workload, network: Network | None, variant: str) -> Prepared:
    """Prepares eager PyTorch, torch.compile ("compile"), or eager with BN "folded" into convs."""
    torch.set_num_threads(workload.threads)
    if isinstance(workload.subject, Operation):
        return _operation(workload.subject, workload)
    assert network is not None
    module = TorchNetwork(network).to(_device(), memory_format=torch.channels_last)
    if variant == "folded":
        fold(module.eval())
    prepare_network = _training if workload.mode == "train" else _inference
    return prepare_network(workload, module, torch.compile if variant == "compile" else _as_it_is)


def matmul(size: int) -> Callable[[], torch.Tensor]:
    """Returns what multiplies two square matrices, to measure the machine's peak."""
    device = _device()
    x = torch.ones(size, size, device=device, dtype=_PRECISION[device])
    return lambda: _finished(x @ x)


_PRECISION = {"cpu": torch.float32, "cuda": torch.bfloat16}


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _amp() -> torch.autocast:
    return torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_available())


def _finished(value: Value) -> Value:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return value


def _as_it_is(function: Callable) -> Callable:
    return function


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


class TorchUnit(nn.Module):
    """The ShuffleNet unit, with the weights of ours."""

    def __init__(self, unit: ShuffleUnit):
        super().__init__()
        self.groups, self.stride = unit.groups, unit.stride
        self.reduce = ConvNorm(unit.reduce)
        self.depthwise = ConvNorm(unit.depthwise)
        self.expand = ConvNorm(unit.expand)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = channel_shuffle(functional.relu(self.reduce(x)), self.groups)
        y = self.expand(self.depthwise(y))
        if self.stride == 1:
            return functional.relu(x + y)
        return functional.relu(torch.cat([avg_pool(x), y], dim=1))


class TorchNetwork(nn.Module):
    """The whole network, with the weights of ours."""

    def __init__(self, network: Network):
        super().__init__()
        self.stem = ConvNorm(network.conv1)
        self.max_pool = network.stem.max_pool
        units = [TorchUnit(unit) for stage in network.stages for unit in stage]
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


def channel_shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Shuffles in NHWC order, one copy; what PyTorch has leaves channels_last."""
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


def images_of(workload: Workload) -> tuple[torch.Tensor, torch.Tensor]:
    """The images, channels_last, and the labels."""
    images, labels = inputs.batch(workload)
    return _channels_last(images), torch.from_numpy(labels).long().to(_device())


def _inference(workload: Workload, module: nn.Module, compile_: Callable) -> Prepared:
    module.eval()
    images, _ = images_of(workload)
    forward = compile_(module)

    def run() -> torch.Tensor:
        with torch.inference_mode(), _amp():
            return _finished(forward(images))

    return Prepared(run, lambda logits: [logits.float().numpy(force=True)])


def _training(workload: Workload, module: nn.Module, compile_: Callable) -> Prepared:
    images, labels = images_of(workload)
    kernels = [each for each in module.parameters() if each.ndim > 1]
    others = [each for each in module.parameters() if each.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": kernels, "weight_decay": inputs.WEIGHT_DECAY}, {"params": others}],
        lr=inputs.LEARNING_RATE,
        momentum=inputs.MOMENTUM,
        nesterov=True,
    )
    forward = compile_(module)

    def run() -> torch.Tensor:
        optimizer.zero_grad()
        with _amp():
            loss = functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()
        return _finished(loss)

    return Prepared(run, lambda loss: [loss.numpy(force=True)])


def _operation(operation: Operation, workload: Workload) -> Prepared:
    given = inputs.arguments(operation, workload.batch)
    compute = _compute(operation)
    x = _channels_last(given.x)
    weights = [torch.from_numpy(each).to(_device()) for each in given.weights]
    if operation.kind == "conv":
        weights[0] = weights[0].permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)

    def forward() -> tuple[torch.Tensor, ...]:
        with torch.inference_mode(), _amp():
            return _finished((compute(x, *weights),))

    def forward_and_backward() -> tuple[torch.Tensor, ...]:
        arguments = [each.requires_grad_() for each in (x, *weights)]
        with _amp():
            y = compute(*arguments)
        return _finished((y, *torch.autograd.grad(y, arguments, y.detach())))

    def result(outputs: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
        maps = [each.permute(0, 2, 3, 1) for each in outputs[:2]]
        kernels = [each.permute(2, 3, 1, 0) if each.ndim == 4 else each for each in outputs[2:]]
        return [each.float().numpy(force=True) for each in maps + kernels]

    return Prepared(forward_and_backward if workload.mode == "train" else forward, result)


def _compute(operation: Operation) -> Callable[..., torch.Tensor]:
    def conv(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        padding = operation.kernel_size // 2
        return functional.conv2d(x, kernel, None, operation.stride, padding, 1, operation.groups)

    def norm_relu(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return functional.relu(functional.batch_norm(x, None, None, scale, bias, training=True))

    by_kind: dict[str, Callable[..., torch.Tensor]] = {
        "conv": conv,
        "norm_relu": norm_relu,
        "channel_shuffle": lambda x: channel_shuffle(x, operation.groups),
        "max_pool": max_pool,
        "avg_pool": avg_pool,
    }
    return by_kind[operation.kind]


def _channels_last(nhwc: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(nhwc).to(_device()).permute(0, 3, 1, 2)


def _tensor(variable: nnx.Variable[Array]) -> torch.Tensor:
    return torch.tensor(np.asarray(variable[...]))
