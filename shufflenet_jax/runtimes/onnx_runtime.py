"""ONNX graphs of networks, run by ONNX Runtime."""

import numpy as np

from shufflenet_jax.runtimes.agreement import Runs, difference
from shufflenet_jax.runtimes.onnx_graph import graph
from shufflenet_jax.trained import Trained


def onnx(trained: Trained) -> tuple[bytes, float]:
    """Exports a network as an ONNX graph, its batch normalisation folded; see `graph`.

    Returns:
      The content of a file, and the difference from the network; see `difference`.

    Raises:
      InputError: As `graph`; or the difference is above the tolerance.
    """
    content = graph(trained)
    return content, difference(trained, session(content))


def session(content: bytes) -> Runs:
    """Returns what runs a graph on images as our networks take them, NHWC."""
    import onnxruntime  # of the extra [export]

    opened = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (given,) = opened.get_inputs()

    def run(images: np.ndarray) -> np.ndarray:
        maps = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return np.asarray(opened.run(None, {given.name: maps})[0])

    return run
