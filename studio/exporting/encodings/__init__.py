"""Encodings files: scales and zero points of a model's tensors, which runtimes read beside ONNX.

One file a version says how that version is written and read; `stored` is what they share, `match`
brings a file and a model together.
"""

from studio.exporting.encodings.files import (
    DEFAULT_VERSION,
    VERSIONS,
    encodings_document,
    file_of,
    read_encodings,
    version_problem,
    write_document,
)
from studio.exporting.encodings.match import Finding, FindingKind, MatchReport, match_encodings
from studio.exporting.encodings.stored import EncodingsFile, StoredEncoding

__all__ = [
    "DEFAULT_VERSION",
    "VERSIONS",
    "EncodingsFile",
    "Finding",
    "FindingKind",
    "MatchReport",
    "StoredEncoding",
    "encodings_document",
    "file_of",
    "match_encodings",
    "read_encodings",
    "version_problem",
    "write_document",
]
