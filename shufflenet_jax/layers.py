"""What the networks are built of, on (c, h, w, b): convolution, normalisation, dropout, pooling.

Layers compute in the type of what they are given, whatever it is of float32, bfloat16 and float16,
and return it. Their parameters are float32, and so are the statistics of batch normalisation and
all that is computed of them.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from shufflenet_jax import chwn
from shufflenet_jax.errors import InputError
from shufflenet_jax.ops import check_groups

Activation = Callable[[Array], Array]


class Conv(nnx.Module):
    """A convolution on (c, h, w, b).

    Each group sees its share of the input channels, so g groups have g times fewer weights:

    >>> Conv(12, 6, 3, rngs=nnx.Rngs(0)).kernel.size
    648
    >>> Conv(12, 6, 3, groups=3, rngs=nnx.Rngs(0)).kernel.size
    216

    Args:
      in_channels, out_channels: Of the maps.
      kernel_size: Height and width of the kernel.
      stride: Step in both directions.
      groups: Number of groups.
      padding: Zeros on each side; by default (k - 1) / 2.
      bias: Whether a bias is added to each channel. Convolutions before BN need none.
      rngs: Source of the initial weights.

    Raises:
      InputError: groups does not divide the channels; both numbers are named. There are no
        channels, or no kernel or stride of the size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        padding: int | None = None,
        bias: bool = False,
        rngs: nnx.Rngs,
    ):
        check_positive(
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernel_size,
            stride=stride,
        )
        check_groups(in_channels, groups)
        check_groups(out_channels, groups)
        shape = (kernel_size, kernel_size, in_channels // groups, out_channels)
        self.kernel = nnx.Param(he_normal(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(out_channels)) if bias else None
        self.stride = stride
        self.groups = groups
        self.padding = padding

    def __call__(self, x: Float[Array, "c h w b"]) -> Float[Array, "c2 h2 w2 b"]:
        kernel = self.kernel[...].astype(x.dtype)
        y = chwn.conv(x, kernel, self.stride, self.groups, self.padding)
        return y if self.bias is None else y + chwn.per_channel(self.bias[...].astype(x.dtype))


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
    """Batch normalisation of (c, h, w, b), by default with momentum and epsilon as in PyTorch.

    As `nnx.BatchNorm`, but for the gradient of training, which `chwn.batch_norm` writes out, for
    maps of 16 bits, which stay so, and for a shortcut: with one, it returns relu(shortcut + the
    normalised maps). Where the attribute ``axis_name`` is set, the statistics are
    those of the batch over a mapped axis.
    """

    scale: nnx.Param[Array]
    bias: nnx.Param[Array]

    def __init__(self, channels: int, *, epsilon: float = 1e-5, rngs: nnx.Rngs):
        super().__init__(channels, axis=0, momentum=0.9, epsilon=epsilon, rngs=rngs)

    # Of the options of nnx it has one, which has to be given.
    def __call__(  # type: ignore[override]
        self,
        x: Float[Array, "c h w b"],
        *,
        use_running_average: bool,
        shortcut: Float[Array, "c h w b"] | None = None,
    ) -> Float[Array, "c h w b"]:
        scale, bias = self.scale[...], self.bias[...]
        if use_running_average:
            gain = lax.rsqrt(self.var[...] + self.epsilon) * scale
            centred = x.astype(jnp.float32) - chwn.per_channel(self.mean[...])
            y = (centred * chwn.per_channel(gain) + chwn.per_channel(bias)).astype(x.dtype)
            return y if shortcut is None else chwn.add_relu(shortcut, y)
        y, mean, var = chwn.batch_norm(x, scale, bias, self.epsilon, self.axis_name, shortcut)
        # An assignment to [...] would ask for shardings, for which JAX searches the whole trace.
        self.mean.set_value(self.momentum * self.mean[...] + (1 - self.momentum) * mean)
        self.var.set_value(self.momentum * self.var[...] + (1 - self.momentum) * var)
        return y


class ConvNorm(nnx.Module):
    """A convolution with its batch normalisation, one box of figure 2, on (c, h, w, b).

    `shufflenet_jax.fold` makes the normalisation part of the convolution.

    Args:
      in_channels, out_channels, kernel_size, stride, groups, padding, bias: Of the convolution; see
        `Conv`.
      activation: What follows, if anything.
      epsilon: Of the normalisation.
      rngs: Source of the initial weights.

    Raises:
      InputError: See `Conv`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        padding: int | None = None,
        bias: bool = False,
        activation: Activation | None = None,
        epsilon: float = 1e-5,
        rngs: nnx.Rngs,
    ):
        self.conv: nnx.Module = Conv(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            groups=groups,
            padding=padding,
            bias=bias,
            rngs=rngs,
        )
        self.norm: nnx.Module = BatchNorm(out_channels, epsilon=epsilon, rngs=rngs)
        self.activation = activation

    def __call__(
        self,
        x: Float[Array, "c h w b"],
        *,
        train: bool,
        shortcut: Float[Array, "c2 h2 w2 b"] | None = None,
    ) -> Float[Array, "c2 h2 w2 b"]:
        """With a shortcut: relu(shortcut + what is normalised), the end of a residual unit."""
        y = self.norm(self.conv(x), use_running_average=not train, shortcut=shortcut)
        return self.activation(y) if self.activation else y


_LECUN_NORMAL = nnx.initializers.lecun_normal()


class Linear(nnx.Linear):
    """A linear layer on (b, features), by default initialised as `nnx.Linear` is."""

    kernel: nnx.Param[Array]
    bias: nnx.Param[Array]

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        kernel_init: nnx.Initializer = _LECUN_NORMAL,
        rngs: nnx.Rngs,
    ):
        check_positive(in_features=in_features, out_features=out_features)
        super().__init__(in_features, out_features, kernel_init=kernel_init, rngs=rngs)

    # Without the options of nnx.
    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:  # type: ignore[override]
        kernel, bias = (each[...].astype(x.dtype) for each in (self.kernel, self.bias))
        return x @ kernel + bias[None]


def linear_before_relu(in_features: int, out_features: int, *, rngs: nnx.Rngs) -> Linear:
    """A linear layer, initialised for a ReLU that follows (He et al., arXiv 1502.01852)."""
    he_normal = nnx.initializers.he_normal()
    return Linear(in_features, out_features, kernel_init=he_normal, rngs=rngs)


class Classifier(Linear):
    """The last linear layer: logits are float32, and so is what they are computed in.

    What it computes counts as the head of a network; see `shufflenet_jax.complexity`.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        kernel_init: nnx.Initializer = _LECUN_NORMAL,
        rngs: nnx.Rngs,
    ):
        check_positive(num_classes=num_classes)
        super().__init__(in_features, num_classes, kernel_init=kernel_init, rngs=rngs)

    def __call__(  # type: ignore[override]  # as of `Linear`
        self, x: Float[Array, "b i"]
    ) -> Float[Array, "b classes"]:
        with jax.named_scope("head"):
            return super().__call__(x.astype(jnp.float32))


def flatten(x: Float[Array, "c h w b"]) -> Float[Array, "b chw"]:
    """Feature maps as vectors, channel by channel, for a linear layer."""
    return x.reshape(-1, x.shape[-1]).T


def dropout(x: Float[Array, "..."], rate: float, key: Array | None) -> Float[Array, "..."]:
    """Zeroes a share of the values and scales the others up (arXiv 1207.0580); x without a key."""
    if key is None:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)


