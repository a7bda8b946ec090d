"""A trained network made ready for inference: batch normalisation folded into the convolutions."""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from shufflenet_jax.layers import Conv, per_channel


class Shift(nnx.Module):
    """What is left of a folded batch normalisation: a bias for each channel of (c, h, w, b)."""

    def __init__(self, bias: Float[Array, " c"]):
        self.bias = nnx.Param(bias)

    def __call__(
        self, x: Float[Array, "c h w b"], *, use_running_average: bool
    ) -> Float[Array, "c h w b"]:
        del use_running_average
        return x + per_channel(self.bias[...].astype(x.dtype))


def fold(network: nnx.Module) -> nnx.Module:
    """Returns a copy of a network that computes the same in evaluation, with fewer operations.

    With running mean m and variance v, BN after a convolution with kernel k is the convolution
    with k s and the bias b - m s, where s = scale / sqrt(v + epsilon); a bias that the convolution
    has becomes s times as large.

    Args:
      network: One in which the BN that follows a convolution ``NAME`` is called ``NAME_norm``, as
        in every network of this library. The copy is for evaluation only.
    """
    folded = nnx.clone(network)
    for _, module in list(nnx.iter_modules(folded)):
        for name, norm in list(vars(module).items()):
            if isinstance(norm, nnx.BatchNorm):
                conv: Conv = getattr(module, name.removesuffix("_norm"))
                scale = norm.scale[...] * lax.rsqrt(norm.var[...] + norm.epsilon)
                conv.kernel[...] = conv.kernel[...] * jnp.reshape(scale, (1, 1, 1, -1))
                if conv.bias is not None:
                    conv.bias[...] = conv.bias[...] * scale
                setattr(module, name, Shift(norm.bias[...] - norm.mean[...] * scale))
    return folded
