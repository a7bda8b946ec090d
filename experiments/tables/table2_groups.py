"""Table 2: error against the number of groups, at equal complexity.

Claim:   More than one group always beats g=1, and smaller networks gain more: at equal complexity
         groups pay for more channels, which small networks need most.
Command: python -m experiments run table2
Time:    about 5 minutes on 2 cores (digits, 1 seed); 15 networks.
Expect:  Every cell below 10% error on digits. Digits is far too easy to tell the columns apart at
         one seed: it shows that everything works. For the claims train on ImageNet:
         python -m experiments run table2 --budget paper --workdir runs/table2-paper
"""

from collections.abc import Iterator
from itertools import pairwise

from ml_collections import ConfigDict

from experiments.sweep.budgets import budget
from experiments.sweep.claim import Claim, Term
from experiments.sweep.experiment import Cell
from experiments.tables import paper, remarks


def get_config(name: str = "digits") -> ConfigDict:
    """The configuration that every cell starts from."""
    return budget(name)


def sweep() -> Iterator[Cell]:
    """Three widths, five group counts."""
    for width, errors in paper.TABLE2_ERRORS.items():
        for groups, error in errors.items():
            yield Cell(
                name=_name(width, groups),
                row=f"ShuffleNet {width:g}x",
                column=f"g={groups}",
                overrides={"network.width": width, "network.groups": groups},
                paper_error=error,
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

REMARKS = (remarks.SMALLEST_OF_8_GROUPS,)
