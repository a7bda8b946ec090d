"""A trained network made ready for inference: batch normalisation folded into the convolutions."""

from functools import partial
from typing import TypeVar

import jax
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from shufflenet_jax import chwn
from shufflenet_jax.errors import InputError
from shufflenet_jax.layers import BatchNorm, Conv, ConvNorm

Module = TypeVar("Module", bound=nnx.Module)


class Pointwise(nnx.Module):
    """A folded 1x1 convolution of (c, h, w, b); its weights need no reordering any more."""

    def __init__(self, weights: Float[Array, "g o2 i"]):
        self.weights = nnx.Param(weights)

    def __call__(self, x: Float[Array, "c h w b"]) -> Float[Array, "o h w b"]:
        return chwn.pointwise(x, self.weights[...].astype(x.dtype))


class Shift(nnx.Module):
    """What is left of a folded batch normalisation: a bias for each channel of (c, h, w, b)."""

    def __init__(self, bias: Float[Array, " c"]):
        self.bias = nnx.Param(bias)

    def __call__(
        self,
        x: Float[Array, "c h w b"],
        *,
        use_running_average: bool,
        shortcut: Float[Array, "c h w b"] | None = None,
    ) -> Float[Array, "c h w b"]:
        if not use_running_average:
            raise InputError("a folded network is for evaluation only: train the one it is made of")
        y = x + chwn.per_channel(self.bias[...].astype(x.dtype))
        return y if shortcut is None else chwn.add_relu(shortcut, y)


def fold(network: Module) -> Module:
    """Returns a copy of a network that computes the same in evaluation, with fewer operations.

    With running mean m and variance v, BN after a convolution with kernel k is the convolution
    with k s and the bias b + (a - m) s, where s = scale / sqrt(v + epsilon) and a is the bias that
    the convolution had.

    Args:
      network: Any module. Every `shufflenet_jax.layers.ConvNorm` in it is folded, wherever it
        stands; batch normalisation apart from one stays what it is. The copy is for evaluation
        only.
    """
    folded = nnx.clone(network)
    for _, module in list(nnx.iter_modules(folded)):
        if isinstance(module, ConvNorm):
            conv, norm = module.conv, module.norm
            if isinstance(conv, Conv) and isinstance(norm, BatchNorm):  # not if it is folded
                module.conv, module.norm = _folded(conv, norm)
    return folded


def _folded(conv: Conv, norm: BatchNorm) -> tuple[nnx.Module, Shift]:
    """A convolution that scales, and what is then added."""
    kernel, shift = folded_kernel(conv, norm)
    if kernel.shape[:2] == (1, 1) and conv.stride == 1 and not conv.padding:
        return Pointwise(chwn.by_group(kernel, conv.groups)), Shift(shift)
    conv.kernel[...], conv.bias = kernel, None
    return conv, Shift(shift)


def folded_kernel(
    conv: Conv, norm: BatchNorm
) -> tuple[Float[Array, "k k i o"], Float[Array, " o"]]:
    """The kernel and the bias of a convolution that does what both do; see `fold`."""
    bias = None if conv.bias is None else conv.bias[...]
    values = (norm.scale[...], norm.bias[...], norm.mean[...], norm.var[...])
    return _scaled(conv.kernel[...], bias, *values, epsilon=norm.epsilon)


@partial(jax.jit, static_argnames="epsilon")
def _scaled(
    kernel: Float[Array, "k k i o"],
    bias: Float[Array, " o"] | None,
    norm_scale: Float[Array, " o"],
    norm_bias: Float[Array, " o"],
    mean: Float[Array, " o"],
    var: Float[Array, " o"],
    *,
    epsilon: float,
) -> tuple[Float[Array, "k k i o"], Float[Array, " o"]]:
    """The kernel and the bias of the folded convolution: one program for each shape."""
    scale = norm_scale * lax.rsqrt(var + epsilon)
    before = -mean if bias is None else bias - mean
    return kernel * scale.reshape(1, 1, 1, -1), norm_bias + before * scale
