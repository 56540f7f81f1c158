"""Opening whatever data the user points to, checked against what the model takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from studio.data.arrays import open_arrays
from studio.data.calls import Calls, call_files, share_a_batch
from studio.data.dataset import Dataset, InputSpec
from studio.data.images import ImageFolder
from studio.data.preprocess import DYNAMIC_SIDE, Preprocess, format_shape
from studio.errors import DataError


def open_data(
    path: Path | str, specs: Sequence[InputSpec], preprocess: Preprocess | None = None
) -> Dataset:
    """A folder of pictures, a labels CSV, a `.npy` or a `.npz` file, for the model inputs `specs`.

    A folder of `.npz` files holds a call of the model in each, as does a `.npz` file for a model
    whose inputs have no batch axis in common.
    `preprocess` is for pictures; None takes `Preprocess.guess` of the input. Raises DataError if
    the data does not fit the model, naming both shapes and the setting to change.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist.", "Check the path.")
    if path.is_dir() and call_files(path):
        return Calls(path.name, call_files(path), specs)
    if path.suffix.lower() == ".npz" and path.is_file() and not share_a_batch(specs):
        return Calls(path.name, [path], specs)
    if path.suffix.lower() in (".npy", ".npz") and path.is_file():
        return open_arrays(path, specs)
    if reads_pictures(path):
        spec = picture_input(specs, preprocess)
        chosen = preprocess or guess_for(spec)
        check_fit(chosen, spec)
        return ImageFolder(path, chosen, spec.name)
    raise DataError(
        f"{path} is neither a folder of pictures or .npz files nor a .csv, .npy or .npz file.",
        "Choose one of these.",
    )


def reads_pictures(path: Path | None) -> bool:
    """True if the data at `path` are pictures, which are preprocessed, and not arrays."""
    if path is None:
        return False
    return path.suffix.lower() == ".csv" or (path.is_dir() and not call_files(path))


def guess_for(spec: InputSpec) -> Preprocess:
    """`Preprocess.guess` for one model input, in its type."""
    guess = Preprocess.guess(spec.shape)
    return guess.model_copy(update={"dtype": "float16"}) if spec.dtype == "float16" else guess


def picture_input(specs: Sequence[InputSpec], preprocess: Preprocess | None) -> InputSpec:
    """The model input that pictures are for; DataError if there is none or more than one."""
    if len(specs) != 1:
        names = ", ".join(repr(spec.name) for spec in specs)
        raise DataError(
            f"The model has {len(specs)} inputs ({names}); pictures can feed only one.",
            "Give the data as .npz with one array for each input.",
        )
    spec = specs[0]
    if preprocess is not None and preprocess.input not in (None, spec.name):
        raise DataError(
            f"The preprocessing is for the input {preprocess.input!r}; the model has "
            f"{spec.name!r}.",
            "Correct `input` in the preprocessing, or leave it out.",
        )
    return spec


def check_fit(preprocess: Preprocess, spec: InputSpec) -> None:
    """Raise DataError unless what `preprocess` makes of a picture is what `spec` takes."""
    found, wanted = preprocess.output_shape, spec.shape[1:]
    message = (
        f"The preprocessing makes samples of shape {format_shape(found)}, the model input "
        f"{spec.name!r} has {format_shape(spec.shape)}."
    )
    if len(wanted) != 3:
        raise DataError(message, "Give the data as .npy or .npz arrays.")
    channel = 2 if preprocess.layout == "NHWC" else 0
    if wanted[channel] not in (None, found[channel]):
        other, position = ("NCHW", 0) if preprocess.layout == "NHWC" else ("NHWC", 2)
        if wanted[position] == found[channel]:
            raise DataError(message, f'Set layout to "{other}" in the preprocessing.')
        hint = {1: '"GRAY"', 3: '"RGB" or "BGR"'}.get(wanted[channel] or 0)
        if hint is None:
            raise DataError(message, "Give the data as .npy or .npz arrays.")
        raise DataError(message, f"Set channels to {hint} in the preprocessing.")
    height, width = (wanted[i] for i in range(3) if i != channel)
    sides = preprocess.output_size
    if sides is None and (height is not None or width is not None):
        raise DataError(
            message, f"Set crop or size to [{height or DYNAMIC_SIDE}, {width or DYNAMIC_SIDE}]."
        )
    if sides is not None and (height not in (None, sides[0]) or width not in (None, sides[1])):
        wanted_sides = [height or sides[0], width or sides[1]]
        raise DataError(message, f"Set crop or size to {wanted_sides} in the preprocessing.")
    if spec.dtype != preprocess.dtype:
        hint = "Give the data as .npy or .npz arrays."
        if spec.dtype in ("float16", "float32"):
            hint = f'Set dtype to "{spec.dtype}" in the preprocessing.'
        raise DataError(
            f"The preprocessing makes {preprocess.dtype}, the model input {spec.name!r} takes "
            f"{spec.dtype}.",
            hint,
        )
