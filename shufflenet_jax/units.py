"""The building blocks of figure 2, and of the networks that the paper compares with.

A unit is an argument of the network. Every unit is constructed as ``unit(in_channels, out_channels,
stride, rngs=rngs)``; whatever else it takes (groups, mixing) is bound by `functools.partial`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from shufflenet_jax import chwn
from shufflenet_jax.chwn.fusion import recomputed
from shufflenet_jax.errors import InputError
from shufflenet_jax.images import Images, check_maps
from shufflenet_jax.initialisation import scheme
from shufflenet_jax.layers import BatchNorm, ConvNorm, Linear, check_positive
from shufflenet_jax.ops import channel_shuffle, check_groups, no_shuffle

Mix = Callable[..., Array]


class Unit(nnx.Module):
    """A unit takes and returns NHWC; `forward` is the same function in the layout used inside.

    To add a structure of your own, subclass and write `forward` on (c, h, w, b) arrays with the
    layers of `shufflenet_jax.layers`.

    Attributes:
      recompute: Whether `apply` keeps nothing but its maps for the gradient, which then computes
        the unit once more.
    """

    recompute = False

    def __call__(self, x: Images, *, train: bool = False) -> Float[Array, "b h2 w2 c2"]:
        """Returns maps of the type of those given: float32, bfloat16 or float16.

        Raises:
          InputError: Maps of another type, or that are not (b, h, w, c) with the unit's channels.
        """
        maps = check_maps(x, None, "maps")
        return chwn.to_nhwc(self.forward(chwn.from_nhwc(maps), train=train))

    def forward(self, x: Float[Array, "c h w b"], *, train: bool) -> Float[Array, "c2 h2 w2 b"]:
        raise NotImplementedError

    def apply(self, x: Float[Array, "c h w b"], *, train: bool) -> Float[Array, "c2 h2 w2 b"]:
        """`forward` as networks call it."""
        if not (train and self.recompute):
            return self.forward(x, train=train)
        graphdef, state = nnx.split(self)

        @recomputed
        def forward(arrays: dict, x: Array) -> tuple[Array, dict]:
            unit = nnx.merge(graphdef, arrays, copy=True)
            y = unit.forward(x, train=True)
            return y, nnx.to_pure_dict(nnx.state(unit, nnx.BatchStat))

        y, batch_stats = forward(nnx.to_pure_dict(state), x)
        nnx.update(self, batch_stats)
        return y


@runtime_checkable
class UnitConstructor(Protocol):
    """What a network asks of a unit: stride 1 keeps the size of the map, stride 2 halves it.

    Some units keep the channels at stride 1, and say so when asked for others.
    """

    def __call__(
        self, in_channels: int, out_channels: int, stride: int, *, rngs: nnx.Rngs
    ) -> Unit: ...


class ShuffleUnit(Unit):
    """The ShuffleNet unit: figure 2 (b) at stride 1, figure 2 (c) at stride 2.

    1x1 group convolution, BN, ReLU; channel shuffle; 3x3 depthwise convolution, BN; 1x1 group
    convolution, BN. Then the input is added (b), or a 3x3 average pool of it is put in front (c),
    so that the branch makes only out_channels - in_channels; then ReLU.

    Args:
      in_channels, out_channels: Equal at stride 1; at stride 2 out_channels is the larger.
      stride: 1 or 2.
      groups: Groups of both 1x1 convolutions.
      first_groups: Groups of the first 1x1 convolution where they differ: 1 in the first unit of
        stage 2, whose input has few channels.
      ratio: Output channels over those of the bottleneck.
      mix: Called as ``mix(x, groups, axis=0)`` between the first two convolutions:
        `channel_shuffle`, or `no_shuffle` for the networks without.

    Raises:
      InputError: Channels that the groups, the bottleneck or the stride do not allow.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        groups: int,
        first_groups: int | None = None,
        ratio: int = 4,
        mix: Mix = channel_shuffle,
        rngs: nnx.Rngs,
    ):
        _check_concatenation(in_channels, out_channels, stride)
        check_positive(ratio=ratio)
        bottleneck = out_channels // ratio
        branch = out_channels - in_channels if stride == 2 else out_channels
        self.groups, self.stride, self.mix = groups, stride, mix
        self.reduce = ConvNorm(
            in_channels,
            bottleneck,
            groups=first_groups or groups,
            activation=jax.nn.relu,
            rngs=rngs,
        )
        check_groups(bottleneck, groups)
        self.depthwise = ConvNorm(
            bottleneck, bottleneck, 3, stride=stride, groups=bottleneck, rngs=rngs
        )
        self.expand = ConvNorm(
            bottleneck, branch, groups=groups, ends_residual=stride == 1, rngs=rngs
        )

    def forward(self, x: Float[Array, "c h w b"], *, train: bool) -> Float[Array, "c2 h2 w2 b"]:
        y = self.reduce(x, train=train)
        y = self.mix(y, self.groups, axis=0)
        y = self.depthwise(y, train=train)
        if self.stride == 1:
            return self.expand(y, train=train, shortcut=x)
        y = self.expand(y, train=train)
        return jax.nn.relu(self.joined(chwn.avg_pool(x), y))

    def joined(
        self, shortcut: Float[Array, "c h w b"], branch: Float[Array, "c2 h w b"]
    ) -> Float[Array, "c3 h w b"]:
        """What a unit of stride 2 returns, before the ReLU."""
        return jnp.concatenate([shortcut, branch])


BottleneckUnit = partial(ShuffleUnit, groups=1, mix=no_shuffle)
"""Figure 2 (a), the bottleneck with a depthwise convolution: the same unit with nothing to mix."""