def local_response_norm(x: Float[Array, "c h w b"]) -> Float[Array, "c h w b"]:
    """Divides by what the five channels around hold (AlexNet, section 3.3).

    x / (2 + 1e-4 s)^0.75, s the sum of the squares of the channel itself and of two on each side.
    """
    near, channels = 2, x.shape[0]
    wide = x.astype(jnp.float32)  # in which no square of 16 bits is infinite
    squares = lax.pad(wide * wide, jnp.float32(0), ((near, near, 0), *[(0, 0, 0)] * 3))
    summed = sum(squares[i : i + channels] for i in range(2 * near + 1))
    root = lax.rsqrt(2 + 1e-4 * summed)
    # A power of 0.75 would take longer than the convolutions.
    return (wide * root * jnp.sqrt(root)).astype(x.dtype)


def adaptive_avg_pool(x: Float[Array, "c h w b"], size: int) -> Float[Array, "c s s b"]:
    """Averages maps of any size to size x size, as PyTorch's AdaptiveAvgPool2d does.

    Part i of an axis of n reaches from i n / size, rounded down, to (i + 1) n / size, rounded up.
    What has the size already stays as it is.
    """
    for axis in (1, 2):
        length = x.shape[axis]
        if length != size:
            bounds = [(i * length // size, -((i + 1) * -length // size)) for i in range(size)]
            parts = [lax.slice_in_dim(x, *each, axis=axis).mean(axis) for each in bounds]
            x = jnp.stack(parts, axis)
    return x


def check_positive(**sizes: int) -> None:
    """Raises InputError, naming it, if one of some sizes is less than 1."""
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{name} must be at least 1, not {size}")
