"""What kind of model a file holds, found out without executing anything in it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from studio.errors import ConsentRequiredError, ModelError
from studio.graph.sources import pickles
from studio.graph.sources.archive import ZIP_MAGIC, read_archive
from studio.graph.sources.source import ModelSource

SUFFIXES = (".onnx", ".py", ".pt2", ".pt", ".pth", ".bin", ".ckpt", ".torchscript")
"""Names of files that can hold a model; what is in them decides."""

WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
CONVERT = "python -m tf2onnx.convert"


class Kind(Enum):
    """The kinds of source that can be opened."""

    ONNX = "ONNX file"
    PYTHON = "Python file"
    PACKAGE = "installed package"
    PROGRAM = "exported program"
    TORCHSCRIPT = "TorchScript"
    PICKLE = "pickled module"


@dataclass(frozen=True)
class Consent:
    """What a user agrees to by opening a kind of source. `severe`: files that pass for data."""

    title: str
    question: str
    risk: str
    severe: bool = False


CONSENT = {
    Kind.PYTHON: Consent(
        "Open PyTorch code",
        "Run the code in {name}?",
        "Opening runs this file with your rights: it can read, change and delete what you can. "
        "Go on only if you know where it comes from.",
    ),
    Kind.PACKAGE: Consent(
        "Open an installed model",
        "Import and run {name}?",
        "Opening imports this package and calls its function with your rights, as a program that "
        "uses it would. Go on only if you trust what is installed.",
    ),
    Kind.PROGRAM: Consent(
        "Open an exported program",
        "Load {name}?",
        "PyTorch evaluates expressions in this file and may unpickle parts of it, so a file made "
        "to do harm can run code with your rights. Go on only if you know where it comes from.",
    ),
    Kind.TORCHSCRIPT: Consent(
        "Open a TorchScript model",
        "Run the program in {name}?",
        "A TorchScript file is a program. PyTorch's interpreter runs it; it cannot call Python, "
        "but it can read and write files. Go on only if you know where it comes from.",
    ),
    Kind.PICKLE: Consent(
        "Open a pickled model: this can run anything",
        "Unpickle {name}? Whoever made it decides what runs.",
        "A pickled module passes for a file of weights, but loading it runs whatever its maker "
        "put in, at once and with your rights: read your files, delete them, install programs. "
        "Nothing can check that beforehand. Do not open one that you downloaded: load its weights "
        "into the model's own code instead.",
        severe=True,
    ),
}


class OpeningConsentError(ConsentRequiredError):
    """Opening a source of this `kind` executes something."""

    def __init__(self, source: ModelSource, kind: Kind) -> None:
        consent = CONSENT[kind]
        super().__init__(
            f"{consent.question.format(name=source.file_name)} {consent.risk}",
            "If you agree, open it with --trust on the command line, trust=True in Python.",
        )
        self.kind = kind
        self.source = source


def kind_of(source: ModelSource) -> Kind:
    """The kind of `source`; reads at most the directory and the descriptions in a file.

    Raises ModelError for what is no model, with the way out: weights alone, models of TensorFlow,
    damaged and dangerous archives.
    """
    if source.module is not None:
        return Kind.PACKAGE
    path = source.path
    assert path is not None
    if path.suffix == ".py" or source.factory is not None:
        return Kind.PYTHON
    _refuse_foreign(path)
    if not path.is_file():
        return Kind.ONNX  # whose reader says what is wrong
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(ZIP_MAGIC):
        return _in_archive(path)
    if head.startswith(pickles.LEGACY_MAGIC):
        return _pickled(path, pickles.in_file(path))
    if path.suffix == ".safetensors":
        raise weights_only(path)
    if path.suffix in WEIGHTS or path.suffix in (".pt2", ".torchscript", ".pkl"):
        raise ModelError(f"{path.name} is {pickles.described(head)}.", _way_out(path))
    return Kind.ONNX


def weights_only(path: Path) -> ModelError:
    return ModelError(
        f"{path.name} holds weights only, not the model's structure.",
        "Open the model's Python code as file.py:factory, and give this file as its weights.",
    )


def _way_out(path: Path) -> str:
    if path.suffix == ".pt2":
        return "Make it by torch.export.save(torch.export.export(model, inputs), path)."
    return "Save the weights by torch.save(model.state_dict(), path) and open the Python code."


def _in_archive(path: Path) -> Kind:
    entries = read_archive(path)
    if "config.json" in entries and "model.weights.h5" in entries:
        raise _keras(path)
    if any(name.endswith((".so", ".cubin")) for name in entries):
        raise ModelError(
            f"{path.name} is compiled for one machine; the model cannot be taken from it.",
            "Save the program before compiling it, by torch.export.save(program, path).",
        )
    if "archive_format" in entries or "serialized_exported_program.json" in entries:
        return Kind.PROGRAM
    if "constants.pkl" in entries and any(name.startswith("code/") for name in entries):
        return Kind.TORCHSCRIPT
    if "data.pkl" in entries:
        return _pickled(path, pickles.in_archive(path, entries))
    raise ModelError(
        f"{path.name} is a zip archive, but not one of PyTorch.",
        "Unpack it and choose the model inside.",
    )


def _pickled(path: Path, objects: tuple[str, ...]) -> Kind:
    """A pickle with more than tensors may be a module; one without cannot."""
    if not objects:
        raise weights_only(path)
    return Kind.PICKLE


def _refuse_foreign(path: Path) -> None:
    """Models of other tools, with the command that turns them into ONNX."""
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            raise _tensorflow(path, f"--saved-model {path}")
        return
    suffix = path.suffix.lower()
    if suffix == ".tflite":
        raise _tensorflow(path, f"--tflite {path}")
    if path.name == "saved_model.pb":
        raise _tensorflow(path, f"--saved-model {path.parent}")
    if suffix == ".pb":
        raise _tensorflow(path, f"--graphdef {path} --inputs INPUT:0 --outputs OUTPUT:0")
    if suffix in (".h5", ".hdf5", ".keras"):
        raise _keras(path)


def _tensorflow(path: Path, arguments: str) -> ModelError:
    target = path.parent / "model.onnx"
    return ModelError(
        f"{path.name} is a TensorFlow model.",
        "Convert it where TensorFlow and tf2onnx are installed, then open the result: "
        f"{CONVERT} {arguments} --output {target} --opset 17",
    )


def _keras(path: Path) -> ModelError:
    folder = path.with_suffix("")
    return ModelError(
        f"{path.name} is a Keras model.",
        "Where TensorFlow and tf2onnx are installed, write it as a SavedModel and convert that, "
        f"then open the result: "
        f"python -c \"import keras; keras.models.load_model('{path}').export('{folder}')\" && "
        f"{CONVERT} --saved-model {folder} --output {path.with_suffix('.onnx')} --opset 17",
    )
