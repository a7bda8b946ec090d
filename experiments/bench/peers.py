"""Who is timed: ours, the plain form, and other frameworks."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from experiments.bench.workloads import Net, Workload
from shufflenet_jax.errors import InputError
from shufflenet_jax.models.skeleton import Network


@dataclass(frozen=True)
class Prepared:
    """One workload, ready to be timed.

    Attributes:
      run: Does it once, to completion, and returns what came of it as the framework has it.
      result: Takes that to arrays that all peers agree on: an operation's output and gradients
        (NHWC, kernels as HWIO), a network's logits, or the loss of a training step.
    """

    run: Callable[[], Any]
    result: Callable[[Any], list[np.ndarray]]


Forms = Mapping[str, Callable[[], Prepared]]
"""The forms in which a framework's own users would write a workload: what prepares each, by name.

The one that is fastest where the benchmark runs is measured.
"""


@dataclass(frozen=True)
class Peer:
    """One way to compute the workloads.

    Attributes:
      name: As `--peers` and the tables know it.
      module: The file of this package that prepares it.
      variant: Which of the module's ways.
      requires: Packages that it imports beyond the project's own.
      does: The workloads it can do: infer and train of networks, and operations.
    """

    name: str
    module: str
    variant: str = ""
    requires: tuple[str, ...] = ()
    does: tuple[str, ...] = ("infer", "train", "operations")

    def can(self, workload: Workload) -> bool:
        """Whether it does workloads of this kind."""
        kind = workload.mode if isinstance(workload.subject, Net) else "operations"
        return kind in self.does

    def missing(self) -> str | None:
        """What is not installed, in words, or None."""
        absent = [name for name in self.requires if not importlib.util.find_spec(name)]
        if not absent:
            return None
        return f"{', '.join(absent)} not installed: pip install -e '.[bench]'"

    def load(self) -> ModuleType:
        """Imports what the peer needs."""
        return importlib.import_module(f"experiments.bench.{self.module}")

    def forms(self, workload: Workload, network: Network | None) -> Forms:
        """The forms of a workload; of a network with copies of the weights of the one given."""
        return self.load().forms(workload, network, self.variant)


_TORCH = ("torch",)
_ONNX = ("torch", "onnxscript")

PEERS = {
    peer.name: peer
    for peer in (
        Peer("ours", "peer_jax"),
        Peer("plain", "peer_jax", "plain"),
        Peer("torch", "peer_torch", "eager", _TORCH),
        Peer("torch.compile", "peer_torch", "compile", _TORCH, ("infer", "train")),
        Peer("onnxruntime", "peer_onnx", "", (*_ONNX, "onnxruntime"), ("infer",)),
        Peer("openvino", "peer_openvino", "", (*_ONNX, "openvino"), ("infer",)),
        Peer("keras", "peer_keras", "", ("tensorflow", "keras"), ("infer", "train")),
    )
}
"""Every peer by name; ours is what the others are held against."""


def choose(names: Sequence[str]) -> list[Peer]:
    """Returns the peers of these names, ours first.

    Raises:
      InputError: There is none of that name.
    """
    for name in names:
        if name not in PEERS:
            raise InputError(f"unknown peer {name!r}; there are {', '.join(PEERS)}")
    return [peer for name, peer in PEERS.items() if name == "ours" or name in names]
