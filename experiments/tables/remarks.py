"""What reports say of networks that are not quite the paper's: ours, in brackets the paper's."""

EVEN_GROUPS_AT_A_QUARTER = (
    "At 0.25x the networks cost 13.2, 12.7, 13.3, 13.0 and 12.4 [13] million multiply-adds at "
    "224x224 with g = 1, 2, 3, 4 and 8, classifier included. For that conv1 has 8 channels where g "
    "is even. With the 12 that it has else, raised to 16 for g = 8, these would cost 14.2, 14.6 "
    "and 15.7."
)

STAGE_4_CHANNELS = (
    "Output channels of stage 4 at 38 MFLOPs: VGG-like 50 [50], ResNet 192 [192], Xception-like "
    "288 [288], ResNeXt 176 [192], ShuffleNet 544 [576]. For 192 ResNeXt has 48 in stage 2, half "
    "of which, its bottleneck, does not divide into 16 groups; raised to 32 it makes the network "
    "cost 40.8 million multiply-adds, so that 176 are nearer to 38. ShuffleNet has 576 with "
    "--config.network.rounding=double, for 40.1 million; by default it costs 37.4."
)

LEVEL_OF_140 = (
    "ShuffleNet 1x g=8 costs 138.4 [140] million multiply-adds. 140 is the level of 1x, the same "
    "for every number of groups; Table 1 has 137 for this network, without the classifier."
)

SHALLOW = (
    "The paper does not give the channels of the shallow network. With half the units 0.5x costs "
    "22 million multiply-adds; ours is wider, 168/336/672, and costs 39.8 [40]."
)

CLASSIC_NETWORKS = (
    "Millions of multiply-adds at 224x224: VGG-16 15,470 [15,300], GoogLeNet 1,498 [1,500], "
    "AlexNet 724 [720], SqueezeNet 819 [833]. The paper's figure for VGG-16 is that of its "
    "convolutions, 15,347, without the three linear layers. SqueezeNet costs 833 at 227x227, the "
    "size that its authors' code has. GoogLeNet is in torchvision's form; as published it costs "
    "1,583."
)
