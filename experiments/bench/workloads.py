"""What is timed, as data."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Net:
    """A ShuffleNet on square images; below 64 pixels it has the stem for small images.

    Attributes:
      groups, width: As of `shufflenet`.
      image_size: Height and width of the images, in pixels.
      short: Whether stages 2 to 4 have 2, 1 and 1 units, which compile in less time.
    """

    groups: int
    width: float
    image_size: int = 224
    short: bool = False

    @property
    def small(self) -> bool:
        return self.image_size < 64

    def __str__(self) -> str:
        size = f"{self.image_size}px{', short' if self.short else ''}"
        return f"{self.width:g}x g={self.groups}, {size}"


@dataclass(frozen=True)
class Operation:
    """One operation on square feature maps.

    Attributes:
      kind: conv, channel_shuffle, max_pool, avg_pool or norm_relu (BN with the batch's own
        statistics, then ReLU). The pools are 3x3 of stride 2.
      channels: Channels of the input.
      image_size: Height and width of the input.
      groups: Groups of a convolution or a shuffle.
      out_channels, kernel_size, stride: Of a convolution.
    """

    kind: str
    channels: int
    image_size: int
    groups: int = 1
    out_channels: int = 0
    kernel_size: int = 1
    stride: int = 1

    def __str__(self) -> str:
        where = f"{self.channels} at {self.image_size}px"
        if self.kind == "channel_shuffle":
            return f"{self.kind}, {where}, g={self.groups}"
        if self.kind != "conv":
            return f"{self.kind}, {where}"
        kernel = f"{self.kernel_size}x{self.kernel_size}"
        if self.groups == self.channels:
            return f"depthwise {kernel} /{self.stride}, {where}"
        return f"conv {kernel} /{self.stride}, {self.channels}-{self.out_channels} at " + (
            f"{self.image_size}px, g={self.groups}"
        )


@dataclass(frozen=True)
class Workload:
    """One thing to time.

    Attributes:
      subject: What is computed.
      mode: infer, or train: of a network the whole step (forward, backward, SGD), of an operation
        its output and its gradients.
      batch: Images a step.
      threads: Processors, and threads of each framework.
    """

    subject: Net | Operation
    mode: str
    batch: int
    threads: int = 2

    def __str__(self) -> str:
        plural = "" if self.threads == 1 else "s"
        return f"{self.mode} {self.subject}, batch {self.batch}, {self.threads} thread{plural}"


@dataclass(frozen=True)
class Section:
    """Workloads of one table.

    Attributes:
      title: Heading of the table.
      workloads: Its rows.
      peers: The only peers that are timed, or empty for all.
      axis: What varies: batch, width, groups or image_size; empty where it is not one thing.
    """

    title: str
    workloads: Sequence[Workload]
    peers: Sequence[str] = ()
    axis: str = ""

    def value(self, workload: Workload) -> float:
        """Where a workload stands on the axis."""
        return getattr(workload if self.axis == "batch" else workload.subject, self.axis)


@dataclass(frozen=True)
class Plan:
    """A whole benchmark.

    Attributes:
      sections: The tables of times.
      costs: Workloads whose compile time and peak memory are measured.
      rounds: Turns that each peer takes at least.
      seconds: Time a workload takes at least, all peers together.
      peers: Who takes part unless others are asked for; empty for all.
    """

    sections: Sequence[Section]
    costs: Sequence[Workload]
    rounds: int
    seconds: float
    peers: Sequence[str] = ()


MODES = ("infer", "train")


def full(threads: int) -> Plan:
    """The benchmark whose results are committed."""
    nets = [Net(3, 1.0), Net(8, 1.0), Net(8, 0.25)]
    train = [Workload(net, "train", 32, threads) for net in nets]
    small = [Workload(Net(3, width, 32), "train", 128, threads) for width in (0.25, 0.5)]
    infer = [
        Workload(net, "infer", batch, count)
        for net in nets[:2]
        for batch, count in ((1, 1), (1, threads), (8, threads), (32, threads))
    ]
    return Plan(
        (
            Section("Networks: training step", train + small),
            Section("Networks: inference", list(dict.fromkeys(infer))),
            Section("Operations of 1x g=3", _operations(32, 1, threads)),
            _scaling(
                "batch",
                [Workload(Net(3, 1.0), "train", batch, threads) for batch in (1, 4, 16)],
            ),
            *(
                _scaling(axis, [Workload(net, "train", 8, threads) for net in varied])
                for axis, varied in (
                    ("width", [Net(3, width) for width in (0.25, 0.5, 1.0)]),
                    ("groups", [Net(groups, 1.0) for groups in (1, 3, 8)]),
                    ("image_size", [Net(3, 1.0, size) for size in (128, 224, 320)]),
                )
            ),
        ),
        costs=train[:1],
        rounds=5,
        seconds=4,
    )


def quick(threads: int) -> Plan:
    """A benchmark of two minutes, to see that it works here; its numbers mean little."""
    net = Net(8, 0.25, 32, short=True)
    train = Workload(net, "train", 4, threads)
    return Plan(
        (
            Section("Networks: training step", [train]),
            Section("Networks: inference", [Workload(net, "infer", 1, threads)]),
            Section("Operations of 1x g=3", _operations(2, 4, threads)[::11]),
            _scaling("batch", [Workload(net, "train", batch, threads) for batch in (4, 8)]),
        ),
        costs=[train],
        rounds=3,
        seconds=0.5,
        # torch.compile alone compiles for minutes.
        peers=("ours", "plain", "torch", "onnxruntime", "openvino", "keras"),
    )


def _operations(batch: int, shrink: int, threads: int) -> list[Workload]:
    """The operations of 1x g=3 with their sizes there, images of 1 / shrink the height."""
    operations = [
        Operation("conv", 3, 224 // shrink, 1, 24, 3, 2),
        Operation("conv", 240, 28 // shrink, 3, 60),
        Operation("conv", 60, 28 // shrink, 3, 240),
        Operation("conv", 960, 7, 3, 240),
        Operation("conv", 60, 56 // shrink, 60, 60, 3, 2),
        Operation("conv", 60, 28 // shrink, 60, 60, 3, 1),
        Operation("norm_relu", 240, 28 // shrink),
        Operation("channel_shuffle", 60, 28 // shrink, 3),
        Operation("max_pool", 24, 112 // shrink),
        Operation("avg_pool", 240, 28 // shrink),
    ]
    return [Workload(each, mode, batch, threads) for each in operations for mode in MODES]


def _scaling(axis: str, workloads: Sequence[Workload]) -> Section:
    """Workloads that differ in one thing."""
    title = f"Scaling: {axis.replace('_', ' ')}"
    return Section(title, workloads, peers=("ours", "torch"), axis=axis)
