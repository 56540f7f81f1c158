"""The model: where it comes from, the graph, and the passes that prepare it. Knows `onnx_ir`."""
