"""The numbers of the paper, and nothing else: arXiv 1707.01083 v2 (CVPR 2018).

Errors are top-1 errors in percent on the ImageNet-2012 validation images, single 224x224 crop.
The paper's MFLOPs are millions of multiply-adds. Models are keyed by (width, groups)
where nothing else is said.
"""

TABLE1_SIZES = {"stem": 56, "stage2": 28, "stage3": 14, "stage4": 7}
"""Height and width of the output of conv1 with its max pool, and of each stage."""

TABLE1_CHANNELS = {
    1: (24, 144, 288, 576),
    2: (24, 200, 400, 800),
    3: (24, 240, 480, 960),
    4: (24, 272, 544, 1088),
    8: (24, 384, 768, 1536),
}
"""Output channels of the same, by groups."""

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

TABLE4_ERRORS = {
    140: {
        "vgg_like": 50.7,
        "resnet": 37.3,
        "xception_like": 33.6,
        "resnext": 33.3,
        "shufflenet": 32.4,
    },
    38: {"resnet": 48.8, "xception_like": 45.1, "resnext": 46.0, "shufflenet": 41.6},
    13: {"resnet": 63.7, "xception_like": 57.1, "resnext": 65.2, "shufflenet": 52.7},
}
"""Error by MFLOPs and structure; the paper has none for VGG-like at 38 and 13."""

TABLE4_SHUFFLENETS = {140: (1.0, 8), 38: (0.5, 4), 13: (0.25, 8)}
"""Which ShuffleNet stands in each row."""

TABLE4_STAGE4_CHANNELS = {
    "vgg_like": 50,
    "resnet": 192,
    "xception_like": 288,
    "resnext": 192,
    "shufflenet": 576,
}
"""Output channels of stage 4 at 38 MFLOPs, as the text beside Table 4 gives them."""

TABLE5 = {
    "mobilenet_v1_1.0": (569, 29.4),
    "shufflenet_g3_2x": (524, 26.3),
    "shufflenet_g3_2x_se": (527, 24.7),
    "mobilenet_v1_0.75": (325, 31.6),
    "shufflenet_g3_1.5x": (292, 28.5),
    "mobilenet_v1_0.5": (149, 36.3),
    "shufflenet_g8_1x": (140, 32.4),
    "mobilenet_v1_0.25": (41, 49.4),
    "shufflenet_g4_0.5x": (38, 41.6),
    "shufflenet_g3_0.5x_shallow": (40, 42.8),
}
"""MFLOPs, with the classifier (but 140 is the level of Table 2), and error, by name in the zoo."""

TABLE6 = {
    "vgg16": (15300, 28.5),
    "shufflenet_g3_2x": (524, 26.3),
    "googlenet": (1500, 31.3),
    "shufflenet_g8_1x": (140, 32.4),
    "alexnet": (720, 42.8),
    "squeezenet": (833, 42.5),
    "shufflenet_g4_0.5x": (38, 41.6),
}
"""MFLOPs and error by name in the zoo, classic networks before the ShuffleNet of like error."""

TABLE8_SIZES = ((224, 224), (480, 640), (720, 1280))
"""Height and width of the images."""

TABLE8_MILLISECONDS = {
    "shufflenet_g3_0.5x": (15.2, 87.4, 260.1),
    "shufflenet_g3_1x": (37.8, 222.2, 684.5),
    "shufflenet_g3_2x": (108.8, 617.0, 1857.6),
    "alexnet": (184.0, 1156.7, 3633.9),
    "mobilenet_v1_1.0": (110.0, 612.0, 1879.2),
}
"""Time of one image at each size, by name in the zoo: one core of a Snapdragon 820."""


def shufflenet_mflops(groups: int, width: float) -> tuple[int, bool] | None:
    """Table 1's or 2's figure, and whether it counts the classifier; None if there is none."""
    if width == 1.0:
        return TABLE1_MFLOPS[groups], False
    if width in TABLE2_MFLOPS:
        return TABLE2_MFLOPS[width], False
    return None
