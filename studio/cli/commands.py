"""What each command does. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.cli.export_options import export_options
from studio.cli.output import (
    ProgressLine,
    print_evaluation,
    print_export,
    print_json,
    print_table,
    print_verification,
)
from studio.cli.report import print_exported, require_printer
from studio.errors import ModelError, VerificationError

if TYPE_CHECKING:
    from studio.data.preprocess import Preprocess
    from studio.exporting.options import ExportOptions
    from studio.project.document import DataSettings, Document
    from studio.project.recipe import RecipeStep
    from studio.sim.config import QuantConfig

AS_IN_FILE = (
    "The model is quantized already: its encodings are kept and nothing is calibrated "
    "(--requantize places quantizers anew)."
)


def open_window(options: argparse.Namespace) -> int:
    from studio.app.main import run

    return run(options.file, example=options.example)


def targets(options: argparse.Namespace) -> int:
    from studio.sim.target import load_target, target_names

    if options.write_aimet is not None:
        return _write_aimet(options.name or "onnxruntime", options.write_aimet)
    found = [load_target(name) for name in ([options.name] if options.name else target_names())]
    if options.json:
        print_json(
            [{"name": t.name, "title": t.title, "description": t.description} for t in found]
        )
    else:
        print_table(("target", "what"), [(t.name, f"{t.title}: {t.description}") for t in found])
    return 0


def _write_aimet(name: str, path: Path) -> int:
    """Write a target as the configuration that AIMET's quantsim reads."""
    import json

    from studio.sim.aimet_config import aimet_config
    from studio.sim.target import load_target
    from studio.whole_files import write_text

    write_text(path, json.dumps(aimet_config(load_target(name)), indent=2))
    print(f"Written to {path}.")
    return 0


def techniques(options: argparse.Namespace) -> int:
    from studio.project.techniques import TECHNIQUES

    if options.json:
        print_json(
            [
                {
                    "name": item.name,
                    "title": item.title,
                    "description": item.description,
                    "options": item.options.model_json_schema(),
                }
                for item in TECHNIQUES.values()
            ]
        )
        return 0
    for item in TECHNIQUES.values():
        print(f"{item.name}: {item.title}. {item.description}")
        fields = item.options.model_fields.items()
        rows = [(name, _default(field.default), field.description or "") for name, field in fields]
        print_table(("option", "default", "what"), rows)
    return 0


