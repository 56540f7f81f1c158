"""Errors a person can act on.

Every error that reaches a user is a `StudioError`: it names the thing that is wrong and says what
to do about it. `exit_code` is what the command line returns for it.
"""

from __future__ import annotations


class StudioError(Exception):
    """What went wrong, and what to do about it.

    `message` names the file, layer or tensor concerned; `hint` is one imperative sentence.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class ModelError(StudioError):
    """The model cannot be opened, prepared or executed."""

    exit_code = 3


class UnsupportedOpsError(ModelError):
    """Ops no engine can run; `ops` maps `domain::op (version)` to the names of the layers."""

    def __init__(self, ops: dict[str, list[str]]) -> None:
        lines = []
        for op, layers in sorted(ops.items()):
            shown = ", ".join(layers[:5]) + (f" and {len(layers) - 5} more" if layers[5:] else "")
            lines.append(f"  {op}: {shown}")
        super().__init__(
            "The model uses operators that cannot be executed:\n" + "\n".join(lines),
            "Replace these operators, or export the model with standard ONNX operators only. "
            "quant-studio validate lists all layers.",
        )
        self.ops = ops


class ConsentRequiredError(StudioError):
    """Opening this source would execute code; the user has not agreed to that yet."""

    exit_code = 4


class DataError(StudioError):
    """The calibration or evaluation data cannot be used."""

    exit_code = 5


class ConfigError(StudioError):
    """A setting is unknown, out of range or impossible for the target."""

    exit_code = 6


class ExportError(StudioError):
    """The artifacts could not be written."""

    exit_code = 7


class VerificationError(StudioError):
    """The exported file does not compute what the simulation computed."""

    exit_code = 8


class CancelledError(StudioError):
    """The user cancelled the job; the document is as it was before the job."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__("Cancelled.", "Nothing was changed.")
