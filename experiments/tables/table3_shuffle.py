"""Table 3: channel shuffle, off and on.

Claim:   Shuffle always helps, and helps more when the number of groups is large: without it the
         outputs of a group come from the inputs of that group alone, through the whole network.
Command: python -m experiments run table3
Time:    about 4 minutes on 2 cores (digits, 1 seed); 12 networks.
Expect:  Every cell below 10% error on digits. Digits is far too easy to tell the columns apart at
         one seed: it shows that everything works. For the claims train on ImageNet:
         python -m experiments run table3 --budget paper --workdir runs/table3-paper
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from experiments.sweep.budgets import budget
from experiments.sweep.claim import Claim, Term
from experiments.sweep.experiment import Cell
from experiments.tables import paper, remarks

DIFFERENCE = ("off", "on")


def get_config(name: str = "digits") -> ConfigDict:
    """The configuration that every cell starts from."""
    return budget(name)


def sweep() -> Iterator[Cell]:
    """Three widths, two group counts, shuffle off and on."""
    for (width, groups), errors in paper.TABLE3_ERRORS.items():
        for column, shuffle in (("off", False), ("on", True)):
            yield Cell(
                name=_name(width, groups, shuffle),
                row=f"ShuffleNet {width:g}x (g={groups})",
                column=column,
                overrides={
                    "network.width": width,
                    "network.groups": groups,
                    "network.shuffle": shuffle,
                },
                paper_error=errors[column],
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

REMARKS = (remarks.SMALLEST_OF_8_GROUPS,)
