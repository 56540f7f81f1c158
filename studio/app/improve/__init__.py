"""Improving the quantized model by techniques: choose one, set its options, see what it did."""