def _default(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return "" if value is None else str(value)


def inspect(options: argparse.Namespace) -> int:
    from studio.cli.inspection import print_inspection

    document = _open(options, _config(options))
    print_inspection(document, tensors=options.tensors, sizes=options.sizes, as_json=options.json)
    return 0


def validate(options: argparse.Namespace) -> int:
    from studio.analysis.validation import Severity
    from studio.cli.validation import print_validation
    from studio.project.validation import validate_document

    document = _open(options, _config(options), executable=False)
    if options.data is not None or options.random_data:
        document = document.with_data(_data_settings(options, document))
    report = validate_document(document)
    print_validation(report, layers=options.layers, as_json=options.json)
    return ModelError.exit_code if report.count(Severity.ERROR) else 0


def quantize(options: argparse.Namespace) -> int:
    files = export_options(options)  # before the work that it would be too late after
    document = _open(options, _config(options))
    data = _data_settings(options, document).model_copy(
        update={
            "calibration_size": options.calibration_size,
            "evaluation_size": options.evaluation_size,
            "training_path": options.training_data,
        }
    )
    from studio.project.techniques import parse_step

    improvements = [parse_step(text) for text in options.improve]
    steps: list[RecipeStep] = ["calibrate", *improvements]
    if not options.no_evaluate:
        steps.append("evaluate")
    steps.append("export")
    return _quantize(document, data, steps, options.out, files, options.json, options.pdf)


def run_recipe(options: argparse.Namespace) -> int:
    from studio.project.recipe import load_recipe
    from studio.project.steps import open_document

    recipe = load_recipe(options.recipe)
    with ProgressLine(options.json) as emit:
        document = open_document(
            recipe.model.source(), trust=options.trust, config=recipe.config, emit=emit
        )
    files = export_options(options, recipe.export)
    out = options.out or recipe.out
    return _quantize(
        document, recipe.data, list(recipe.steps), out, files, options.json, options.pdf
    )


def _quantize(
    document: Document,
    data: DataSettings,
    steps: list[RecipeStep],
    out: Path,
    files: ExportOptions,
    as_json: bool,
    pdf: bool,
) -> int:
    from dataclasses import replace

    from studio.jobs.events import Warned
    from studio.project import steps as do
    from studio.project.recipe import ConfigStep, TechniqueStep
    from studio.project.techniques import apply_technique, parse_options
    from studio.runtime.world import is_first_process

    first = is_first_process()
    if pdf and first:
        require_printer()
    chosen = {
        index: parse_options(step.technique, step.options)
        for index, step in enumerate(steps)
        if isinstance(step, TechniqueStep)
    }  # before the work that a wrong one would be too late after
    document = replace(document, data=data)
    with ProgressLine(as_json) as emit:
        for index, step in enumerate(steps):
            if isinstance(step, TechniqueStep):
                document = apply_technique(document, step.technique, chosen[index], emit=emit)
            elif isinstance(step, ConfigStep):
                document = do.change_config(document, step.config, emit=emit)
            elif step == "calibrate" and document.from_file and document.calibrated:
                emit(Warned(AS_IN_FILE))
            elif step == "calibrate":
                document = do.calibrate(document, emit=emit)
            elif not first:
                continue  # one process measures and writes
            elif step == "evaluate":
                document = do.evaluate(document, emit=emit)
            elif step == "sensitivity":
                document = do.sensitivity(document, emit=emit)
            else:
                document = do.export(document, out, options=files, emit=emit)
    if not first:
        return 0
    printed = print_exported(out) if pdf and document.export is not None else None
    if as_json:
        from studio.exporting.bundle import export_dict

        print_json(
            {
                "evaluation": document.evaluation,
                "sensitivity": document.sensitivity,
                "export": document.export and export_dict(document.export),
                "synthetic_data": bool(document.calibration and document.calibration.synthetic),
                "warnings": [*document.graph.warnings, *document.plan.warnings, *emit.warnings],
            }
        )
    else:
        for warning in (*document.graph.warnings, *document.plan.warnings):
            print(f"note: {warning}")
        if document.evaluation is not None:
            print_evaluation(document.evaluation)
        if document.sensitivity is not None:
            from studio.cli.sensitivity import print_sensitivity

            print_sensitivity(document.sensitivity, as_json=False)
        if document.export is not None:
            print_export(document.export)
        if printed is not None:
            print(f"\nreport as PDF: {printed}")
    verification = document.export.verification if document.export else None
    if verification is not None and not verification.passed:
        raise VerificationError(
            verification.problem, "Look at the verification table in report.html."
        )
    return 0


def evaluate(options: argparse.Namespace) -> int:
    from studio.cli.measure import evaluate_folder, evaluate_model

    path = Path(options.model)
    if path.is_dir():
        result = evaluate_folder(path, options, lambda document: _data_settings(options, document))
    else:
        from studio.sim.config import QuantConfig

        document = _open(options, QuantConfig())
        result = evaluate_model(document, _data_settings(options, document), options)
    if options.json:
        print_json(result)
    else:
        rows = [
            (
                row["engine"],
                *(f"{row[key]:.2f} %" if row[key] is not None else "-" for key in ("top1", "top5")),
                f"{row['sqnr_db']:.1f} dB" if row["sqnr_db"] is not None else "-",
                f"{row['agreement']:.1f} %" if row["agreement"] is not None else "-",
            )
            for row in result["results"]
        ]
        print(f"{result['samples']} samples of {result['data']}")
        print_table(("engine", "top-1", "top-5", "SQNR to float", "top-1 agreement"), rows)
    return 0


def sensitivity(options: argparse.Namespace) -> int:
    from studio.analysis.sensitivity import SensitivityOptions
    from studio.cli.sensitivity import print_sensitivity
    from studio.project import steps as do

    document = _open(options, _config(options))
    data = _data_settings(options, document)
    document = document.with_data(
        data.model_copy(
            update={
                "calibration_size": options.calibration_size,
                "training_path": options.training_data,
            }
        )
    )
    wanted = SensitivityOptions(samples=options.samples, left=not options.no_left)
    with ProgressLine(options.json) as emit:
        if not (document.from_file and document.calibrated):
            document = do.calibrate(document, emit=emit)
        document = do.sensitivity(document, wanted, emit=emit)
    assert document.sensitivity is not None
    print_sensitivity(document.sensitivity, as_json=options.json)
    return 0


def verify(options: argparse.Namespace) -> int:
    from studio.cli.measure import verify_folder

    verification = verify_folder(options.folder, options, lambda d: _data_settings(options, d))
    if options.json:
        from studio.exporting.bundle import verification_dict

        print_json(verification_dict(verification))
    else:
        print_verification(verification)
    if not verification.passed:
        raise VerificationError(
            verification.problem,
            "Export the model again; if it stays, please report it with report.html.",
        )
    return 0


def report(options: argparse.Namespace) -> int:
    from studio.cli.report import write_report

    return write_report(options.project, options.out, trust=options.trust, as_json=options.json)


def demo(options: argparse.Namespace) -> int:
    from studio.cli.demo import run_demo

    return run_demo(options.out, options.json)


def _open(options: argparse.Namespace, config: QuantConfig, *, executable: bool = True) -> Document:
    from studio.graph.sources.source import parse_fixed
    from studio.project.steps import open_document

    with ProgressLine(options.json) as emit:
        return open_document(
            options.model,
            weights=options.weights,
            inputs=options.input,
            fixed_inputs=parse_fixed(options.fix),
            fixed_size=options.fixed_size,
            without=options.without,
            trust=options.trust,
            config=config,
            encodings=options.encodings,
            partial_encodings=options.partial_encodings,
            executable=executable,
            emit=emit,
        )


def _config(options: argparse.Namespace) -> QuantConfig:
    from studio.project.recipe import read_json
    from studio.sim.config import QuantConfig, parse_config, parse_override

    config = QuantConfig()
    if options.config is not None:
        config = parse_config(read_json(options.config, "configuration"))
    if options.target is not None:
        config = config.with_target(options.target)
    given: dict[str, Any] = {
        "weight_bits": options.weight_bits,
        "act_bits": options.act_bits,
        "act_observer": options.observer,
        "act_percentile": options.percentile,
        "weight_observer": options.weight_observer,
        "weight_per_channel": False if options.per_tensor else None,
    }
    if options.requantize:
        config = config.model_copy(update={"source_encodings": False})
    config = config.with_defaults(
        **{key: value for key, value in given.items() if value is not None}
    )
    for text in options.override:
        layer, settings = parse_override(text)
        config = config.with_layers([layer], **settings)
    return config


def _data_settings(options: argparse.Namespace, document: Document) -> DataSettings:
    from studio.data.opening import reads_pictures
    from studio.project.steps import default_data

    settings = default_data(document, options.data)
    changes: dict[str, Any] = {"batch_size": options.batch_size}
    if options.preprocess is not None:
        changes["preprocess"] = _preprocess(options.preprocess)
    elif settings.preprocess is not None and reads_pictures(options.data) and not options.json:
        print(
            f"note: preprocessing guessed from the model's input: {settings.preprocess.summary()} "
            "(--preprocess FILE sets it)",
            file=sys.stderr,
        )
    return settings.model_copy(update=changes)


def _preprocess(path: Path) -> Preprocess:
    from studio.data.preprocess import Preprocess

    return Preprocess.load(path)
