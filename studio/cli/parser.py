"""Commands and options of the command line."""

from __future__ import annotations

import argparse
import typing
from pathlib import Path

from studio import __version__
from studio.cli import commands
from studio.cli.export_options import add_export
from studio.sim.config import ObserverName

COMMANDS = (
    "inspect",
    "validate",
    "quantize",
    "evaluate",
    "sensitivity",
    "verify",
    "run",
    "report",
    "demo",
    "targets",
    "techniques",
    "open",
)

_EXIT_CODES = """\
exit codes:
  0  done                          5  the data cannot be used
  1  unexpected                    6  a setting is wrong
  2  wrong use of the command      7  the artifacts cannot be written
  3  the model cannot be used      8  the exported file differs from the simulation
  4  opening needs --trust       130  interrupted
"""


def with_default_command(words: list[str]) -> list[str]:
    """`quant-studio` and `quant-studio FILE` open the window."""
    if words and (words[0] in COMMANDS or words[0] in ("-h", "--help", "--version")):
        return words
    return ["open", *words]


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="quant-studio",
        description="Quantize a trained model: in a window (no command, or a file), or from here.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"quant-studio {__version__}")
    commands_parser = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    window = commands_parser.add_parser("open", help="open the window (on FILE)")
    window.add_argument("file", nargs="?", metavar="FILE", help="model or .qstudio project")
    window.add_argument("--example", action="store_true", help="the bundled example, with its data")
    window.set_defaults(run=commands.open_window)

    inspect = commands_parser.add_parser(
        "inspect", help="show the layers and how each is quantized"
    )
    _add_model(inspect)
    _add_encodings(inspect)
    _add_config(inspect)
    _add_common(inspect)
    inspect.add_argument(
        "--tensors", action="store_true", help="one row a tensor, with the reasons"
    )
    inspect.add_argument(
        "--sizes", action="store_true", help="the layers that only compute sizes as well"
    )
    inspect.set_defaults(run=commands.inspect)

    validate = commands_parser.add_parser(
        "validate", help="what to know before calibrating: operators, float layers, cost, weights"
    )
    _add_model(validate)
    _add_encodings(validate)
    _add_data(validate, required=False)
    _add_config(validate)
    _add_common(validate)
    validate.add_argument("--layers", action="store_true", help="the cost of each layer")
    validate.set_defaults(run=commands.validate)

    quantize = commands_parser.add_parser("quantize", help="calibrate, evaluate, export and verify")
    _add_model(quantize)
    _add_encodings(quantize)
    _add_data(quantize)
    _add_config(quantize)
    _add_common(quantize)
    _add_calibration(quantize)
    quantize.add_argument(
        "--evaluation-size", type=_count, metavar="N", help="samples to evaluate on (default: all)"
    )
    quantize.add_argument(
        "--improve",
        action="append",
        default=[],
        metavar="TECHNIQUE[:KEY=VALUE,...]",
        help="a technique to apply after calibration, in order; see quant-studio techniques",
    )
    quantize.add_argument("--no-evaluate", action="store_true", help="skip the evaluation")
    quantize.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the artifacts"
    )
    add_export(quantize)
    quantize.set_defaults(run=commands.quantize)

    evaluate = commands_parser.add_parser(
        "evaluate", help="measure a model, or an exported folder (float, simulated, onnxruntime)"
    )
    _add_model(evaluate, "MODEL_OR_DIR")
    _add_encodings(evaluate)
    _add_data(evaluate)
    _add_common(evaluate)
    evaluate.add_argument("--limit", type=_count, metavar="N", help="use N samples only")
    evaluate.set_defaults(run=commands.evaluate)

    sensitivity = commands_parser.add_parser(
        "sensitivity", help="which layers the loss comes from, and outlier channels"
    )
    _add_model(sensitivity)
    _add_encodings(sensitivity)
    _add_data(sensitivity)
    _add_config(sensitivity)
    _add_common(sensitivity)
    _add_calibration(sensitivity)
    sensitivity.add_argument(
        "--samples",
        type=_count,
        default=64,
        metavar="N",
        help="samples to measure on (default: %(default)s)",
    )
    sensitivity.add_argument(
        "--no-left",
        action="store_true",
        help="skip leaving each layer in float alone, the slower half",
    )
    sensitivity.set_defaults(run=commands.sensitivity)

    verify = commands_parser.add_parser(
        "verify", help="compare an exported folder with its simulation"
    )
    verify.add_argument("folder", type=Path, metavar="DIR")
    _add_data(verify, required=False)
    _add_common(verify)
    verify.set_defaults(run=commands.verify)

    run = commands_parser.add_parser("run", help="replay a recipe")
    run.add_argument(
        "recipe", type=Path, metavar="RECIPE", help="recipe.json, as an export writes it"
    )
    run.add_argument("--out", type=Path, metavar="DIR", help="folder for the artifacts")
    run.add_argument("--trust", action="store_true", help="allow the recipe's model to run code")
    _add_common(run)
    add_export(run)
    run.set_defaults(run=commands.run_recipe)

    report = commands_parser.add_parser(
        "report", help="write what is known of a project on one page, exported or not"
    )
    report.add_argument("project", type=Path, metavar="PROJECT", help="a .qstudio file")
    report.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="FILE.html or FILE.pdf (default: the project's name with .html)",
    )
    report.add_argument(
        "--trust", action="store_true", help="allow the project's model to run code"
    )
    _add_common(report)
    report.set_defaults(run=commands.report)

    demo = commands_parser.add_parser(
        "demo", help="the bundled example from start to end, with a picture of the window"
    )
    demo.add_argument("--out", type=Path, default=Path("out/digits"), metavar="DIR")
    _add_common(demo)
    demo.set_defaults(run=commands.demo)

    techniques = commands_parser.add_parser("techniques", help="list the techniques, their options")
    _add_common(techniques)
    techniques.set_defaults(run=commands.techniques)

    targets = commands_parser.add_parser("targets", help="list the targets")
    _add_common(targets)
    targets.add_argument("name", nargs="?", metavar="NAME", help="one target, or a rule file")
    targets.add_argument(
        "--write-aimet",
        type=Path,
        metavar="FILE",
        help="write it as a quantsim configuration of AIMET",
    )
    targets.set_defaults(run=commands.targets)
    return parser


