"""How the tensors made by quantizers are called."""

from __future__ import annotations


def quantized_name(tensor: str) -> str:
    """Name of the integer tensor made from `tensor`."""
    return f"{tensor}_quantized"


def dequantized_name(tensor: str, is_output: bool) -> str:
    """Name of the rounded float tensor made from `tensor`; a model output keeps its own name."""
    return tensor if is_output else f"{tensor}_dequantized"
