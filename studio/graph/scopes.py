"""Where in a PyTorch module a node comes from."""

from __future__ import annotations

import ast
import functools
import re

import onnx_ir as ir

SCOPES = "pkg.torch.onnx.name_scopes"
# Node names torch's exporter makes up: node_conv2d_3, and n4, n4_1 for its inlined functions.
AUTOMATIC = re.compile(r"node_.*|n\d+(_\d+)?")
NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"


def scope(node: ir.Node) -> str:
    """The torch module a node comes from (`features.3.conv`); empty if it comes from none."""
    return _innermost(node.metadata_props.get(SCOPES, ""))


def title(node: ir.Node) -> str:
    """How messages name a node: its name, or the module it stems from if the name is made up."""
    name = node.name or node.op_type
    return (scope(node) or name) if has_automatic_name(node) else name


def has_automatic_name(node: ir.Node) -> bool:
    """True if torch's exporter made the node's name up."""
    return SCOPES in node.metadata_props and AUTOMATIC.fullmatch(node.name or "") is not None


@functools.lru_cache(maxsize=16384)
def _innermost(scopes: str) -> str:
    """Scopes are written outermost first; the last is the operator itself."""
    try:
        names = ast.literal_eval(scopes) if scopes else []
    except (ValueError, SyntaxError):
        return ""
    inner = str(names[-2]) if isinstance(names, list) and len(names) > 1 else ""
    return "" if inner == NO_MODULE else inner
