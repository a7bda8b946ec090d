"""Every network by name."""

from collections.abc import Callable
from functools import partial

from flax import nnx

from shufflenet_jax.models.shufflenet import STAGE2_CHANNELS, shufflenet

CONSTRUCTORS: dict[str, Callable[..., nnx.Module]] = {"shufflenet": shufflenet}
"""What builds a network of each family; the arguments beside num_classes and rngs differ."""

WIDTHS = (2.0, 1.5, 1.0, 0.5, 0.25)
"""The widths of the paper's networks."""


def shufflenet_name(groups: int, width: float, shuffle: bool) -> str:
    """The name of a ShuffleNet: ``shufflenet_g8_0.25x_noshuffle``."""
    return f"shufflenet_g{groups}_{width:g}x{'' if shuffle else '_noshuffle'}"


NETWORKS: dict[str, Callable[..., nnx.Module]] = {
    shufflenet_name(groups, width, shuffle): partial(
        shufflenet, groups=groups, width=width, shuffle=shuffle
    )
    for width in WIDTHS
    for groups in STAGE2_CHANNELS
    for shuffle in (True, False)
    if shuffle or groups > 1
}
"""Every single network: constructors that need only ``rngs``."""
