"""ONNX Runtime, given the PyTorch network by export, and the graph that this library writes."""

import numpy as np
import onnxruntime

from experiments.bench import onnx_graph
from experiments.bench.peers import Forms, Prepared
from experiments.bench.workloads import Net, Workload
from shufflenet_jax.data import Preprocessing
from shufflenet_jax.models.skeleton import Network
from shufflenet_jax.runtimes.onnx_graph import graph
from shufflenet_jax.trained import Trained


def forms(workload: Workload, network: Network | None, variant: str) -> Forms:
    """Sessions with all graph optimisations, BN folding among them."""
    del variant
    assert network is not None
    return {
        onnx_graph.LAYOUT: lambda: _session(workload, *onnx_graph.export(workload, network)),
        "export --to onnx": lambda: _session(workload, *_own(workload, network)),
    }


def _own(workload: Workload, network: Network) -> tuple[bytes, np.ndarray]:
    """The graph of `shufflenet_jax.runtimes`, and the images that it takes."""
    assert isinstance(workload.subject, Net)
    preprocessing = Preprocessing(image_size=workload.subject.image_size)
    names = tuple(map(str, range(network.classifier.kernel.shape[-1])))
    trained = Trained(network, preprocessing, names, 0, "shufflenet", {})
    return graph(trained), onnx_graph.images(workload)


def _session(workload: Workload, graph: bytes, images: np.ndarray) -> Prepared:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = workload.threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images}
    return Prepared(lambda: session.run(None, feed), lambda logits: logits)
