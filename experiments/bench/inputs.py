"""The weights and data that every peer gets, the same in every process."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.bench.workloads import Net, Operation, Workload
from shufflenet_jax.cost import complexity
from shufflenet_jax.layers import BatchNorm, Conv, ConvNorm
from shufflenet_jax.models.shufflenet import shufflenet
from shufflenet_jax.models.skeleton import IMAGENET_STEM, REPEATS, SMALL_STEM, Network

# Small, because rounding flips the sign in front of some ReLU now and then: the gradients of two
# correct peers can differ by a percent, and the losses that follow must still agree.
LEARNING_RATE = 2e-4
"""SGD of every training step, with Nesterov momentum and an L2 penalty on the kernels."""

MOMENTUM = 0.9
WEIGHT_DECAY = 4e-5


def network(net: Net) -> Network:
    """Builds a network with random weights, BN scales and shifts, and running statistics.

    With the initial ones of BN, a peer that mixed them up would still give the right logits. All
    are NumPy's, because every process builds the network, and to compile JAX's takes seconds.
    """
    made = nnx.eval_shape(lambda: _initial(net))
    random = np.random.default_rng(0)
    for path, variable in nnx.iter_graph(made):
        if not isinstance(variable, nnx.Variable):
            continue
        shape = variable.get_value().shape
        if path[-1] == "kernel":
            values = random.standard_normal(shape) * math.sqrt(2 / math.prod(shape[:-1]))
        else:
            values = random.uniform(*_RANGES[str(path[-1])], shape)
        variable.set_value(jnp.asarray(values, jnp.float32))
    return made


_RANGES = {"scale": (0.5, 1.0), "bias": (-0.5, 0.5), "mean": (-0.5, 0.5), "var": (0.5, 1.5)}


def network_of(workload: Workload) -> Network | None:
    """The network of a workload; an operation has none."""
    return network(workload.subject) if isinstance(workload.subject, Net) else None


def _initial(net: Net) -> Network:
    return shufflenet(
        groups=net.groups,
        width=net.width,
        repeats=(2, 1, 1) if net.short else REPEATS,
        stem=SMALL_STEM if net.small else IMAGENET_STEM,
        num_classes=10 if net.small else 1000,
        rngs=nnx.Rngs(0),
    )


def macs(workload: Workload) -> int:
    """Multiply-adds of convolutions and linear layers in one step; a backward pass has two each."""
    subject = workload.subject
    if isinstance(subject, Net):
        network = nnx.eval_shape(lambda: _initial(subject))
        of_image = complexity(network, (subject.image_size, subject.image_size, 3)).macs
    else:
        positions = math.ceil(subject.image_size / subject.stride) ** 2
        filter_size = subject.kernel_size**2 * subject.channels // subject.groups
        of_image = positions * filter_size * subject.out_channels
    return of_image * workload.batch * (3 if workload.mode == "train" else 1)


def batch(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Normalised float32 images, NHWC, and int32 labels, for a network."""
    random = np.random.default_rng(1)
    size = workload.subject.image_size
    images = random.standard_normal((workload.batch, size, size, 3), np.float32)
    return images, random.integers(10, size=workload.batch, dtype=np.int32)


@dataclass(frozen=True)
class Arguments:
    """What an operation takes, float32.

    Attributes:
      x: Feature maps, NHWC.
      weights: The kernel of a convolution, HWIO; scale and shift of BN; empty for others.
    """

    x: np.ndarray
    weights: tuple[np.ndarray, ...]


def arguments(operation: Operation, batch: int) -> Arguments:
    """The arguments of an operation."""
    random = np.random.default_rng(2)
    shape = (batch, operation.image_size, operation.image_size, operation.channels)
    of_weights: dict[str, list[tuple[int, ...]]] = {
        "conv": [
            (
                operation.kernel_size,
                operation.kernel_size,
                operation.channels // operation.groups,
                operation.out_channels,
            )
        ],
        "norm_relu": [(operation.channels,), (operation.channels,)],
    }
    shapes = [shape, *of_weights.get(operation.kind, [])]
    x, *weights = (random.standard_normal(each, np.float32) for each in shapes)
    return Arguments(x, tuple(weights))


def parts(box: ConvNorm) -> tuple[Conv, BatchNorm]:
    """The convolution and the normalisation of a box that is not folded."""
    assert isinstance(box.conv, Conv)
    assert isinstance(box.norm, BatchNorm)
    return box.conv, box.norm
