"""The numbers of the paper, and nothing else: arXiv 1707.01083 v2 (CVPR 2018).

Errors are top-1 errors in percent on the ImageNet-2012 validation images, single 224x224 crop.
The paper's MFLOPs are millions of multiply-adds. Models are keyed by (width, groups).
"""

TABLE1_MFLOPS = {1: 143, 2: 140, 3: 137, 4: 133, 8: 137}
"""Complexity of ShuffleNet 1x by groups, without the classifier."""

TABLE2_MFLOPS = {1.0: 140, 0.5: 38, 0.25: 13}
"""Complexity by width, as Table 2 rounds it for all group counts."""

TABLE2_ERRORS = {
    1.0: {1: 33.6, 2: 32.7, 3: 32.6, 4: 32.8, 8: 32.4},
    0.5: {1: 45.1, 2: 44.4, 3: 43.2, 4: 41.6, 8: 42.3},
    0.25: {1: 57.1, 2: 56.8, 3: 55.0, 4: 54.2, 8: 52.7},
}
"""Error by width and groups."""

TABLE3_ERRORS = {
    (1.0, 3): {"off": 34.5, "on": 32.6},
    (1.0, 8): {"off": 37.6, "on": 32.4},
    (0.5, 3): {"off": 45.7, "on": 43.2},
    (0.5, 8): {"off": 48.1, "on": 42.3},
    (0.25, 3): {"off": 56.3, "on": 55.0},
    (0.25, 8): {"off": 56.5, "on": 52.7},
}
"""Error without and with channel shuffle."""

TABLE5_MFLOPS = {(2.0, 3): 524, (1.5, 3): 292}
"""Complexity of the wider ShuffleNets, with the classifier."""


def shufflenet_mflops(groups: int, width: float) -> tuple[int, bool] | None:
    """The paper's figure for a ShuffleNet, and whether it counts the classifier; None if none."""
    if width == 1.0:
        return TABLE1_MFLOPS[groups], False
    if width in TABLE2_MFLOPS:
        return TABLE2_MFLOPS[width], False
    if (width, groups) in TABLE5_MFLOPS:
        return TABLE5_MFLOPS[width, groups], True
    return None
