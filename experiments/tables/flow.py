"""Figure 1, exactly: on how many groups of its input a channel depends, with and without shuffle.

Claim:   Without shuffle a channel depends on the input channels of its own group only, however many
         units there are (figure 1 a); with it, on those of all groups (figure 1 b, c).
Command: python -m experiments run flow
Time:    seconds; nothing is trained.
Expect:  1 without shuffle. With it, all of g, but not always after one unit: an output sees as many
         groups as its own group has channels in the bottleneck, which are 3 of 8 at 0.25x g=8.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from experiments.report import markdown
from shufflenet_jax import ShuffleUnit, abstract, channel_shuffle, no_shuffle, stage_channels
from shufflenet_jax.layers import Conv, ConvNorm

UNITS = 3
"""Units of stride 1 in stages 2 and 4."""

WIDTHS = (1.0, 0.5, 0.25)
GROUPS = (2, 3, 4, 8)


def reached(unit: ShuffleUnit) -> Bool[np.ndarray, "c c"]:
    """Which input channels (second axis) each output channel of a unit of stride 1 depends on."""
    channels, bottleneck, groups = _channels(unit.expand), _channels(unit.reduce), unit.groups
    order = jnp.arange(bottleneck)
    if unit.mix is channel_shuffle:
        order = channel_shuffle(order, groups)
    mixed = np.eye(bottleneck, dtype=int)[np.asarray(order)]
    branch = _grouped(channels, bottleneck, groups) @ mixed @ _grouped(bottleneck, channels, groups)
    return (branch + np.eye(channels, dtype=int)) > 0  # with the shortcut


def _channels(layer: ConvNorm) -> int:
    """Of what a layer computes."""
    assert isinstance(layer.conv, Conv)
    return layer.conv.kernel_shape[-1]


def _grouped(outputs: int, inputs: int, groups: int) -> np.ndarray:
    """Which inputs a grouped 1x1 convolution connects to which outputs."""
    block = np.ones((outputs // groups, inputs // groups), int)
    return np.kron(np.eye(groups, dtype=int), block)


@dataclass(frozen=True)
class Reach:
    """Of how many groups of a stage its channels know.

    Attributes:
      width, groups: Of the network.
      shuffled: Whether channels are shuffled.
      bottleneck: Channels of a group between the 1x1 convolutions, in stage 2.
      fewest: Groups of the input that the least informed channel depends on, after 1 unit, 2 and
        so on.
    """

    width: float
    groups: int
    shuffled: bool
    bottleneck: int
    fewest: tuple[int, ...]


def reaches() -> Iterator[Reach]:
    """In stage 2, of every width and number of groups."""
    for width in WIDTHS:
        for groups in GROUPS:
            channels = stage_channels(groups, width)[0]
            for mix in (no_shuffle, channel_shuffle):
                unit = abstract(
                    ShuffleUnit,
                    in_channels=channels,
                    out_channels=channels,
                    stride=1,
                    groups=groups,
                    mix=mix,
                )
                once = reached(unit).astype(int)
                after = [once]
                for _ in range(UNITS - 1):
                    after.append((once @ after[-1] > 0).astype(int))
                by_group = [each.reshape(channels, groups, -1).any(-1).sum(-1) for each in after]
                yield Reach(
                    width,
                    groups,
                    mix is channel_shuffle,
                    channels // 4 // groups,
                    tuple(int(each.min()) for each in by_group),
                )


def table() -> str:
    """Groups of the input that every channel depends on at least."""
    columns = [f"after {count} unit{'s' if count > 1 else ''}" for count in range(1, UNITS + 1)]
    made = markdown.table("network", "bottleneck of a group", "without shuffle", *columns)
    found = list(reaches())
    for without, shuffled in zip(found[::2], found[1::2], strict=True):
        alone = set(without.fewest)
        assert len(alone) == 1
        made.add_row(
            f"{shuffled.width:g}x g={shuffled.groups}",
            str(shuffled.bottleneck),
            f"{alone.pop()} of {shuffled.groups}",
            *(f"{count} of {shuffled.groups}" for count in shuffled.fewest),
        )
    return (
        f"{markdown.render(made)}\n\nOn how many groups of what enters stage 2's units of stride 1 "
        f"each channel depends at least, shortcuts included; without shuffle the same after any "
        f"number of units."
    )
