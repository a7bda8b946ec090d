"""PyTorch, eager and compiled, in the layouts and with the shuffles that its users choose from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from experiments.bench import inputs, torch_network
from experiments.bench.peers import Forms, Prepared
from experiments.bench.torch_network import Shuffle, TorchNetwork
from experiments.bench.workloads import Operation, Workload
from shufflenet_jax.models.skeleton import Network

Value = TypeVar("Value")


@dataclass(frozen=True)
class _Form:
    """How the network is written, and how it is run.

    Attributes:
      memory_format: Of the images, and so of all maps.
      shuffle: What shuffles channels.
      folded: Whether BN is folded into the convolutions, for inference.
      options: Of `torch.compile`; None is eager.
    """

    memory_format: torch.memory_format
    shuffle: Shuffle
    folded: bool = False
    options: dict[str, Any] | None = None


def forms(workload: Workload, network: Network | None, variant: str) -> Forms:
    """Eager PyTorch, or with the variant "compile" what `torch.compile` makes of it."""
    torch.set_num_threads(workload.threads)
    if isinstance(workload.subject, Operation):
        return _forms_of_operation(workload.subject, workload)
    assert network is not None
    named = (_compiled if variant == "compile" else _eager)(workload.mode)
    return {name: partial(_network, workload, network, form) for name, form in named.items()}


_LAYOUTS = {
    "channels_last, NHWC shuffle": (torch.channels_last, torch_network.channel_shuffle_nhwc),
    "channels_last": (torch.channels_last, torch_network.channel_shuffle),
    "channels_last, torch.channel_shuffle": (torch.channels_last, torch.channel_shuffle),
    "NCHW": (torch.contiguous_format, torch_network.channel_shuffle),
}
"""Memory format and shuffle. Where none is named it is view, transpose, reshape."""


def _eager(mode: str) -> dict[str, _Form]:
    plain = {name: _Form(*layout) for name, layout in _LAYOUTS.items()}
    if mode == "train":
        return plain
    folded = {f"{name}, BN folded": _Form(*layout, True) for name, layout in _LAYOUTS.items()}
    return folded | plain


def _compiled(mode: str) -> dict[str, _Form]:
    # One layout, because a form compiles for up to a minute. Of 1x g=3 at inference (batch 1 and 8)
    # and 0.5x g=3 in training (batch 4, one thread) none was faster: the plain shuffle took as long
    # or up to 4% longer, NCHW 4 to 8% longer.
    name, layout = next(iter(_LAYOUTS.items()))
    if mode == "train":
        return {name: _Form(*layout, options={})}
    # Freezing makes constants of the weights: BN is folded, and kernels are stored as oneDNN likes
    # them. With a wrapper in C++ 1x g=3 was no faster at batch 1, the only one tried.
    frozen = {"freezing": True}
    return {
        f"{name}, frozen": _Form(*layout, options=frozen),
        f"{name}, frozen, max-autotune": _Form(*layout, options=frozen | {"max_autotune": True}),
    }


def _network(workload: Workload, network: Network, form: _Form) -> Prepared:
    module: nn.Module = TorchNetwork(network, form.shuffle)
    if form.folded:
        torch_network.fold(module.eval())
    module = module.to(_device(), memory_format=form.memory_format)
    forward = module if form.options is None else torch.compile(module, options=form.options)
    images, labels = inputs.batch(workload)
    maps = _maps(images, form.memory_format)
    if workload.mode == "infer":
        module.eval()
        return _inference(forward, maps)
    return _training(module, forward, maps, torch.from_numpy(labels).long().to(_device()))


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


def _inference(forward: Callable, images: torch.Tensor) -> Prepared:
    def run() -> torch.Tensor:
        with torch.inference_mode(), _amp():
            return _finished(forward(images))

    return Prepared(run, lambda logits: [logits.float().numpy(force=True)])


def _training(
    module: nn.Module, forward: Callable, images: torch.Tensor, labels: torch.Tensor
) -> Prepared:
    optimizer = torch_network.sgd(
        module,
        rate=inputs.LEARNING_RATE,
        momentum=inputs.MOMENTUM,
        weight_decay=inputs.WEIGHT_DECAY,
    )

    def run() -> torch.Tensor:
        optimizer.zero_grad()
        with _amp():
            loss = functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()
        return _finished(loss)

    return Prepared(run, lambda loss: [loss.numpy(force=True)])


def _forms_of_operation(operation: Operation, workload: Workload) -> Forms:
    layouts = {
        name: layout
        for name, layout in _LAYOUTS.items()
        # Of layouts that differ in the shuffle alone, one is enough for the others.
        if operation.kind == "channel_shuffle" or name in ("channels_last", "NCHW")
    }
    return {
        name: partial(_operation, operation, workload, *layout) for name, layout in layouts.items()
    }


def _operation(
    operation: Operation, workload: Workload, memory_format: torch.memory_format, shuffle: Shuffle
) -> Prepared:
    given = inputs.arguments(operation, workload.batch)
    compute = _compute(operation, shuffle)
    x = _maps(given.x, memory_format)
    weights = [torch.from_numpy(each).to(_device()) for each in given.weights]
    if operation.kind == "conv":
        weights[0] = weights[0].permute(3, 2, 0, 1).contiguous(memory_format=memory_format)

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


def _compute(operation: Operation, shuffle: Shuffle) -> Callable[..., torch.Tensor]:
    def conv(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        padding = operation.kernel_size // 2
        return functional.conv2d(x, kernel, None, operation.stride, padding, 1, operation.groups)

    def norm_relu(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return functional.relu(functional.batch_norm(x, None, None, scale, bias, training=True))

    by_kind: dict[str, Callable[..., torch.Tensor]] = {
        "conv": conv,
        "norm_relu": norm_relu,
        "channel_shuffle": lambda x: shuffle(x, operation.groups),
        "max_pool": torch_network.max_pool,
        "avg_pool": torch_network.avg_pool,
    }
    return by_kind[operation.kind]


def _maps(nhwc: np.ndarray, memory_format: torch.memory_format) -> torch.Tensor:
    maps = torch.from_numpy(nhwc).to(_device()).permute(0, 3, 1, 2)
    return maps.contiguous(memory_format=memory_format)
