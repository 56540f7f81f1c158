"""The onnxruntime engine: values only, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from studio.errors import ModelError
from studio.graph.model import ModelGraph
from studio.runtime.threads import threads

_LARGE = 1024
"""Bytes from which a constant is handed over beside the graph."""

_FOREIGN = (
    ir.DataType.INT2,
    ir.DataType.UINT2,
    ir.DataType.INT4,
    ir.DataType.UINT4,
    ir.DataType.BFLOAT16,
    ir.DataType.FLOAT8E4M3FN,
    ir.DataType.FLOAT8E4M3FNUZ,
    ir.DataType.FLOAT8E5M2,
    ir.DataType.FLOAT8E5M2FNUZ,
    ir.DataType.FLOAT4E2M1,
)
"""Types that NumPy does not have: onnxruntime takes no arrays of them."""

ort.set_default_logger_severity(4)  # errors are raised; they need not be printed as well


class Optimizations(Enum):
    """What onnxruntime may do to a graph.

    NONE: every node as written. FLOAT: everything but turning Q/DQ into integer kernels, which
    keeps the simulation's numbers. KERNELS: integer kernels, but the memory layout as written.
    INTEGER: everything, as deployed.
    """

    NONE = "none"
    FLOAT = "float"
    KERNELS = "kernels"
    INTEGER = "integer"


class Session:
    """One onnxruntime session over a model in memory or in a file.

    Raises ModelError if onnxruntime refuses the model.
    """

    def __init__(
        self,
        model: ir.Model | Path,
        *,
        optimizations: Optimizations = Optimizations.INTEGER,
        outputs: Sequence[str] = (),
        optimized_path: Path | None = None,
    ) -> None:
        """`outputs`: inner tensors to make readable besides the model's own outputs.
        `optimized_path`: where to write the graph as onnxruntime optimised it."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Planning memory by pattern slows runs down that hand out many tensors.
        options.enable_mem_pattern = not outputs
        # Waiting threads sleep: spinning ones take the cores from the window and the data loader.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if optimizations is Optimizations.NONE:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        elif optimizations is Optimizations.FLOAT:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        elif optimizations is Optimizations.KERNELS:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        if optimized_path is not None:
            options.optimized_model_filepath = str(optimized_path)
        try:
            changed = _with_outputs(model, outputs)
            self._session = _load(changed, options, own=changed is not model)
        except Exception as error:
            # onnxruntime raises a family of exceptions without a common public base class.
            raise ModelError(
                f"onnxruntime cannot run this model: {first_line(error)}",
                "Open the model in the Netron view and look at the node it names.",
            ) from error
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())
        sizes = [value.shape[0] for value in self._session.get_inputs() if value.shape]
        self.fixed_batch: int | None = next(
            (size for size in sizes if isinstance(size, int) and size > 0), None
        )

    def run(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Values of `outputs` (default: all) for `inputs`; arrays are as onnxruntime made them."""
        names = list(self.outputs if outputs is None else outputs)
        try:
            values = self._session.run(names, dict(inputs))
        except Exception as error:
            shapes = ", ".join(f"{name} {tuple(array.shape)}" for name, array in inputs.items())
            raise ModelError(
                f"onnxruntime failed on inputs {shapes}: {first_line(error)}",
                "Check that the data have the shape and type that the model expects; the size of "
                "images is set in the preprocessing (size or crop).",
            ) from error
        return dict(zip(names, values, strict=True))

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs whose every side is known."""
        return {
            value.name: tuple(value.shape)
            for value in self._session.get_outputs()
            if value.shape and all(isinstance(side, int) and side > 0 for side in value.shape)
        }


def float_session(graph: ModelGraph, outputs: Sequence[str] = ()) -> Session:
    """A session over the float graph with the inner tensors `outputs` readable."""
    return Session(graph.ir, optimizations=Optimizations.FLOAT, outputs=outputs)


def _with_outputs(model: ir.Model | Path, outputs: Sequence[str]) -> ir.Model | Path:
    if not outputs:
        return model
    copy = ir.load(model) if isinstance(model, Path) else model.clone()
    known = {value.name for value in copy.graph.outputs}
    values = {value.name: value for node in copy.graph for value in node.outputs}
    values.update({value.name: value for value in copy.graph.inputs})
    copy.graph.outputs.extend(values[name] for name in outputs if name not in known)
    return copy


def _load(model: ir.Model | Path, options: ort.SessionOptions, own: bool) -> ort.InferenceSession:
    """`own`: nobody else holds `model`, which may be changed."""
    providers = ["CPUExecutionProvider"]
    if isinstance(model, Path):
        return ort.InferenceSession(str(model), options, providers=providers)
    # Large weights are handed over in memory beside the graph: no copy goes through protobuf, whose
    # messages end at 2 GiB.
    shell = model if own else model.clone()
    names, weights = [], []
    for name, value in shell.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.nbytes < _LARGE or tensor.dtype in _FOREIGN:
            continue
        array = np.ascontiguousarray(tensor.numpy())
        names.append(name)
        weights.append(ort.OrtValue.ortvalue_from_numpy(array))
        value.const_value = ir.ExternalTensor(
            "weights", 0, array.nbytes, tensor.dtype, shape=ir.Shape(array.shape), name=name
        )
    options.add_external_initializers(names, weights)
    graph = ir.to_proto(shell).SerializeToString()
    return ort.InferenceSession(graph, options, providers=providers)


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
