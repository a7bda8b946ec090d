"""The machine and the software that a benchmark ran on."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import jax

from experiments.bench import peer_jax
from experiments.bench.peers import Peer
from experiments.sweep import provenance

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "pillow",
    "simplejpeg",
    "cykooz-resizer",
    "torch",
    "torchvision",
    "onnxruntime",
    "openvino",
    "tensorflow-cpu",
    "keras",
)
_INSTRUCTIONS = {"avx2": "AVX2", "avx512f": "AVX-512", "amx_tile": "AMX"}
"""Sets of vector instructions that decide how fast a product is, by their flags in Linux."""


def describe() -> dict:
    """What a reader needs to judge the numbers: processor, device, versions."""
    return {
        "host": platform.node(),
        "processor": processor(),
        "instructions": instructions(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "precision": str(peer_jax.precision()),
        "python": platform.python_version(),
        "versions": provenance.versions(_PACKAGES),
    }


def processor() -> str:
    """The name of the processor, and the vector instructions that it has."""
    return " with ".join(filter(None, (provenance.processor(), ", ".join(instructions()))))


def instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """The sets of vector instructions that the processor has, as Linux tells (`man proc_cpuinfo`).

    Args:
      cpuinfo: What to read; without it, or without flags in it, there are none.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return [name for flag, name in _INSTRUCTIONS.items() if flag in flags]


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
