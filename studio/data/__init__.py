"""Datasets and preprocessing: from files to batches of arrays. No Qt, no torch."""

from studio.data.arrays import ArrayData, open_arrays
from studio.data.dataset import Batch, Dataset, InputSpec, evenly_spaced
from studio.data.images import ImageFolder, load_image
from studio.data.opening import guess_for, open_data
from studio.data.preprocess import Preprocess, format_shape
from studio.data.random import RandomData

__all__ = [
    "ArrayData",
    "Batch",
    "Dataset",
    "ImageFolder",
    "InputSpec",
    "Preprocess",
    "RandomData",
    "evenly_spaced",
    "format_shape",
    "guess_for",
    "load_image",
    "open_arrays",
    "open_data",
]
