"""How good the quantized model is: accuracy, distances to float, per layer."""
