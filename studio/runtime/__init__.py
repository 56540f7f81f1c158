"""The two engines that run a graph: torch, differentiable, and onnxruntime, for values."""
