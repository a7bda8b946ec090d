"""What the networks are built of, on (c, h, w, b): convolution, normalisation, dropout, pooling.

Layers compute in the type of what they are given, whatever it is of float32, bfloat16 and float16,
and return it. Their parameters are float32, and so are the statistics of batch normalisation and
all that is computed of them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from shufflenet_jax import chwn
from shufflenet_jax.errors import InputError
from shufflenet_jax.initialisation import Role, Scheme, scheme
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
      role: What follows, by which a scheme draws the weights; see `Scheme`.
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
        role: Role = "plain",
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
        self.kernel_shape, self.has_bias, self.role = shape, bias, role
        self.stride = stride
        self.groups = groups
        self.padding = padding
        self.initialise(scheme(), rngs)

    def initialise(self, scheme: Scheme, rngs: nnx.Rngs) -> None:
        """Draws the weights anew."""
        shape = self.kernel_shape
        self.kernel = nnx.Param(scheme.kernel_of(self.role, rngs.params(), shape))
        self.bias = (
            nnx.Param(scheme.bias_of(self.role, rngs.params(), shape)) if self.has_bias else None
        )

    def __call__(self, x: Float[Array, "c h w b"]) -> Float[Array, "c2 h2 w2 b"]:
        kernel = self.kernel[...].astype(x.dtype)
        y = chwn.conv(x, kernel, self.stride, self.groups, self.padding)
        return y if self.bias is None else y + chwn.per_channel(self.bias[...].astype(x.dtype))


class BatchNorm(nnx.Module):
    """Batch normalisation of (c, h, w, b), by default with momentum and epsilon as in PyTorch.

    In training, batch statistics normalise and move the running ones by a tenth of the way. Maps of
    16 bits stay so.

    Args:
      channels: Of the maps.
      epsilon: Added to the variance.
      ends_residual: Whether a shortcut is added to what it returns, see `Scheme.zero_residual`.
      rngs: Source of what it starts with.

    Attributes:
      axis: Where it is set, the statistics are those of the batch over this mapped axis.
      parts: How many runs of images in the batch are each normalised by their own statistics. The
        running ones then move to their mean.
    """

    momentum = 0.9

    def __init__(
        self,
        channels: int,
        *,
        epsilon: float = 1e-5,
        ends_residual: bool = False,
        rngs: nnx.Rngs,
    ):
        self.channels = channels
        self.epsilon = epsilon
        self.ends_residual = ends_residual
        self.axis: chwn.Axis | None = None
        self.parts = 1
        self.initialise(scheme(), rngs)

    def initialise(self, scheme: Scheme, rngs: nnx.Rngs) -> None:
        """Sets scale, bias and statistics anew."""
        del rngs
        scale = 0.0 if scheme.zero_residual and self.ends_residual else 1.0
        self.scale = nnx.Param(_full(self.channels, scale))
        self.bias = nnx.Param(_full(self.channels, scheme.norm_bias))
        self.mean = nnx.BatchStat(_full(self.channels, 0.0))
        self.var = nnx.BatchStat(_full(self.channels, 1.0))

    def __call__(
        self,
        x: Float[Array, "c h w b"],
        *,
        use_running_average: bool,
        shortcut: Float[Array, "c h w b"] | None = None,
    ) -> Float[Array, "c h w b"]:
        """With a shortcut: relu(shortcut + the normalised maps)."""
        scale, bias = self.scale[...], self.bias[...]
        if use_running_average:
            gain = lax.rsqrt(self.var[...] + self.epsilon) * scale
            centred = x.astype(jnp.float32) - chwn.per_channel(self.mean[...])
            y = (centred * chwn.per_channel(gain) + chwn.per_channel(bias)).astype(x.dtype)
            return y if shortcut is None else chwn.add_relu(shortcut, y)
        if self.parts == 1:
            y, mean, var = chwn.batch_norm(x, scale, bias, self.epsilon, self.axis, shortcut)
        else:
            y, mean, var = self._of_parts(x, shortcut)
        # An assignment to [...] would ask for shardings, for which JAX searches the whole trace.
        self.mean.set_value(self.momentum * self.mean[...] + (1 - self.momentum) * mean)
        self.var.set_value(self.momentum * self.var[...] + (1 - self.momentum) * var)
        return y

    def _of_parts(
        self, x: Float[Array, "c h w b"], shortcut: Float[Array, "c h w b"] | None
    ) -> tuple[Float[Array, "c h w b"], Float[Array, " c"], Float[Array, " c"]]:
        """As `chwn.batch_norm` of each part, with the means of their statistics."""

        def norm(*maps: Array) -> tuple[Array, Array, Array]:
            first, *rest = maps
            return chwn.batch_norm(
                first, self.scale[...], self.bias[...], self.epsilon, self.axis, *rest
            )

        split = (*x.shape[:-1], self.parts, x.shape[-1] // self.parts)
        maps = [each.reshape(split) for each in (x, shortcut) if each is not None]
        y, mean, var = jax.vmap(norm, in_axes=-2, out_axes=(-2, 0, 0))(*maps)
        return y.reshape(x.shape), mean.mean(0), var.mean(0)


class ConvNorm(nnx.Module):
    """A convolution with its batch normalisation, one box of figure 2, on (c, h, w, b).

    `shufflenet_jax.fold` makes the normalisation part of the convolution.

    Args:
      in_channels, out_channels, kernel_size, stride, groups, padding, bias: Of the convolution; see
        `Conv`.
      activation: What follows, if anything.
      epsilon: Of the normalisation.
      ends_residual: Whether it ends a residual branch, to which a shortcut is added.
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
        ends_residual: bool = False,
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
            role="normalised",
            rngs=rngs,
        )
        self.norm: nnx.Module = BatchNorm(
            out_channels, epsilon=epsilon, ends_residual=ends_residual, rngs=rngs
        )
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


class Linear(nnx.Module):
    """A linear layer on (b, features).

    Raises:
      InputError: There are no features.
    """

    def __init__(
        self, in_features: int, out_features: int, *, role: Role = "plain", rngs: nnx.Rngs
    ):
        check_positive(in_features=in_features, out_features=out_features)
        self.kernel_shape, self.role = (in_features, out_features), role
        self.initialise(scheme(), rngs)

    def initialise(self, scheme: Scheme, rngs: nnx.Rngs) -> None:
        """Draws the weights anew."""
        shape = self.kernel_shape
        self.kernel = nnx.Param(scheme.kernel_of(self.role, rngs.params(), shape))
        self.bias = nnx.Param(scheme.bias_of(self.role, rngs.params(), shape))

    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
        kernel, bias = (each[...].astype(x.dtype) for each in (self.kernel, self.bias))
        return x @ kernel + bias[None]


class Classifier(Linear):
    """The last linear layer: logits are float32, and so is what they are computed in.

    What it computes counts as the head of a network; see `shufflenet_jax.complexity`.
    """

    def __init__(self, in_features: int, num_classes: int, *, rngs: nnx.Rngs):
        check_positive(num_classes=num_classes)
        super().__init__(in_features, num_classes, role="classifier", rngs=rngs)

    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b classes"]:
        with jax.named_scope("head"):
            return super().__call__(x.astype(jnp.float32))


def _full(channels: int, value: float) -> Float[Array, " c"]:
    """Equal values; of NumPy, as XLA would compile a program for every number of channels."""
    return jax.device_put(np.full(channels, value, np.float32))


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
