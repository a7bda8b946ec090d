"""Table 4: other structures at the complexity of ShuffleNet.

Claim:   In the skeleton of Table 1 and at the same complexity, ShuffleNet's unit beats those of
         VGG, ResNet, Xception and ResNeXt, because it affords more channels.
Command: python -m experiments run table4
Time:    3 minutes 30 seconds on 2 cores.
Expect:  Errors of 0 to 4 percent on digits, but for VGG-like, whose 32 convolutions in a row
         without shortcuts have not learned all after 10 epochs (28 percent). Digits is far
         too easy to tell the others apart at one seed. For the claims train on ImageNet:
         python -m experiments run table4 --budget paper --workdir runs/table4-paper
"""

from collections.abc import Iterator
from typing import Any

from experiments.sweep.claim import Claim
from experiments.sweep.experiment import Cell
from experiments.tables import paper, remarks
from shufflenet_jax.zoo import shufflenet_name

COLUMNS = {
    "vgg_like": "VGG-like",
    "resnet": "ResNet",
    "xception_like": "Xception-like",
    "resnext": "ResNeXt",
    "shufflenet": "ShuffleNet",
}


def sweep() -> Iterator[Cell]:
    """Three budgets; each structure that the paper has an error of there."""
    for mflops, errors in paper.TABLE4_ERRORS.items():
        for structure, error in errors.items():
            yield Cell(
                name=_name(structure, mflops),
                row=f"{mflops} MFLOPs",
                column=COLUMNS[structure],
                overrides=_network(structure, mflops),
                paper_error=error,
                paper_mflops=mflops,
            )


def _name(structure: str, mflops: int) -> str:
    if structure != "shufflenet":
        return f"{structure}_{mflops}m"
    width, groups = paper.TABLE4_SHUFFLENETS[mflops]
    return shufflenet_name(groups, width, shuffle=True)


def _network(structure: str, mflops: int) -> dict[str, Any]:
    if structure != "shufflenet":
        return {"network.name": structure, "network.mflops": mflops}
    width, groups = paper.TABLE4_SHUFFLENETS[mflops]
    return {"network.name": structure, "network.width": width, "network.groups": groups}


CLAIMS = (
    Claim(
        "ShuffleNet beats every other structure at every complexity.",
        tuple(
            {_name(structure, mflops): 1.0, _name("shufflenet", mflops): -1.0}
            for mflops, errors in paper.TABLE4_ERRORS.items()
            for structure in errors
            if structure != "shufflenet"
        ),
    ),
)

REMARKS = (remarks.STAGE_4_CHANNELS, remarks.EVEN_GROUPS_AT_A_QUARTER)
