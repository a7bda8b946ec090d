"""The building blocks of figure 2.

A unit is an argument of the network. Every unit is constructed as ``unit(in_channels, out_channels,
stride, rngs=rngs)``; whatever else it takes (groups, mixing) is bound by `functools.partial`.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from shufflenet_jax import chwn
from shufflenet_jax.errors import InputError
from shufflenet_jax.layers import BatchNorm, Conv
from shufflenet_jax.ops import channel_shuffle, check_groups, no_shuffle

Mix = Callable[..., Array]


class Unit(nnx.Module):
    """A unit takes and returns NHWC; `forward` is the same function in the layout used inside.

    To add a structure of your own, subclass and write `forward` on (c, h, w, b) arrays with the
    layers of `shufflenet_jax.layers`.
    """

    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool = False
    ) -> Float[Array, "b h2 w2 c2"]:
        return chwn.to_nhwc(self.forward(chwn.from_nhwc(x), train=train))

    def forward(self, x: Float[Array, "c h w b"], *, train: bool) -> Float[Array, "c2 h2 w2 b"]:
        raise NotImplementedError


@runtime_checkable
class UnitConstructor(Protocol):
    """What a network asks of a unit: stride 1 keeps the channels, stride 2 halves the map."""

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
      mix: Called as ``mix(x, groups, axis=0)`` between the first two convolutions:
        `channel_shuffle`, or `no_shuffle` for the networks without.

    Raises:
      InputError: Channels that the groups, the 1:4 bottleneck or the stride do not allow.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        groups: int,
        first_groups: int | None = None,
        mix: Mix = channel_shuffle,
        rngs: nnx.Rngs,
    ):
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
        bottleneck = out_channels // 4
        branch = out_channels - in_channels if stride == 2 else out_channels
        self.groups, self.stride, self.mix = groups, stride, mix
        self.reduce = Conv(in_channels, bottleneck, groups=first_groups or groups, rngs=rngs)
        self.reduce_norm = BatchNorm(bottleneck, rngs=rngs)
        check_groups(bottleneck, groups)
        self.depthwise = Conv(
            bottleneck, bottleneck, 3, stride=stride, groups=bottleneck, rngs=rngs
        )
        self.depthwise_norm = BatchNorm(bottleneck, rngs=rngs)
        self.expand = Conv(bottleneck, branch, groups=groups, rngs=rngs)
        self.expand_norm = BatchNorm(branch, rngs=rngs)

    def forward(self, x: Float[Array, "c h w b"], *, train: bool) -> Float[Array, "c2 h2 w2 b"]:
        frozen = not train
        y = jax.nn.relu(self.reduce_norm(self.reduce(x), use_running_average=frozen))
        y = self.mix(y, self.groups, axis=0)
        y = self.depthwise_norm(self.depthwise(y), use_running_average=frozen)
        y = self.expand_norm(self.expand(y), use_running_average=frozen)
        if self.stride == 1:
            return chwn.add_relu(x, y)
        return jax.nn.relu(jnp.concatenate([chwn.avg_pool(x), y]))


BottleneckUnit = partial(ShuffleUnit, groups=1, mix=no_shuffle)
"""Figure 2 (a), the bottleneck with a depthwise convolution: the same unit with nothing to mix."""
