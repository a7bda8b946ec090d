"""Networks for other runtimes: folded, with any batch, as StableHLO and as ONNX."""
