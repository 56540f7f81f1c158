"""The options of the command line that say which files an export writes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studio.exporting.options import ExportOptions


def add_export(parser: argparse.ArgumentParser) -> None:
    """Options for everything that `ExportOptions` holds; none given leaves it to the target."""
    group = parser.add_argument_group("files of the export (default: as the target needs them)")
    group.add_argument(
        "--format", metavar="FORM", help="qdq, qoperator, weight-only, dynamic or encodings"
    )
    group.add_argument("--opset", type=int, metavar="N", help="opset of the quantized ONNX")
    group.add_argument(
        "--weights-as", metavar="KIND", help="int, or float in front of QuantizeLinear"
    )
    group.add_argument("--bias-as", metavar="KIND", help="int32, or float: rounded all the same")
    group.add_argument(
        "--weight-storage-bits", type=int, metavar="N", help="smallest integer type: 2, 4 or 8"
    )
    group.add_argument(
        "--act-storage-bits",
        type=int,
        metavar="N",
        help="smallest integer type of activations: 2, 4, or 8 with a Clip (QCDQ)",
    )
    group.add_argument(
        "--contrib-ops",
        action=argparse.BooleanOptionalAction,
        help="whether operators of onnxruntime's own domain may be used",
    )
    group.add_argument(
        "--float-weights", metavar="KIND", help="weights of model_float.onnx: plain or rounded"
    )
    group.add_argument(
        "--encodings-version",
        action="append",
        metavar="V",
        help="0.6.1, 1.0.0, 2.0.0 or 2.1.0; once for each file wanted",
    )
    group.add_argument(
        "--state-dict",
        action="store_true",
        default=None,
        help="write the rounded parameters under the source model's names (safetensors)",
    )
    group.add_argument(
        "--pt2", action="store_true", default=None, help="write the simulation as a .pt2 for torch"
    )
    group.add_argument("--pdf", action="store_true", help="write the report as report.pdf as well")


def export_options(options: argparse.Namespace, base: ExportOptions | None = None) -> ExportOptions:
    """`base` with what was given; raises ConfigError naming what is not valid."""
    from studio.exporting.options import parse_export_options

    values: dict[str, Any] = {
        "format": options.format,
        "opset": options.opset,
        "weights": options.weights_as,
        "bias": options.bias_as,
        "weight_storage_bits": options.weight_storage_bits,
        "activation_storage_bits": options.act_storage_bits,
        "contrib_ops": options.contrib_ops,
        "float_weights": options.float_weights,
        "encodings_versions": options.encodings_version,
        "state_dict": options.state_dict,
        "exported_program": options.pt2,
    }
    given = {key: value for key, value in values.items() if value is not None}
    before = {} if base is None else base.model_dump()
    return parse_export_options({**before, **given})
