"""ShuffleNet as other code builds it, where the difference is more than the order of weights.

Between groups, other code shuffles and concatenates in other orders. Mostly that is the same
network under permuted weights (`shufflenet_jax.porting`), but not always:

* **Shuffle.** The authors' code for PyTorch transposes (n, g) to (g, n), which undoes our shuffle.
  Where g divides n, both lead as many channels from each group to each, and which they are is a
  matter of order. Elsewhere they may not: with 8 groups of 12, ours leads one or two channels of a
  group to every group, the other three to every second group.
* **Concatenation.** pytorchcv puts the branch first and the pooled shortcut last. The groups of the
  next unit then see other channels together.
"""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Shaped

from shufflenet_jax.layers import check_positive
from shufflenet_jax.models.shufflenet import stage_channels, stem_channels
from shufflenet_jax.models.skeleton import IMAGENET_STEM, REPEATS, Network, Stem
from shufflenet_jax.ops import channel_shuffle
from shufflenet_jax.units import ShuffleUnit


class PortedUnit(ShuffleUnit):
    """The ShuffleNet unit with the orders of other code.

    Args:
      in_channels, out_channels, stride, groups, first_groups: See `ShuffleUnit`.
      inverse_shuffle: Transpose (n, g) to (g, n).
      branch_first: Put the pooled shortcut behind the branch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        groups: int,
        first_groups: int | None = None,
        inverse_shuffle: bool = False,
        branch_first: bool = False,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_channels,
            out_channels,
            stride,
            groups=groups,
            first_groups=first_groups,
            mix=unshuffle if inverse_shuffle else channel_shuffle,
            rngs=rngs,
        )
        self.branch_first = branch_first

    def joined(
        self, shortcut: Float[Array, "c h w b"], branch: Float[Array, "c2 h w b"]
    ) -> Float[Array, "c3 h w b"]:
        return jnp.concatenate([branch, shortcut] if self.branch_first else [shortcut, branch])


def unshuffle(x: Shaped[Array, "..."], groups: int, axis: int = -1) -> Shaped[Array, "..."]:
    """Undoes `channel_shuffle`: (n, g) transposed to (g, n)."""
    return channel_shuffle(x, x.shape[axis] // groups, axis)


def shufflenet_ported(
    *,
    groups: int = 3,
    channels: Sequence[int] = stage_channels(groups=3, width=1.0),
    conv1_channels: int = stem_channels(width=1.0),
    repeats: Sequence[int] = REPEATS,
    strides: Sequence[int] = (2, 2, 2),
    inverse_shuffle: bool = False,
    branch_first: bool = False,
    stem: Stem = IMAGENET_STEM,
    num_classes: int = 1000,
    rngs: nnx.Rngs,
) -> Network:
    """ShuffleNet in the numbers and the orders of other code.

    Args:
      groups: Groups of the 1x1 convolutions but the very first.
      channels: Output channels of each stage.
      conv1_channels: Output channels of conv1.
      repeats: Units in each stage.
      strides: Of the first unit of each stage; one of stride 1 keeps its channels.
      inverse_shuffle, branch_first: See `PortedUnit`.
      stem: What stands before stage 2.
      num_classes: Outputs of the classifier.
      rngs: Source of the initial weights.

    Raises:
      InputError: Channels that do not divide into the groups, or numbers that no network has.
    """
    check_positive(groups=groups)
    unit = partial(
        PortedUnit, groups=groups, inverse_shuffle=inverse_shuffle, branch_first=branch_first
    )
    return Network(
        unit,
        first_unit=partial(unit, first_groups=1),
        channels=channels,
        repeats=repeats,
        strides=strides,
        conv1_channels=conv1_channels,
        stem=stem,
        num_classes=num_classes,
        rngs=rngs,
    )
