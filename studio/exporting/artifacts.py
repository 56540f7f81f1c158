"""The files of one export, beside its report and summary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from studio.errors import ExportError
from studio.exporting.encodings import VERSIONS, encodings_document, version_problem
from studio.exporting.exported_program import write_exported_program
from studio.exporting.files import save_onnx
from studio.exporting.graphs import float_model, kept_as_pairs, quantized_model
from studio.exporting.options import ExportForm
from studio.exporting.state_dict import write_state_dict
from studio.exporting.summary import Artifact
from studio.graph.model import ModelGraph
from studio.quant.encoding import Encoding
from studio.quant.grid import FloatGrid
from studio.sim.plan import Plan, Role

MODEL = "model.onnx"
FLOAT_MODEL = "model_float.onnx"
ENCODINGS = "model.encodings"
STATE_DICT = "model_state_dict.safetensors"
PROGRAM = "model.pt2"
SHOWN = 5

_FORMS = {
    "qdq": "quantized model (QuantizeLinear / DequantizeLinear), runs in onnxruntime",
    "qoperator": "quantized model (QLinearConv, QLinearMatMul and their kin), for onnxruntime",
    "weight-only": "model with weights in integers (MatMulNBits), for onnxruntime",
    "dynamic": "quantized model (activations ranged while it runs), for onnxruntime",
    "encodings": "what the encodings mean, to be run in onnxruntime",
}
_WHAT = {
    STATE_DICT: "rounded parameters under the source model's names",
    PROGRAM: "the simulation for torch.export.load",
    "report.html": "this export for people",
    "recipe.json": "replays this export: quant-studio run recipe.json",
    "summary.json": "this export for machines",
}


def write_artifacts(
    graph: ModelGraph,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    folder: Path,
    form: ExportForm,
    *,
    synthetic: bool,
) -> tuple[str, ...]:
    """Write the models and encodings that `form` asks for into `folder`; returns what whoever uses
    them has to know. Raises ExportError."""
    notes: list[str] = []
    model = quantized_model(graph, plan, encodings, form)
    notes += _storage_notes(plan, form) + _form_notes(model, form)
    if synthetic:
        model.metadata_props["calibration_data"] = "random data: accuracy is not meaningful"
    save_onnx(model, folder / MODEL)
    save_onnx(float_model(graph, plan, encodings, form), folder / FLOAT_MODEL)
    for index, version in enumerate(_versions(plan, encodings, form, notes)):
        name = ENCODINGS if index == 0 else f"model_{version}.encodings"
        document = encodings_document(plan, encodings, version=version)
        (folder / name).write_text(json.dumps(document, indent=2), encoding="utf-8")
    if form.state_dict:
        notes += write_state_dict(graph, plan, encodings, folder / STATE_DICT).notes
    if form.exported_program:
        notes += write_exported_program(graph, plan, encodings, folder / PROGRAM)
    return tuple(notes)


def cannot_verify(plan: Plan, folder: Path) -> str:
    """Why onnxruntime cannot run the quantized model in `folder`; empty if it can.

    A model that it has no kernels for is checked by onnx instead; ExportError if that refuses it.
    """
    tiny = [
        row.name
        for row in plan.tensors.values()
        if row.spec is not None
        and isinstance(row.spec.grid, FloatGrid)
        and row.spec.grid.format == "float4e2m1"
    ]
    if not tiny:
        return ""
    try:
        onnx.checker.check_model(str(folder / MODEL))
    except onnx.checker.ValidationError as error:
        raise ExportError(
            f"The quantized model is not valid: {str(error).splitlines()[0]}",
            "Export in another format; if it stays, please report it.",
        ) from error
    return (
        f"Not verified: onnxruntime has no kernels for float4e2m1, which {tiny[0]} is stored in. "
        "The file was checked by onnx, not run."
    )


def list_artifacts(folder: Path, form: ExportForm) -> tuple[Artifact, ...]:
    """The files in `folder` that an export of `form` writes, each with what it is."""
    versions = [path.name for path in sorted(folder.glob("model_*.encodings"))]
    what = {
        MODEL: _FORMS[form.format],
        FLOAT_MODEL: _float_what(form),
        ENCODINGS: _encodings_what(_version_in(folder / ENCODINGS)),
        **{name: _encodings_what(_version_in(folder / name)) for name in versions},
        **_WHAT,
    }
    return tuple(
        Artifact(name, (folder / name).stat().st_size, text)
        for name, text in what.items()
        if (folder / name).is_file()
    )


def _float_what(form: ExportForm) -> str:
    kind = "float model with rounded weights" if form.round_float_model else "prepared float model"
    return f"{kind}, goes with {ENCODINGS}"


def _encodings_what(version: str) -> str:
    return f"encodings in AIMET's {version} layout, for Qualcomm's converters"


def _version_in(path: Path) -> str:
    return str(json.loads(path.read_text(encoding="utf-8"))["version"]) if path.is_file() else ""


def _versions(
    plan: Plan, encodings: Mapping[str, Encoding], form: ExportForm, notes: list[str]
) -> tuple[str, ...]:
    """Versions to write: those chosen, or the target's; the next that can hold the encodings where
    that cannot."""
    if form.versions_chosen:
        return form.encodings_versions
    wanted = form.encodings_versions[0]
    problem = version_problem(plan, encodings, wanted)
    if not problem:
        return (wanted,)
    for version in reversed(VERSIONS):
        if not version_problem(plan, encodings, version):
            notes.append(f"Encodings are written in {version}; {wanted} has no entry for {problem}")
            return (version,)
    return (wanted,)  # which then says what is wrong


def _storage_notes(plan: Plan, form: ExportForm) -> list[str]:
    rows = [row for row in plan.tensors.values() if row.spec is not None]
    bits = {row.spec.grid.bits for row in rows if row.spec and row.role is Role.WEIGHT}
    wider = sorted(size for size in bits if size < min(8, form.weight_storage_bits))
    narrow = " and ".join(f"{size}-bit" for size in wider)
    if not narrow:
        return []
    reason = ""
    if form.weight_storage_bits == 8:
        reason = f": onnxruntime has no {narrow} convolution kernels"
    return [f"{narrow} weights are stored in {form.weight_storage_bits} bits{reason}."]


def _form_notes(model: ir.Model, form: ExportForm) -> list[str]:
    """Which operators keep computing in float, and where rounding differs from the simulation."""
    if form.format in ("qdq", "encodings"):
        return []
    notes = []
    left = kept_as_pairs(model)
    if left:
        more = f" and {len(left) - SHOWN} more" if left[SHOWN:] else ""
        notes.append(
            f"{len(left)} operators have no integer form here and compute in float between "
            f"DequantizeLinear and QuantizeLinear: {', '.join(left[:SHOWN])}{more}."
        )
    states = [n.name or "" for n in model.graph if n.op_type == "DynamicQuantizeLSTM"]
    if states:
        notes.append(
            "DynamicQuantizeLSTM rounds the recurrent state at every step as well, which the "
            f"simulation does not: {', '.join(states[:SHOWN])}."
        )
    return notes
