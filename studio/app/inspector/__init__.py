"""The selected layer: what it is, how it is quantized, and what its values look like."""
