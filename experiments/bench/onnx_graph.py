"""The network as an ONNX graph, which engines for inference read."""

import io

import numpy as np
import torch

from experiments.bench import inputs
from experiments.bench.torch_network import TorchNetwork, channel_shuffle
from experiments.bench.workloads import Workload
from shufflenet_jax.models.skeleton import Network

LAYOUT = "NCHW"
"""The layout of ONNX. A shuffle is one transpose there; written for NHWC it becomes three."""


def export(workload: Workload, network: Network) -> tuple[bytes, np.ndarray]:
    """Exports the PyTorch network; the engines fold BN themselves.

    Returns:
      The graph, for the workload's batch, and the images that it takes, NCHW.
    """
    nchw = images(workload)
    module = TorchNetwork(network, channel_shuffle).eval()
    graph = io.BytesIO()
    example = (torch.from_numpy(nchw),)
    torch.onnx.export(module, example, graph, dynamo=True, verbose=False, external_data=False)
    return graph.getvalue(), nchw


def images(workload: Workload) -> np.ndarray:
    """The images of a workload, NCHW."""
    return np.ascontiguousarray(inputs.batch(workload)[0].transpose(0, 3, 1, 2))
