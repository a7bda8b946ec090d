"""The machine and the software that a benchmark ran on."""

import os
import platform
from collections.abc import Sequence
from time import perf_counter

import jax

from experiments.bench import peer_jax
from experiments.bench.peers import Peer
from experiments.sweep import provenance

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "torch", "onnxruntime", "tensorflow-cpu", "keras")


def describe() -> dict:
    """What a reader needs to judge the numbers: processor, device, versions."""
    return {
        "host": platform.node(),
        "processor": provenance.processor(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "precision": str(peer_jax.precision()),
        "python": platform.python_version(),
        "versions": provenance.versions(_PACKAGES),
    }


def matmul_peak(peers: Sequence[Peer]) -> float:
    """Returns the most GFLOP/s that a large matrix product reaches here, by JAX or PyTorch."""
    multiplies = [peer_jax.matmul]
    if any(peer.module == "peer_torch" for peer in peers):
        from experiments.bench import peer_torch

        multiplies.append(peer_torch.matmul)
    size = 2048 if jax.default_backend() == "cpu" else 8192
    best = float("inf")
    for multiply in (make(size) for make in multiplies):
        for _ in range(6):
            start = perf_counter()
            multiply()
            best = min(best, perf_counter() - start)
    return 2 * size**3 / best / 1e9
