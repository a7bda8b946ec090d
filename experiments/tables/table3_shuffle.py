"""Table 3: channel shuffle, off and on.

Claim:   Shuffle always helps, and helps more when the number of groups is large: without it the
         outputs of a group come from the inputs of that group alone, through the whole network.
Command: python -m experiments run table3
Time:    about 4 minutes on 2 cores (digits, 1 seed); 12 networks.
Expect:  Every cell below 10% error on digits. Digits is far too easy to tell the columns apart at
         one seed: it shows that everything works. For the claims train on ImageNet:
         python -m experiments run table3 --budget paper --workdir runs/table3-paper
"""

from experiments.sweep.claim import Claim, Term
from experiments.sweep.experiment import Cell
from experiments.sweep.grid import grid
from experiments.tables import paper, remarks

DIFFERENCE = ("off", "on")

_COLUMNS = {False: "off", True: "on"}


def sweep() -> tuple[Cell, ...]:
    """Three widths, two group counts, shuffle off and on."""
    widths, groups = (tuple(dict.fromkeys(each)) for each in zip(*paper.TABLE3_ERRORS, strict=True))
    return grid(
        {"network.width": widths, "network.groups": groups, "network.shuffle": (False, True)},
        name=_name,
        row=lambda width, groups, _: f"ShuffleNet {width:g}x (g={groups})",
        column=lambda width, groups, shuffle: _COLUMNS[shuffle],
        paper_error=lambda width, groups, shuffle: paper.TABLE3_ERRORS[width, groups][
            _COLUMNS[shuffle]
        ],
        paper_mflops=lambda width, *_: paper.TABLE2_MFLOPS[width],
    )


def _name(width: float, groups: int, shuffle: bool) -> str:
    return f"{width:g}x-g{groups}{'' if shuffle else '-noshuffle'}"


def _gain(width: float, groups: int, sign: float = 1.0) -> dict[Term, float]:
    """How much shuffle lowers the error."""
    return {_name(width, groups, False): sign, _name(width, groups, True): -sign}


CLAIMS = (
    Claim(
        "Channel shuffle always lowers the error.",
        tuple(_gain(width, groups) for width, groups in paper.TABLE3_ERRORS),
    ),
    Claim(
        "It lowers it more at g=8 than at g=3.",
        tuple(
            _gain(width, 8) | _gain(width, 3, -1.0)
            for width in sorted({width for width, _ in paper.TABLE3_ERRORS})
        ),
    ),
)

REMARKS = (remarks.EVEN_GROUPS_AT_A_QUARTER,)
