"""The validation report: says what is wrong with a model, and nothing about a good one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from studio.analysis.validation import Finding, Severity, Validation
from studio.project.steps import open_document
from studio.project.validation import validate_document
from studio.sim.config import QuantConfig

RANDOM = np.random.default_rng(0)


def weight(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def save(
    folder: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    shape: tuple[int | str, ...],
) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def node(op: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name=f"{op}_{output}", **attributes)


def report(path: Path, target: str = "onnxruntime") -> Validation:
    return validate_document(open_document(path, config=QuantConfig(target=target)))


def about(validation: Validation, topic: str) -> list[Finding]:
    return [finding for finding in validation.findings if finding.topic == topic]


def test_a_good_model_has_no_findings(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], "c"), node("Relu", ["c"], "y")]
    found = report(save(tmp_path, nodes, {"w": weight(8, 3, 3, 3)}, ("N", 3, 16, 16)))
    assert found.findings == ()
    assert found.macs == found.integer_macs == 14 * 14 * 8 * 27
    assert found.dynamic == (("x", "N×3×16×16"),)


def test_weights_without_a_range(tmp_path: Path) -> None:
    bad = weight(8, 3, 3, 3)
    bad[2, 0, 0, 0] = np.nan
    path = save(tmp_path, [node("Conv", ["x", "w"], "y")], {"w": bad}, ("N", 3, 16, 16))
    (finding,) = about(report(path), "weights")
    assert finding.severity is Severity.ERROR
    assert finding.where == "w"
    assert finding.layer == "Conv_y"


def test_channels_of_zeros_are_named(tmp_path: Path) -> None:
    dead = weight(8, 3, 3, 3)
    dead[[1, 5]] = 0
    path = save(tmp_path, [node("Conv", ["x", "w"], "y")], {"w": dead}, ("N", 3, 16, 16))
    (finding,) = about(report(path), "weights")
    assert "2 of 8 channels" in finding.message
    assert "1, 5" in finding.message


def test_layers_the_target_has_no_integer_kernel_for(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w"], "c"),
        node("ConvTranspose", ["c", "v"], "t"),
        node("Resize", ["t", "", "scales"], "y", mode="linear"),
    ]
    constants = {
        "w": weight(8, 3, 1, 1),
        "v": weight(8, 2, 1, 1),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    path = save(tmp_path, nodes, constants, ("N", 3, 16, 16))
    found = report(path)
    integer = {layer.name: layer.integer for layer in found.layers}
    assert integer == {"Conv_c": True, "ConvTranspose_t": False, "Resize_y": False}
    assert found.macs - found.integer_macs == 16 * 16 * 8 * 2
    messages = [finding.message for finding in about(found, "float layers")]
    assert any("ConvTranspose" in text and "%" in text for text in messages)
    assert any("mode=nearest" in text for text in messages)
    assert all(layer.integer for layer in report(path, "qualcomm-htp").layers)


def test_a_layer_switched_off_runs_in_float_and_says_why(tmp_path: Path) -> None:
    path = save(
        tmp_path, [node("Conv", ["x", "w"], "y")], {"w": weight(8, 3, 3, 3)}, ("N", 3, 9, 9)
    )
    config = QuantConfig().with_layers(["Conv_y"], act_enabled=False)
    found = validate_document(open_document(path, config=config))
    (layer,) = found.layers
    assert "switched off" in layer.reason
    assert ("y",) in [group.tensors for group in found.float_tensors]


def test_open_sizes_matter_to_a_chip_that_wants_them_fixed(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], "y")]
    path = save(tmp_path, nodes, {"w": weight(8, 3, 3, 3)}, ("N", 3, "H", "W"))
    (open_sizes,) = about(report(path), "shapes")
    assert open_sizes.severity is Severity.NOTE
    (fixed,) = about(report(path, "qualcomm-htp"), "shapes")
    assert fixed.severity is Severity.WARNING
    assert "N×3×H×W" in fixed.message


def test_shapes_and_indices_are_no_float_layers(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["x"], "s"),
        node("Gather", ["s", "first"], "n"),
        node("Unsqueeze", ["n", "axis"], "u"),
        node("Concat", ["u", "rest"], "t", axis=0),
        node("Reshape", ["x", "t"], "r"),
        node("MatMul", ["r", "w"], "y"),
    ]
    constants = {
        "first": np.array(0),
        "axis": np.array([0]),
        "rest": np.array([-1]),
        "w": weight(48, 4),
    }
    path = save(tmp_path, nodes, constants, ("N", 3, 4, 4))
    assert about(report(path), "float layers") == []


def test_a_model_that_does_not_run_on_the_sample(tmp_path: Path) -> None:
    """Two inputs whose open sizes must agree in a way no guess can know."""
    nodes = [
        node("Slice", ["x", "zero", "one", "axis"], "a"),
        node("Reshape", ["x", "shape"], "b"),
        node("MatMul", ["b", "w"], "c"),
        node("Add", ["c", "a"], "y"),
    ]
    constants = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "axis": np.array([1]),
        "shape": np.array([-1, 7]),
        "w": weight(7, 1),
    }
    found = report(save(tmp_path, nodes, constants, ("N", "L")))
    (finding,) = about(found, "cost")
    assert "did not run" in finding.message
    assert found.unknown_macs == ("MatMul_c",)


@pytest.mark.parametrize("severity", list(Severity))
def test_findings_come_worst_first(severity: Severity, tmp_path: Path) -> None:
    bad = weight(8, 3, 3, 3)
    bad[0, 0, 0, 0] = np.inf
    nodes = [node("Conv", ["x", "w"], "c"), node("Tanh", ["c"], "t"), node("Exp", ["t"], "y")]
    found = report(save(tmp_path, nodes, {"w": bad}, ("N", 3, "H", "W")), "onnxruntime")
    order = [finding.severity for finding in found.findings]
    assert order == sorted(order, key=list(Severity).index)
    assert found.count(severity) == order.count(severity)


def test_arithmetic_of_sizes_is_not_counted(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w"], "c"),
        node("Shape", ["x"], "s"),
        node("Gather", ["s", "first"], "n"),
        node("Concat", ["n", "rest"], "t", axis=0),
        node("Reshape", ["c", "t"], "y"),
    ]
    constants = {"w": weight(8, 3, 3, 3), "first": np.array([0]), "rest": np.array([-1])}
    path = save(tmp_path, nodes, constants, ("N", 3, "h", "w0"))
    document = open_document(path, without=("constant shapes",))
    found = validate_document(document)
    assert [layer.name for layer in found.layers] == ["Conv_c", "Reshape_y"]
    assert (
        found.shape_layers
        == ("Shape_s", "Gather_n", "Concat_t")
        == tuple(
            layer.name for layer in document.plan.layers if layer.name in document.shape_layers
        )
    )
    assert not {"s", "n", "t"} & {name for group in found.float_tensors for name in group.tensors}


def test_every_operator_that_cannot_be_executed_is_listed_with_all_layers(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], "c")]
    nodes += [node("Warp", [f"t{i - 1}" if i else "c"], f"t{i}", domain="acme") for i in range(7)]
    nodes += [node("Bend", ["t6"], "b", domain="acme"), node("Relu", ["b"], "y")]
    path = save(tmp_path, nodes, {"w": weight(8, 3, 3, 3)}, ("N", 3, 16, 16))
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("acme", 1))
    onnx.save(model, path)
    found = validate_document(open_document(path, executable=False))
    listed = about(found, "operators")
    assert [finding.where for finding in listed] == ["acme::Warp (opset 1)", "acme::Bend (opset 1)"]
    assert all(finding.severity is Severity.ERROR for finding in listed)
    assert all(f"Warp_t{i}" in listed[0].message for i in range(7))
    assert listed[0].layer == "Warp_t0"
    assert found.macs == 14 * 14 * 8 * 27, "what is known of the sizes is used"


def test_a_recognised_layer_is_said_to_run_in_float_for_what_it_is(tmp_path: Path) -> None:
    """HardSwish written out: its constants are parameters, not what keeps it in float."""
    nodes = [
        node("Add", ["x", "three"], "a"),
        node("Clip", ["a", "zero", "six"], "c"),
        node("Mul", ["x", "c"], "m"),
        node("Div", ["m", "six"], "y"),
    ]
    numbers = {"three": 3.0, "zero": 0.0, "six": 6.0}
    constants = {name: np.array(number, np.float32) for name, number in numbers.items()}
    path = save(tmp_path, nodes, constants, ("N", 3, 16, 16))
    (layer,) = report(path).layers
    assert (layer.title, layer.integer) == ("HardSwish", False)
    assert "computes the operators of a recognised HardSwish in float" in layer.reason
    (layer,) = report(path, "qualcomm-htp").layers
    assert layer.integer
