"""Table 6: classic networks, and the ShuffleNet of like error.

Claim:   ShuffleNet has the error of classic networks at a fraction of their multiply-adds: 2x g=3
         at a 29th of VGG-16's, 1x g=8 at an 11th of GoogLeNet's, 0.5x g=4 at a 19th of AlexNet's
         and a 22nd of SqueezeNet's.
Command: python -m experiments run table6
Time:    11 minutes on 2 cores.
Expect:  Errors of 0 to 4 percent on digits, and 10 for SqueezeNet, which without batch
         normalisation has not learned all after 10 epochs. Digits is far too easy to tell the
         others apart at one seed. For the claims train on ImageNet:
         python -m experiments run table6 --budget paper --workdir runs/table6-paper

The classic networks halve their maps five times and more: on budgets with images smaller than 32x32
all cells see 32x32, and AlexNet and SqueezeNet scale what is below 64x64 up to that. Networks that
have no batch normalisation have a smaller learning rate and clipped gradients, without which VGG-16
does not learn.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from experiments.sweep.budgets import budget
from experiments.sweep.claim import Claim
from experiments.sweep.experiment import Cell
from experiments.tables import paper, remarks

LEAST_SIZE = 32
"""Height and width of the images on budgets that have smaller ones."""

_NO_NORM = {"recipe.learning_rate": 0.01, "recipe.clip_norm": 1.0}
_LARGE_WINDOWS = {**_NO_NORM, "network.upscale_to": 64}


def _shufflenet(groups: int, width: float) -> dict[str, Any]:
    return {"network.name": "shufflenet", "network.width": width, "network.groups": groups}


# What stands in the table, and the configuration, by name in the zoo.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "vgg16": ("VGG-16", {"network.name": "vgg16", **_NO_NORM}),
    "shufflenet_g3_2x": ("ShuffleNet 2x (g=3)", _shufflenet(3, 2.0)),
    "googlenet": ("GoogLeNet", {"network.name": "googlenet"}),
    "shufflenet_g8_1x": ("ShuffleNet 1x (g=8)", _shufflenet(8, 1.0)),
    "alexnet": ("AlexNet", {"network.name": "alexnet", **_LARGE_WINDOWS}),
    "squeezenet": ("SqueezeNet", {"network.name": "squeezenet", **_LARGE_WINDOWS}),
    "shufflenet_g4_0.5x": ("ShuffleNet 0.5x (g=4)", _shufflenet(4, 0.5)),
}


def get_config(name: str = "digits") -> ConfigDict:
    """The configuration that every cell starts from: a budget's, with images large enough."""
    config = budget(name)
    preprocessing = config.recipe.preprocessing
    preprocessing.image_size = max(preprocessing.image_size, LEAST_SIZE)
    return config


def sweep() -> Iterator[Cell]:
    """Each classic network, or two, before the ShuffleNet of like error."""
    for name, (label, overrides) in NETWORKS.items():
        mflops, error = paper.TABLE6[name]
        yield Cell(
            name=name,
            row=f"{label}, {mflops:,} M",
            column="error",
            overrides=overrides,
            paper_error=error,
            paper_mflops=mflops,
        )


CLAIMS = (
    Claim(
        "ShuffleNet 2x (g=3) has a lower error than VGG-16.",
        ({"vgg16": 1.0, "shufflenet_g3_2x": -1.0},),
    ),
    Claim(
        "ShuffleNet 0.5x (g=4) has a lower error than AlexNet and SqueezeNet.",
        (
            {"alexnet": 1.0, "shufflenet_g4_0.5x": -1.0},
            {"squeezenet": 1.0, "shufflenet_g4_0.5x": -1.0},
        ),
    ),
)

REMARKS = (remarks.CLASSIC_NETWORKS, remarks.LEVEL_OF_140)
