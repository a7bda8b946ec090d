"""ONNX Runtime, given the PyTorch network by export."""

import onnxruntime

from experiments.bench import onnx_graph
from experiments.bench.peers import Forms, Prepared
from experiments.bench.workloads import Workload
from shufflenet_jax.models.skeleton import Network


def forms(workload: Workload, network: Network | None, variant: str) -> Forms:
    """A session with all graph optimisations, BN folding among them."""
    del variant
    assert network is not None
    return {onnx_graph.LAYOUT: lambda: _session(workload, network)}


def _session(workload: Workload, network: Network) -> Prepared:
    graph, images = onnx_graph.export(workload, network)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = workload.threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images}
    return Prepared(lambda: session.run(None, feed), lambda logits: logits)
