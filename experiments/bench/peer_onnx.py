"""ONNX Runtime, given the PyTorch network by export."""

import io

import onnxruntime
import torch

from experiments.bench.peer_torch import TorchNetwork, images_of
from experiments.bench.peers import Prepared
from experiments.bench.workloads import Workload
from shufflenet_jax.models.skeleton import Network


def prepare(workload: Workload, network: Network | None, variant: str) -> Prepared:
    """Exports the network and opens a session with all graph optimisations, BN folding among."""
    del variant
    assert network is not None
    module = TorchNetwork(network).eval()
    images = images_of(workload)[0].cpu().contiguous()
    model = io.BytesIO()
    torch.onnx.export(module, (images,), model, dynamo=True, verbose=False, external_data=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = workload.threads
    session = onnxruntime.InferenceSession(
        model.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    feed = {session.get_inputs()[0].name: images.numpy()}
    return Prepared(lambda: session.run(None, feed), lambda logits: logits)
