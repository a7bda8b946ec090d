"""Convolution and batch normalisation as the networks use them inside, on (c, h, w, b)."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from shufflenet_jax import chwn
from shufflenet_jax.ops import check_groups


class Conv(nnx.Module):
    """A convolution without bias on (c, h, w, b), padded by (k - 1) / 2 on each side.

    Each group sees its share of the input channels, so g groups have g times fewer weights:

    >>> Conv(12, 6, 3, rngs=nnx.Rngs(0)).kernel.size
    648
    >>> Conv(12, 6, 3, groups=3, rngs=nnx.Rngs(0)).kernel.size
    216

    Raises:
      InputError: groups does not divide the channels; both numbers are named.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        rngs: nnx.Rngs,
    ):
        check_groups(in_channels, groups)
        check_groups(out_channels, groups)
        shape = (kernel_size, kernel_size, in_channels // groups, out_channels)
        self.kernel = nnx.Param(he_normal(rngs.params(), shape))
        self.stride = stride
        self.groups = groups

    def __call__(self, x: Float[Array, "c h w b"]) -> Float[Array, "c2 h2 w2 b"]:
        return chwn.conv(x, self.kernel[...].astype(x.dtype), self.stride, self.groups)


def he_normal(key: Array, shape: tuple[int, int, int, int]) -> Float[Array, "k k i o"]:
    """Draws a kernel as He et al. (arXiv 1502.01852): normal, variance 2 / (k k i).

    The paper does not say how its networks are initialised.
    """
    size = math.prod(shape)
    # XLA compiles a program for every size it draws, which would take most of the time that it
    # takes to construct a network: draw runs of one size, and cut.
    runs = [_normal_run(jax.random.fold_in(key, i)) for i in range(math.ceil(size / _RUN))]
    return _scale(runs, shape)


_RUN = 2**16


@jax.jit
def _normal_run(key: Array) -> Array:
    return jax.random.normal(key, (_RUN,))


@partial(jax.jit, static_argnums=1)
def _scale(runs: list[Array], shape: tuple[int, int, int, int]) -> Array:
    drawn = jnp.concatenate(runs)[: math.prod(shape)].reshape(shape)
    return drawn * math.sqrt(2 / math.prod(shape[:-1]))


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation of (c, h, w, b), with momentum 0.9 and epsilon 1e-5 as in PyTorch.

    As `nnx.BatchNorm`, but for the gradient of training, which `chwn.batch_norm` writes out.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        super().__init__(channels, axis=0, momentum=0.9, epsilon=1e-5, rngs=rngs)

    def __call__(
        self, x: Float[Array, "c h w b"], *, use_running_average: bool
    ) -> Float[Array, "c h w b"]:
        if use_running_average:
            return super().__call__(x, use_running_average=True)
        y, mean, var = chwn.batch_norm(x, self.scale[...], self.bias[...], self.epsilon)
        self.mean[...] = self.momentum * self.mean[...] + (1 - self.momentum) * mean
        self.var[...] = self.momentum * self.var[...] + (1 - self.momentum) * var
        return y
