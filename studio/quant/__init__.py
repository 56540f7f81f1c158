"""Numerics of one tensor: grids, encodings, fake-quantization, statistics, observers.

Knows no graph. Arrays are NumPy; what runs inside a training step is torch: `fake_quantize`,
`dynamic` and `learned`.
"""
