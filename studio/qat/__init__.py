"""Quantization-aware training: weights, and ranges where asked, trained with fake-quantization in
the graph."""
