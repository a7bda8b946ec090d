"""Table 3: channel shuffle, off and on.

Claim:   Shuffle always helps, and helps more when the number of groups is large: without it the
         outputs of a group come from the inputs of that group alone, through the whole network.
Command: python -m experiments run table3
Time:    about 4 minutes on 2 cores (digits, 1 seed); 12 networks.
Expect:  Every cell below 10% error on digits. Digits is far too easy to tell the columns apart at
         one seed: it shows that everything works. For the claims train on ImageNet:
         python -m experiments run table3 --budget paper --workdir runs/table3-paper
"""

from collections.abc import Iterator, Mapping, Sequence

from ml_collections import ConfigDict

from experiments.sweep.budgets import budget
from experiments.sweep.experiment import Cell, Claim
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


def _gain(width: float, groups: int) -> dict[str, float]:
    return {_name(width, groups, False): 1.0, _name(width, groups, True): -1.0}


def _always_helps(means: Mapping[str, float]) -> Sequence[dict[str, float]]:
    del means
    return [_gain(width, groups) for width, groups in paper.TABLE3_ERRORS]


def _helps_more_at_large_g(means: Mapping[str, float]) -> Sequence[dict[str, float]]:
    del means
    widths = {width for width, _ in paper.TABLE3_ERRORS}
    negated = {width: {name: -c for name, c in _gain(width, 3).items()} for width in widths}
    return [_gain(width, 8) | negated[width] for width in sorted(widths)]


CLAIMS = (
    Claim("Channel shuffle always lowers the error.", _always_helps),
    Claim("It lowers it more at g=8 than at g=3.", _helps_more_at_large_g),
)

REMARKS = (remarks.SMALLEST_OF_8_GROUPS,)
