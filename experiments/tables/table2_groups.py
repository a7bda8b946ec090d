"""Table 2: error against the number of groups, at equal complexity.

Claim:   More than one group always beats g=1, and smaller networks gain more: at equal complexity
         groups pay for more channels, which small networks need most.
Command: python -m experiments run table2
Time:    about 5 minutes on 2 cores (digits, 1 seed); 15 networks.
Expect:  Every cell below 10% error on digits. Digits is far too easy to tell the columns apart at
         one seed: it shows that everything works. For the claims train on ImageNet:
         python -m experiments run table2 --budget paper --workdir runs/table2-paper
"""

from itertools import pairwise

from experiments.sweep.claim import Claim, Term
from experiments.sweep.experiment import Cell
from experiments.sweep.grid import grid
from experiments.tables import paper, remarks


def sweep() -> tuple[Cell, ...]:
    """Three widths, five group counts."""
    return grid(
        {"network.width": tuple(paper.TABLE2_ERRORS), "network.groups": tuple(paper.TABLE1_MFLOPS)},
        name=_name,
        row=lambda width, _: f"ShuffleNet {width:g}x",
        column=lambda _, groups: f"g={groups}",
        paper_error=lambda width, groups: paper.TABLE2_ERRORS[width][groups],
        paper_mflops=lambda width, _: paper.TABLE2_MFLOPS[width],
    )


def _name(width: float, groups: int) -> str:
    return f"{width:g}x-g{groups}"


def _gain(width: float, sign: float = 1.0) -> dict[Term, float]:
    """How much the best number of groups lowers the error."""
    several = tuple(_name(width, groups) for groups in paper.TABLE2_ERRORS[width] if groups > 1)
    return {_name(width, 1): sign, several: -sign}


CLAIMS = (
    Claim(
        "More than one group always beats g=1.",
        tuple(
            {_name(width, 1): 1.0, _name(width, groups): -1.0}
            for width, errors in paper.TABLE2_ERRORS.items()
            for groups in errors
            if groups > 1
        ),
    ),
    Claim(
        "Smaller networks gain more from groups, each at its best g.",
        tuple(
            _gain(smaller) | _gain(larger, -1.0)
            for smaller, larger in pairwise(sorted(paper.TABLE2_ERRORS))
        ),
    ),
)

REMARKS = (remarks.EVEN_GROUPS_AT_A_QUARTER,)
