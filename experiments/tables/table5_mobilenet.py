"""Table 5: ShuffleNet against MobileNet, at like complexity.

Claim:   ShuffleNet beats the MobileNet of like complexity at every level; squeeze-and-excitation
         makes it better still; and with half the layers it still beats MobileNet, so that depth is
         not why.
Command: python -m experiments run table5
Time:    4 minutes on 2 cores.
Expect:  Errors of 2 to 8 percent on digits, which is far too easy to tell the columns apart at
         one seed. For the claims train on ImageNet:
         python -m experiments run table5 --budget paper --workdir runs/table5-paper
"""

from collections.abc import Iterator
from typing import Any

from experiments.sweep.claim import Claim
from experiments.sweep.experiment import Cell
from experiments.tables import paper, remarks

DIFFERENCE = ("MobileNet", "ShuffleNet")


def _mobilenet(width: float) -> dict[str, Any]:
    return {"network.name": "mobilenet_v1", "network.width": width}


def _shufflenet(groups: int, width: float, name: str = "shufflenet") -> dict[str, Any]:
    return {"network.name": name, "network.width": width, "network.groups": groups}


# A row for each MobileNet: its name, and by column a network's name and configuration.
ROWS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "1.0 MobileNet-224 (569 M), ShuffleNet 2x g=3 (524 M; 527 M with SE)": {
        "MobileNet": ("mobilenet_v1_1.0", _mobilenet(1.0)),
        "ShuffleNet": ("shufflenet_g3_2x", _shufflenet(3, 2.0)),
        "with SE": ("shufflenet_g3_2x_se", _shufflenet(3, 2.0, "shufflenet_se")),
    },
    "0.75 MobileNet-224 (325 M), ShuffleNet 1.5x g=3 (292 M)": {
        "MobileNet": ("mobilenet_v1_0.75", _mobilenet(0.75)),
        "ShuffleNet": ("shufflenet_g3_1.5x", _shufflenet(3, 1.5)),
    },
    "0.5 MobileNet-224 (149 M), ShuffleNet 1x g=8 (140 M)": {
        "MobileNet": ("mobilenet_v1_0.5", _mobilenet(0.5)),
        "ShuffleNet": ("shufflenet_g8_1x", _shufflenet(8, 1.0)),
    },
    "0.25 MobileNet-224 (41 M), ShuffleNet 0.5x g=4 (38 M; g=3 40 M shallow)": {
        "MobileNet": ("mobilenet_v1_0.25", _mobilenet(0.25)),
        "ShuffleNet": ("shufflenet_g4_0.5x", _shufflenet(4, 0.5)),
        "shallow": ("shufflenet_g3_0.5x_shallow", {"network.name": "shufflenet_shallow"}),
    },
}


def sweep() -> Iterator[Cell]:
    """Four MobileNets, each with the ShuffleNets of like complexity."""
    for row, columns in ROWS.items():
        for column, (name, network) in columns.items():
            mflops, error = paper.TABLE5[name]
            yield Cell(name, row, column, network, paper_error=error, paper_mflops=mflops)


CLAIMS = (
    Claim(
        "ShuffleNet beats the MobileNet of like complexity.",
        tuple({row["MobileNet"][0]: 1.0, row["ShuffleNet"][0]: -1.0} for row in ROWS.values()),
    ),
    Claim(
        "Squeeze-and-excitation lowers the error of ShuffleNet 2x.",
        ({"shufflenet_g3_2x": 1.0, "shufflenet_g3_2x_se": -1.0},),
    ),
    Claim(
        "With half the layers it still beats MobileNet.",
        ({"mobilenet_v1_0.25": 1.0, "shufflenet_g3_0.5x_shallow": -1.0},),
    ),
)

REMARKS = (remarks.LEVEL_OF_140, remarks.SHALLOW)
