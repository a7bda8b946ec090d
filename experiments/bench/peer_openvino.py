"""OpenVINO, given the same ONNX graph as ONNX Runtime.

Converted from PyTorch without ONNX in between the network was as fast.
"""

import numpy as np
import openvino
from openvino import properties
from openvino.properties import hint

from experiments.bench import onnx_graph
from experiments.bench.peers import Forms, Prepared
from experiments.bench.workloads import Workload
from shufflenet_jax.models.skeleton import Network


def forms(workload: Workload, network: Network | None, variant: str) -> Forms:
    """A model compiled for the latency of one request at a time, in float32."""
    del variant
    assert network is not None
    return {onnx_graph.LAYOUT: lambda: _model(workload, network)}


def _model(workload: Workload, network: Network) -> Prepared:
    graph, images = onnx_graph.export(workload, network)
    core = openvino.Core()
    model = core.compile_model(
        core.read_model(graph),
        "CPU",
        {
            hint.performance_mode: hint.PerformanceMode.LATENCY,
            # Else it computes in bfloat16 where the processor can.
            hint.inference_precision: openvino.Type.f32,
            properties.inference_num_threads: workload.threads,
            # Else it leaves out processors that share a core, which all others use.
            hint.enable_hyper_threading: True,
        },
    )
    request = model.create_infer_request()

    def run() -> np.ndarray:
        return request.infer([images], share_inputs=True)[0]

    return Prepared(run, lambda logits: [logits])
