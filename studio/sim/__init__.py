"""Which tensors are quantized and how: targets, settings, placement, calibration, simulation."""
