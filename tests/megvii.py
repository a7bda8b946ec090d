"""ShuffleNet V1 as the authors' lab builds it for PyTorch, out of what is known of it.

Written from the facts: names of modules, the shuffle behind the depthwise convolution and its
order, the order of the concatenation, the classifier without bias. The stem may be another, as
forks for small images have it, and the first unit without a stride.
"""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
nn = pytest.importorskip("torch.nn")
functional = pytest.importorskip("torch.nn.functional")

CHANNELS = {
    3: {0.5: (12, 120), 1.0: (24, 240), 1.5: (24, 360), 2.0: (48, 480)},
    8: {0.5: (16, 192), 1.0: (24, 384), 1.5: (24, 576), 2.0: (48, 768)},
}
"""Channels of conv1 and of stage 2, by groups and width; each later stage doubles them."""


def shuffle(x, groups):
    """(n, g) transposed to (g, n)."""
    return x.unflatten(1, (-1, groups)).transpose(1, 2).flatten(1, 2)


class Unit(nn.Module):
    def __init__(self, inputs, outputs, stride, groups, first_groups):
        super().__init__()
        inside, branch = outputs // 4, outputs - inputs if stride == 2 else outputs
        self.groups, self.stride = groups, stride
        self.branch_main_1 = nn.Sequential(
            nn.Conv2d(inputs, inside, 1, groups=first_groups, bias=False),
            nn.BatchNorm2d(inside),
            nn.ReLU(),
            nn.Conv2d(inside, inside, 3, stride, 1, groups=inside, bias=False),
            nn.BatchNorm2d(inside),
        )
        self.branch_main_2 = nn.Sequential(
            nn.Conv2d(inside, branch, 1, groups=groups, bias=False), nn.BatchNorm2d(branch)
        )

    def forward(self, x):
        y = self.branch_main_2(shuffle(self.branch_main_1(x), self.groups))
        if self.stride == 1:
            return functional.relu(x + y)
        return torch.cat((functional.avg_pool2d(x, 3, 2, 1), functional.relu(y)), 1)


class ShuffleNetV1(nn.Module):
    def __init__(
        self, groups, width, num_classes=1000, *, repeats=(4, 8, 4), stem=(2, True), stride=2
    ):
        super().__init__()
        conv1, stage2 = CHANNELS[groups][width]
        if stride == 1:
            conv1 = stage2
        stem_stride, self.has_pool = stem
        self.first_conv = nn.Sequential(
            nn.Conv2d(3, conv1, 3, stem_stride, 1, bias=False), nn.BatchNorm2d(conv1), nn.ReLU()
        )
        units, inputs = [], conv1
        for stage, repeat in enumerate(repeats):
            outputs = stage2 * 2**stage
            for index in range(repeat):
                step = 1 if index else (stride if stage == 0 else 2)
                units.append(Unit(inputs, outputs, step, groups, groups if units else 1))
                inputs = outputs
        self.features = nn.Sequential(*units)
        self.classifier = nn.Sequential(nn.Linear(inputs, num_classes, bias=False))

    def forward(self, x):
        """Takes BGR, from 0 to 255."""
        x = self.first_conv(x)
        if self.has_pool:
            x = functional.max_pool2d(x, 3, 2, 1)
        return self.classifier(self.features(x).mean((2, 3)))