class PlainUnit(Unit):
    """Two 3x3 convolutions, each with BN and ReLU: Table 4's VGG-like unit.

    Args:
      in_channels, out_channels: Any.
      stride: Of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, rngs: nnx.Rngs):
        relu = jax.nn.relu
        self.first = ConvNorm(
            in_channels, out_channels, 3, stride=stride, activation=relu, rngs=rngs
        )
        self.second = ConvNorm(out_channels, out_channels, 3, activation=relu, rngs=rngs)

    def forward(self, x: Float[Array, "c h w b"], *, train: bool) -> Float[Array, "c2 h2 w2 b"]:
        return self.second(self.first(x, train=train), train=train)


class ResidualUnit(Unit):
    """The bottleneck unit of ResNet (arXiv 1512.03385), with groups of ResNeXt (1611.05431).

    1x1 convolution, BN, ReLU; 3x3 convolution in groups, which takes the stride, BN, ReLU; 1x1
    convolution, BN; the shortcut is added; ReLU. Where the shape changes, the shortcut is a 1x1
    convolution with BN, or, if pooled, that of `ShuffleUnit`: a 3x3 average pool put in front.

    Args:
      in_channels, out_channels: Any; if pooled, equal at stride 1 and growing at stride 2.
      stride: 1 or 2.
      ratio: Output channels over those of the bottleneck: 4 in ResNet, 2 in ResNeXt.
      groups: Groups of the 3x3 convolution, ResNeXt's cardinality. A bottleneck that they do not
        divide is raised to their next multiple.
      pooled: Whether the shortcut at stride 2 is pooled and concatenated.

    Raises:
      InputError: Channels that the ratio or a pooled shortcut does not allow.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        ratio: int = 4,
        groups: int = 1,
        pooled: bool = False,
        rngs: nnx.Rngs,
    ):
        check_groups(out_channels, ratio)
        if pooled:
            _check_concatenation(in_channels, out_channels, stride)
        check_positive(groups=groups)
        bottleneck = groups * math.ceil(out_channels / ratio / groups)
        self.concatenates = pooled and stride == 2
        branch = out_channels - in_channels if self.concatenates else out_channels
        relu = jax.nn.relu
        self.reduce = ConvNorm(in_channels, bottleneck, activation=relu, rngs=rngs)
        self.spatial = ConvNorm(
            bottleneck, bottleneck, 3, stride=stride, groups=groups, activation=relu, rngs=rngs
        )
        self.expand = ConvNorm(bottleneck, branch, ends_residual=not self.concatenates, rngs=rngs)
        self.projects = not pooled and (stride, in_channels) != (1, out_channels)
        if self.projects:
            self.project = ConvNorm(in_channels, out_channels, stride=stride, rngs=rngs)

    def forward(self, x: Float[Array, "c h w b"], *, train: bool) -> Float[Array, "c2 h2 w2 b"]:
        y = self.reduce(x, train=train)
        y = self.spatial(y, train=train)
        if self.concatenates:
            y = self.expand(y, train=train)
            return jax.nn.relu(jnp.concatenate([chwn.avg_pool(x), y]))
        shortcut = self.project(x, train=train) if self.projects else x
        return self.expand(y, train=train, shortcut=shortcut)


class SqueezeExcitation(Unit):
    """Any unit, its output channels weighted by what they hold (arXiv 1709.01507).

    The mean of each channel goes through a linear layer, ReLU, a linear layer and a sigmoid; the
    whole output of the unit, shortcut included, is multiplied by the result. With a reduction of
    16 this gives the 527 million multiply-adds that Table 5 has for ShuffleNet 2x with SE.

    Args:
      in_channels, out_channels, stride: Of the unit.
      unit: Its constructor.
      reduction: Output channels over those between the linear layers.
      options: What else the unit takes.

    Raises:
      InputError: The reduction does not divide the channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        unit: Callable[..., Unit],
        reduction: int = 16,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        check_groups(out_channels, reduction)
        self.unit = unit(in_channels, out_channels, stride, rngs=rngs, **options)
        for _, module in nnx.iter_modules(self.unit):
            if isinstance(module, BatchNorm) and module.ends_residual:
                # The weights, at first about a half, are of the shortcut too: of many units that
                # start as their shortcuts, one after the other, hardly anything would be left.
                module.ends_residual = False
                module.initialise(scheme(), rngs)
        self.squeeze = Linear(out_channels, out_channels // reduction, rngs=rngs)
        self.excite = Linear(out_channels // reduction, out_channels, rngs=rngs)

    def forward(self, x: Float[Array, "c h w b"], *, train: bool) -> Float[Array, "c2 h2 w2 b"]:
        y = self.unit.forward(x, train=train)
        weights = self.excite(jax.nn.relu(self.squeeze(chwn.global_avg_pool(y).T)))
        return y * jax.nn.sigmoid(weights).T[:, None, None]


def _check_concatenation(in_channels: int, out_channels: int, stride: int) -> None:
    """Raises InputError unless a pooled shortcut allows the channels and the stride."""
    if stride not in (1, 2):
        raise InputError(f"a unit's stride is 1 or 2, not {stride}")
    if stride == 1 and in_channels != out_channels:
        raise InputError(
            f"a unit of stride 1 keeps its channels: {in_channels} in, {out_channels} out"
        )
    if stride == 2 and in_channels >= out_channels:
        raise InputError(
            f"a unit of stride 2 adds channels to its shortcut: {in_channels} in, "
            f"{out_channels} out"
        )
