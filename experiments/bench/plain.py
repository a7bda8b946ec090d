"""The network as one would write it at first in Flax: NHWC, nnx.Conv, nnx.BatchNorm, lax pools."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from experiments.bench import inputs
from shufflenet_jax.layers import BatchNorm, Conv, ConvNorm
from shufflenet_jax.models.skeleton import Network
from shufflenet_jax.ops import channel_shuffle
from shufflenet_jax.units import ShuffleUnit


class PlainNetwork(nnx.Module):
    """Computes what the network given does, with its weights."""

    def __init__(self, network: Network):
        self.max_pool = network.stem.max_pool
        self.conv1, self.conv1_norm = _conv_norm(network.conv1)
        units = [_PlainUnit(unit) for stage in network.stages for unit in stage]
        self.units = nnx.List(units)
        self.classifier = network.classifier

    def __call__(self, images: Float[Array, "b h w 3"], *, train: bool) -> Float[Array, "b n"]:
        x = jax.nn.relu(self.conv1_norm(self.conv1(images), use_running_average=not train))
        if self.max_pool:
            x = max_pool(x)
        for unit in self.units:
            x = unit(x, train)
        return self.classifier(jnp.mean(x, axis=(1, 2)))


class _PlainUnit(nnx.Module):
    def __init__(self, unit: ShuffleUnit):
        self.groups, self.stride = unit.groups, unit.stride
        self.reduce, self.reduce_norm = _conv_norm(unit.reduce)
        self.depthwise, self.depthwise_norm = _conv_norm(unit.depthwise)
        self.expand, self.expand_norm = _conv_norm(unit.expand)

    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 c2"]:
        frozen = not train
        y = jax.nn.relu(self.reduce_norm(self.reduce(x), use_running_average=frozen))
        y = channel_shuffle(y, self.groups)
        y = self.depthwise_norm(self.depthwise(y), use_running_average=frozen)
        y = self.expand_norm(self.expand(y), use_running_average=frozen)
        if self.stride == 1:
            return jax.nn.relu(x + y)
        return jax.nn.relu(jnp.concatenate([avg_pool(x), y], axis=-1))


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Max pooling, 3x3, stride 2, padded by 1."""
    # An array of JAX's own would be traced, and the maximum then has no gradient.
    return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, *_WINDOW)


def avg_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Average pooling, 3x3, stride 2, padded by 1; padding counts as zeros."""
    return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, *_WINDOW) / 9


_WINDOW = ((1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))


def conv(x: Float[Array, "b h w i"], kernel: Array, stride: int, groups: int) -> Array:
    """Convolves, padded by (k - 1) / 2, as `nnx.Conv` does."""
    padding = [(kernel.shape[0] // 2, kernel.shape[0] // 2)] * 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _conv_norm(box: ConvNorm) -> tuple[nnx.Conv, nnx.BatchNorm]:
    conv, norm = inputs.parts(box)
    return _conv(conv), _batch_norm(norm)


def _conv(conv: Conv) -> nnx.Conv:
    size, _, in_channels, out_channels = conv.kernel.shape
    return nnx.Conv(
        in_channels * conv.groups,
        out_channels,
        (size, size),
        strides=conv.stride,
        padding=size // 2,
        feature_group_count=conv.groups,
        use_bias=False,
        kernel_init=lambda *_: conv.kernel[...],
        rngs=nnx.Rngs(0),
    )


def _batch_norm(norm: BatchNorm) -> nnx.BatchNorm:
    made = nnx.BatchNorm(norm.channels, momentum=0.9, epsilon=1e-5, rngs=nnx.Rngs(0))
    for name in ("scale", "bias", "mean", "var"):
        getattr(made, name)[...] = getattr(norm, name)[...]
    return made
