"""Where a model comes from, one kind of source a file; every kind becomes an ONNX graph."""