def _count(text: str) -> int:
    """A number of samples, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_model(parser: argparse.ArgumentParser, name: str = "MODEL") -> None:
    parser.add_argument(
        "model",
        metavar=name,
        help="model.onnx, .pt2, TorchScript or pickled .pt; file.py:factory or"
        " package.module:factory, with arguments as 'make(classes=10)'",
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help=".safetensors or .pth with the state dict"
    )
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="[NAME:]SHAPE[:TYPE]",
        help="input to trace a PyTorch model with, e.g. 1,3,224,224 or ids:1,16:int64; once for"
        " each (default: found out where possible)",
    )
    parser.add_argument(
        "--fix",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="give an input one value for good, e.g. sr=16000",
    )
    parser.add_argument(
        "--fixed-size",
        action="store_true",
        help="keep every size but the batch as traced, instead of open",
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="RULE",
        help="leave out a rule of preparation, e.g. 'fold batch norm'; inspect lists them",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="allow what is in the model to run (opening anything but ONNX runs code)",
    )


def _add_encodings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encodings",
        type=Path,
        metavar="FILE",
        help="encodings file (0.6.1, 1.0.0, 2.0.0, 2.1.0) that says how the model is quantized;"
        " its other tensors stay float",
    )
    parser.add_argument(
        "--partial-encodings",
        action="store_true",
        help="use the encodings that fit, and quantize the other tensors by the settings",
    )


def _add_data(parser: argparse.ArgumentParser, required: bool = True) -> None:
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="folder of images (classes by subfolder, or labels.csv), .npy or .npz",
    )
    group.add_argument(
        "--random-data",
        action="store_true",
        help="random samples: only to see that everything runs",
    )
    parser.add_argument(
        "--preprocess", type=Path, metavar="FILE", help="preprocessing of images, JSON"
    )
    parser.add_argument(
        "--batch-size", type=_count, metavar="N", help="samples at once (default: chosen for speed)"
    )


def _add_calibration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--calibration-size",
        type=_count,
        default=64,
        metavar="N",
        help="samples to calibrate on (default: %(default)s)",
    )
    parser.add_argument(
        "--training-data",
        type=Path,
        metavar="PATH",
        help="other data to calibrate and train on; --data is then for evaluation alone",
    )


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target", metavar="NAME", help="see: quant-studio targets (default: onnxruntime)"
    )
    parser.add_argument(
        "--weight-bits", type=int, metavar="N", help="2 to 16 (default: the target's)"
    )
    parser.add_argument("--act-bits", type=int, metavar="N", help="2 to 16 (default: the target's)")
    parser.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="LAYER:key=value",
        help="setting of one layer or pattern, e.g. 'features.*:weight_bits=4'",
    )
    observers = typing.get_args(ObserverName)
    parser.add_argument("--observer", choices=observers, help="calibration method of activations")
    parser.add_argument(
        "--percentile", type=float, metavar="P", help="percent of values that 'percentile' keeps"
    )
    parser.add_argument("--weight-observer", choices=observers, help="range of weights")
    parser.add_argument("--per-tensor", action="store_true", help="one scale for each weight")
    parser.add_argument(
        "--requantize",
        action="store_true",
        help="place quantizers anew in a model that is quantized already",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration in JSON")
