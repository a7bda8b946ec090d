"""Section 3.2: what a unit costs in ResNet, ResNeXt and ShuffleNet.

Claim:   Given c channels in and out, a bottleneck of m and a map of h x w, ShuffleNet's unit needs
         hw(2cm/g + 9m) multiply-adds where ResNet's needs hw(2cm + 9m^2) and ResNeXt's
         hw(2cm + 9m^2/g): for the same cost it affords wider maps.
Command: python -m experiments run unit_cost
Time:    seconds; nothing is trained.
Expect:  The counts of the units that the networks are built of equal the formulas.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from experiments.report import markdown
from shufflenet_jax import ResidualUnit, ShuffleUnit, Unit, abstract, complexity

SIZE = 28
"""Height and width of the map: that of stage 2."""

GRID = tuple(product((192, 384), (4, 2), (1, 2, 3, 4, 8)))
"""Channels, their ratio to the bottleneck, and groups."""


@dataclass(frozen=True)
class Kind:
    """A unit that section 3.2 compares.

    Attributes:
      formula: Multiply-adds per pixel, given channels c, bottleneck m and groups g.
      build: The unit of stride 1, given c, ratio, g and rngs.
    """

    formula: Callable[[int, int, int], int]
    build: Callable[..., Unit]


KINDS = {
    "ResNet": Kind(
        lambda c, m, g: 2 * c * m + 9 * m**2,
        lambda c, ratio, g, rngs: ResidualUnit(c, c, 1, ratio=ratio, rngs=rngs),
    ),
    "ResNeXt": Kind(
        lambda c, m, g: 2 * c * m + 9 * m**2 // g,
        lambda c, ratio, g, rngs: ResidualUnit(c, c, 1, ratio=ratio, groups=g, rngs=rngs),
    ),
    "ShuffleNet": Kind(
        lambda c, m, g: 2 * c * m // g + 9 * m,
        lambda c, ratio, g, rngs: ShuffleUnit(c, c, 1, ratio=ratio, groups=g, rngs=rngs),
    ),
}


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one unit: by its formula, and counted."""

    kind: str
    channels: int
    bottleneck: int
    groups: int
    formula: int
    counted: int


def costs() -> Iterator[Cost]:
    """Every unit at every point of the grid."""
    for (channels, ratio, groups), (name, kind) in product(GRID, KINDS.items()):
        bottleneck = channels // ratio
        formula = SIZE**2 * kind.formula(channels, bottleneck, groups)
        unit = abstract(kind.build, c=channels, ratio=ratio, g=groups)
        counted = complexity(unit, (SIZE, SIZE, channels)).macs
        yield Cost(name, channels, bottleneck, groups, formula, counted)


def table() -> str:
    """The formulas, each beside the count."""
    headings = [f"{name}, {what}" for name in KINDS for what in ("formula", "counted")]
    made = markdown.table("channels c", "bottleneck m", "groups g", *headings)
    found = list(costs())
    for start in range(0, len(found), len(KINDS)):
        row = found[start : start + len(KINDS)]
        point = (row[0].channels, row[0].bottleneck, row[0].groups)
        counts = [f"{number:,}" for cost in row for number in (cost.formula, cost.counted)]
        made.add_row(*map(str, point), *counts)
    equal = sum(cost.formula == cost.counted for cost in found)
    return (
        f"{markdown.render(made)}\n\nMultiply-adds of one unit of stride 1 on a map of "
        f"{SIZE}x{SIZE}. {equal} of {len(found)} counts equal their formula."
    )
