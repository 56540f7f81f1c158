"""Encodings files of all versions: samples and our own, written and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from exporting import calibrated, conv_document
from test_encodings_file import reference_net

from studio.errors import ConfigError, ExportError, StudioError
from studio.exporting.encodings import (
    VERSIONS,
    FindingKind,
    encodings_document,
    match_encodings,
    read_encodings,
    version_problem,
    write_document,
)
from studio.graph.open import open_model
from studio.project.document import Document
from studio.quant.encoding import Encoding
from studio.quant.grid import FloatGrid, Grid
from studio.sim.config import QuantConfig
from studio.sim.placement import place
from studio.sim.plan import Plan, QuantSpec, Role, TensorPlan

DATA = Path(__file__).parent / "data"
SAMPLES = sorted(DATA.glob("*.encodings"))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_read_and_written_back_is_the_same_file(path: Path) -> None:
    text = path.read_text("utf-8")
    assert json.dumps(write_document(read_encodings(path)), indent=2) == text


def test_there_are_samples_of_every_version() -> None:
    assert {read_encodings(path).version for path in SAMPLES} == set(VERSIONS)


@pytest.mark.parametrize("kind", ["w8a8_minmax", "bq_fc"])
def test_all_versions_of_a_sample_say_the_same(kind: str, tmp_path: Path) -> None:
    graph = open_model(reference_net(tmp_path / "net.onnx"))
    plan = place(graph, QuantConfig(bias="float"))
    reports = [
        match_encodings(read_encodings(path), graph, plan)
        for path in SAMPLES
        if path.stem.startswith(kind)
    ]
    first = reports[0].encodings
    assert len(first) == 8
    for report in reports:
        assert not report.problems
        assert {name: report.encodings[name] for name in first} == first
        assert set(report.encodings) - set(first) <= {"conv1.bias", "conv2.bias", "fc.bias"}
    weight = first["fc.weight"]
    if kind == "bq_fc":
        assert (weight.grid.bits, weight.axis, weight.block_size) == (4, 1, 16)
        assert weight.scale.shape == (3, 4)
    else:
        assert (weight.axis, weight.scale.shape) == (0, (3,))


def test_matching_names_biases_and_what_is_planned_otherwise(tmp_path: Path) -> None:
    graph = open_model(reference_net(tmp_path / "net.onnx"))
    plan = place(graph, QuantConfig())
    report = match_encodings(read_encodings(DATA / "bq_fc_v200.encodings"), graph, plan)
    (different,) = report.of(FindingKind.DIFFERENT)
    assert different.name == "fc.weight"
    assert "int4 symmetric in blocks of 16" in different.message
    assert not report.of(FindingKind.MISSING, FindingKind.MISFIT, FindingKind.UNKNOWN)
    assert "11 encodings match" in report.summary


# --- our own, written and read --------------------------------------------------------------------


def numbers(*shape: int) -> np.ndarray:
    """Positive float32 numbers."""
    spread = np.random.default_rng(sum(shape)).uniform(0.001, 0.1, shape)
    return np.asarray(spread, np.float32)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.int64)


def low_power(rank4: bool = False) -> Encoding:
    integers = np.random.default_rng(3).integers(1, 17, (6, 4, 3, 3) if rank4 else (6, 4))
    if rank4:
        integers = np.broadcast_to(integers[..., :1, :1], integers.shape).copy()
    channels = numbers(6).reshape(6, *[1] * (integers.ndim - 1))
    scale = (integers.astype(np.float32) * channels).astype(np.float32)
    grid = Grid(4, signed=True, symmetric=True)
    return Encoding(grid, scale, np.zeros_like(integers), 1, 8, integers)


SHAPES = {"a": (2, 6, 8), "w": (6, 32), "k": (6, 32, 3, 3), "m": (32, 6)}
"""Tensors of the graph below: an activation and weights."""

CASES: dict[str, tuple[str, Encoding]] = {
    "uint8": ("a", Encoding(Grid(8, False, False), numbers(), zeros() + 37)),
    "uint8 without negative values": ("a", Encoding(Grid(8, False, False), numbers(), zeros())),
    "int8 asymmetric": ("a", Encoding(Grid(8, True, False), numbers(), zeros() - 5)),
    "uint8 symmetric": ("a", Encoding(Grid(8, False, True), numbers(), zeros() + 128)),
    "unsigned symmetric": (
        "a",
        Encoding(Grid(8, False, True, unsigned_symmetric=True), numbers(), zeros()),
    ),
    "uint16": ("a", Encoding(Grid(16, False, False), numbers(), zeros() + 30000)),
    "float16": ("a", Encoding(FloatGrid("float16"), np.ones((), np.float32), zeros())),
    "float8": ("a", Encoding(FloatGrid("float8e4m3fn"), numbers(), zeros())),
    "int8 per tensor": ("w", Encoding(Grid(8, True, True), numbers(), zeros())),
    "int8 per channel": ("w", Encoding(Grid(8, True, True), numbers(6), zeros(6), 0)),
    "strict": ("w", Encoding(Grid(8, True, True, strict=True), numbers(6), zeros(6), 0)),
    "int6 per channel": ("w", Encoding(Grid(6, True, True), numbers(6), zeros(6), 0)),
    "other axis": ("m", Encoding(Grid(8, True, True), numbers(6), zeros(6), 1)),
    "asymmetric per channel": (
        "w",
        Encoding(Grid(4, False, False), numbers(6), np.arange(6), 0),
    ),
    "blocks": ("w", Encoding(Grid(4, True, True), numbers(6, 4), zeros(6, 4), 1, 8)),
    "asymmetric blocks": (
        "w",
        Encoding(Grid(4, False, False), numbers(6, 4), zeros(6, 4) + 3, 1, 8),
    ),
    "blocks of a MatMul": ("m", Encoding(Grid(4, True, True), numbers(4, 6), zeros(4, 6), 0, 8)),
    "blocks with a rest": ("w", Encoding(Grid(4, True, True), numbers(6, 3), zeros(6, 3), 1, 12)),
    "blocks of a Conv": (
        "k",
        Encoding(Grid(4, True, True), numbers(6, 4, 3, 3), zeros(6, 4, 3, 3), 1, 8),
    ),
    "low-power blocks": ("w", low_power()),
    "low-power blocks of a Conv": ("k", low_power(rank4=True)),
    "float4 blocks": ("w", Encoding(FloatGrid("float4e2m1"), numbers(6, 4), zeros(6, 4), 1, 8)),
    "bfloat16": ("w", Encoding(FloatGrid("bfloat16"), np.ones((), np.float32), zeros())),
}


def plan_for(name: str, encoding: Encoding) -> Plan:
    role = Role.ACTIVATION if name == "a" else Role.WEIGHT
    spec = QuantSpec(
        encoding.grid,
        encoding.axis,
        "minmax",
        encoding.block_size,
        encoding.integer_scale is not None,
    )
    return Plan("onnxruntime", (), {name: TensorPlan(name, role, "layer", spec, "test")})


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tensors of SHAPES, each read by an operator."""
    import small_models
    from onnx import helper

    path = tmp_path_factory.mktemp("encodings") / "net.onnx"
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "relu"),
        helper.make_node("Gemm", ["y", "w"], ["g"], "gemm", transB=1),
        helper.make_node("MatMul", ["y", "m"], ["p"], "matmul"),
        helper.make_node("Conv", ["z", "k"], ["c"], "conv"),
    ]
    inputs = {"x": SHAPES["a"], "y": (2, 32), "z": (1, 32, 5, 5)}
    outputs = {"a": SHAPES["a"], "g": (2, 6), "p": (2, 6), "c": (1, 6, 3, 3)}
    constants = {name: small_models.numbers(7, *SHAPES[name]) for name in "wkm"}
    small_models.build(
        path,
        nodes,
        {name: (small_models.FLOAT, list(shape)) for name, shape in inputs.items()},
        {name: (small_models.FLOAT, list(shape)) for name, shape in outputs.items()},
        constants,
    )
    return open_model(path)


def unwritable(encoding: Encoding, version: str) -> bool:
    floating = isinstance(encoding.grid, FloatGrid) and encoding.grid.format != "float16"
    return floating and version in ("0.6.1", "1.0.0")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_what_is_written_is_read_again(case: str, version: str, graph: Any, tmp_path: Path) -> None:
    name, encoding = CASES[case]
    plan = plan_for(name, encoding)
    if unwritable(encoding, version):
        assert name in version_problem(plan, {name: encoding}, version)
        with pytest.raises(ExportError, match=f"{version}.*{name}"):
            encodings_document(plan, {name: encoding}, version)
        return
    assert version_problem(plan, {name: encoding}, version) == ""
    path = tmp_path / "file.encodings"
    path.write_text(json.dumps(encodings_document(plan, {name: encoding}, version)), "utf-8")
    report = match_encodings(read_encodings(path), graph, plan)
    unlisted = version.startswith("2.") and not getattr(encoding.grid, "scaled", True)
    if unlisted:
        assert not report.encodings
        assert not report.findings
        return
    found = report.encodings[name]
    if version == "0.6.1" and encoding.integer_scale is not None:  # written as plain blocks
        assert np.array_equal(found.scale, encoding.scale)
        assert (found.axis, found.block_size) == (encoding.axis, encoding.block_size)
        return
    assert found == encoding
    assert not report.findings


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_the_numbers_hold_without_a_plan(case: str, version: str, graph: Any) -> None:
    """A model that is not configured gets the same rounded numbers from the file."""
    name, encoding = CASES[case]
    if unwritable(encoding, version) or not getattr(encoding.grid, "scaled", True):
        return
    if version == "0.6.1" and case == "blocks with a rest":
        return  # 0.6.1 says neither the block size nor the axis
    file_plan = plan_for(name, encoding)
    row = TensorPlan(name, file_plan.tensors[name].role, "layer", None, "test")
    bare = Plan("onnxruntime", (), {name: row})
    document = encodings_document(file_plan, {name: encoding}, version)
    found = match_encodings(read(document), graph, bare).encodings[name]
    array = np.random.default_rng(1).standard_normal(SHAPES[name]).astype(np.float32)
    if case == "strict" and version.startswith("2."):
        array = np.clip(array, encoding.minimum.min(), None)
        np.testing.assert_array_equal(found.scale, encoding.scale)
        return
    expected = encoding.quantize_dequantize(array)
    np.testing.assert_array_equal(found.quantize_dequantize(array), expected)


def read(document: dict[str, Any]) -> Any:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.encodings"
        path.write_text(json.dumps(document), "utf-8")
        return read_encodings(path)


# --- by the formulas of each version --------------------------------------------------------------


def test_2_0_0_is_onnx_dequantize_linear(graph: Any) -> None:
    """Integers of each entry, put into ONNX's formula by hand."""
    for case in ("uint8", "int8 asymmetric", "asymmetric per channel", "int6 per channel"):
        name, encoding = CASES[case]
        document = encodings_document(plan_for(name, encoding), {name: encoding}, "2.0.0")
        (entry,) = document["encodings"]
        array = np.random.default_rng(2).standard_normal(SHAPES[name]).astype(np.float32)
        along = [1] * array.ndim
        if "axis" in entry:
            along[entry["axis"]] = -1
        scale = np.asarray(entry["y_scale"], np.float32).reshape(along)
        zero = np.asarray(entry.get("y_zero_point", 0)).reshape(along)
        bits = int(entry["output_dtype"].split("int")[1])
        low = 0 if entry["output_dtype"].startswith("u") else -(2 ** (bits - 1))
        integers = np.clip(np.rint(array / scale) + zero, low, low + 2**bits - 1)
        expected = (integers - zero).astype(np.float32) * scale
        np.testing.assert_array_equal(encoding.quantize_dequantize(array), expected)


@pytest.mark.parametrize("version", ["0.6.1", "1.0.0"])
def test_older_versions_count_from_the_lowest_integer(version: str) -> None:
    """real = (q + offset) * scale with q = 0 ... 2**bits - 1."""
    name, encoding = CASES["uint8"]
    document = encodings_document(plan_for(name, encoding), {name: encoding}, version)
    part = document["activation_encodings"]
    entry = part["a"][0] if version == "0.6.1" else part[0]
    offset, scale = np.ravel(entry["offset"])[0], np.ravel(entry["scale"])[0]
    assert offset == -37
    if version == "0.6.1":
        assert entry["min"] == pytest.approx(offset * scale)
        assert entry["max"] == pytest.approx((255 + offset) * scale)


def test_low_power_blocks_are_integers_times_a_scale_a_channel() -> None:
    encoding = low_power()
    plan = plan_for("w", encoding)
    one = encodings_document(plan, {"w": encoding}, "1.0.0")["param_encodings"][0]
    assert (one["enc_type"], one["compressed_bw"], one["bw"]) == ("LPBQ", 4, 8)
    assert one["offset"] == [-128] * 6
    integers = np.reshape(one["per_block_int_scale"], (6, 4)).astype(np.float32)
    scale = np.asarray(one["scale"], np.float32)[:, None]
    np.testing.assert_array_equal(integers * scale, encoding.scale)
    two = encodings_document(plan, {"w": encoding}, "2.0.0")["encodings"][0]
    assert np.shape(two["per_channel_float_scale"]) == (6, 1)
    assert np.shape(two["per_block_int_scale"]) == (6, 4)
    new = encodings_document(plan, {"w": encoding}, "2.1.0")["encodings"][0]["y_scale"]
    assert new["axis"] == -2
    np.testing.assert_array_equal(new["x"], integers)


def test_nvfp4_scales_are_multiplied_out(graph: Any) -> None:
    """Version 2.1.0: block scales in float8 behind one scale for the tensor."""
    inner = np.asarray(numbers(6, 4) * 100, ml_dtypes.float8_e4m3fn).astype(np.float64)
    entry = {
        "name": "w",
        "output_dtype": "float4e2m1",
        "y_scale": {"x": inner.tolist(), "x_scale": 0.25, "input_dtype": "float8e4m3fn"},
        "axis": 1,
        "block_size": 8,
    }
    file = read({"version": "2.1.0", "encodings": [entry]})
    plan = Plan("t", (), {"w": TensorPlan("w", Role.WEIGHT, "layer", None, "test")})
    found = match_encodings(file, graph, plan).encodings["w"]
    np.testing.assert_array_equal(found.scale, (inner * 0.25).astype(np.float32))


def test_biases_are_listed_from_2_0_0_on(tmp_path: Path) -> None:
    document = conv_document(tmp_path)
    for version in VERSIONS:
        file = read(encodings_document(document.plan, document.encodings, version))
        listed = "b1" in file.encodings
        assert listed == version.startswith("2.")
        assert file.biases == listed
    bias = file.encodings["b1"]
    source, weight = document.encodings["x"], document.encodings["w1"]
    np.testing.assert_array_equal(bias.scale.astype(np.float32), source.scale * weight.scale)


def test_nothing_is_missing(tmp_path: Path) -> None:
    document = conv_document(tmp_path)
    for version in VERSIONS:
        file = read(encodings_document(document.plan, document.encodings, version))
        report = match_encodings(file, document.graph, document.plan)
        assert not report.findings
        for name, encoding in report.encodings.items():
            assert encoding == document.encodings[name]


# --- what is wrong with a file --------------------------------------------------------------------

NEW = {"name": "x", "output_dtype": "uint8", "y_scale": 0.1, "y_zero_point": 3}
OLD = {
    "name": "x", "dtype": "INT", "bw": 8, "is_sym": False, "scale": [0.1], "offset": [-3],
    "enc_type": "PER_TENSOR",
}  # fmt: skip
OLDEST = {"scale": 0.1, "offset": -3, "bitwidth": 8, "dtype": "int", "is_symmetric": "False"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"y_scale": float("nan")}, "'x'.*nan"),
        ({"y_scale": float("inf")}, "'x'.*inf"),
        ({"y_scale": -0.1}, "'x'.*-0.1"),
        ({"y_scale": 0.0}, "'x'.*positive"),
        ({"y_scale": 1e-60}, "'x'.*positive"),
        ({"y_scale": "a lot"}, "'x'.*not numbers"),
        ({"y_scale": []}, "'x'.*not numbers"),
        ({"y_scale": None}, "'x'.*not numbers"),
        ({"y_scale": [[0.1], [0.1, 0.2]]}, "'x'.*different lengths"),
        ({"y_scale": [0.1, 0.2]}, "'x'.*zero_point|'x'.*axis"),
        ({"output_dtype": "complex64"}, "'x'.*complex64"),
        ({"output_dtype": "int99"}, "'x'.*int99"),
        ({"output_dtype": None}, "'x'.*output_dtype"),
        ({"y_zero_point": 256}, "'x'.*256"),
        ({"y_zero_point": 0.5}, "'x'.*integer"),
        ({"y_zero_point": 10**30}, "'x'.*"),
        ({"name": ["x"]}, "name"),
        ({"name": ""}, "name"),
        ({"output_dtype": "float8e4m3fn"}, "'x'.*zero point"),
        ({"y_scale": [[0.1, 0.2]], "y_zero_point": None, "axis": 1}, "'x'.*block_size"),
        ({"axis": "left"}, "'x'.*axis"),
        ({"per_block_int_scale": [[1]]}, "'x'.*per_channel_float_scale"),
    ],
)
@pytest.mark.parametrize("version", ["2.0.0", "2.1.0"])
def test_bad_entries_of_2_are_named(version: str, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read({"version": version, "encodings": [{**NEW, **change}]})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scale": [float("nan")]}, "'x'.*nan"),
        ({"scale": [0.1, 0.1]}, "'x'.*2 scales"),
        ({"scale": [0.1, 0.1], "offset": [0, 0]}, "'x'.*PER_TENSOR with 2"),
        ({"dtype": "STRING"}, "'x'.*STRING"),
        ({"bw": 0}, "'x'.*bw 0"),
        ({"bw": "8"}, "'x'.*no integer"),
        ({"is_sym": "maybe"}, "'x'.*maybe"),
        ({"is_sym": True}, "'x'.*symmetric with offset -3"),
        ({"offset": [4]}, "'x'.*offset 4"),
        ({"offset": [-300]}, "'x'.*-300"),
        ({"enc_type": "VECTOR"}, "'x'.*VECTOR"),
        ({"enc_type": "PER_BLOCK"}, "'x'.*block_size"),
        ({"enc_type": "LPBQ", "block_size": 8, "compressed_bw": 4}, "'x'.*per_block_int_scale"),
        ({"zero_point_shift": [0.5]}, "'x'.*zero_point_shift"),
        ({"name": None}, "name"),
    ],
)
def test_bad_entries_of_1_0_0_are_named(change: dict[str, Any], says: str) -> None:
    entries = [{**OLD, **change}]
    with pytest.raises(ConfigError, match=says):
        read({"version": "1.0.0", "activation_encodings": entries, "param_encodings": []})


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([{**OLDEST, "scale": -1}], "'x'.*-1"),
        ([{**OLDEST, "dtype": "word"}], "'x'.*word"),
        ([OLDEST, {**OLDEST, "bitwidth": 4}], "'x'.*mixes"),
        ([], "'x'.*no list of entries"),
        ("x", "'x'.*no list of entries"),
        ([7], "'x'.*int"),
        ([{**OLDEST, "is_symmetric": 3}], "'x'.*neither"),
    ],
)
def test_bad_entries_of_0_6_1_are_named(entries: Any, says: str) -> None:
    document = {"version": "0.6.1", "activation_encodings": {"x": entries}, "param_encodings": {}}
    with pytest.raises(ConfigError, match=says):
        read(document)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be read"),
        ('{"version": "1.0.0", "activation_enc', "cannot be read"),
        ("[]", "which version"),
        ("{}", "which version"),
        ('{"version": 1}', "which version"),
        ('{"version": "3.0.0"}', "unknown encodings version '3.0.0'"),
        ('{"version": "2.0.0"}', "encodings"),
        ('{"version": "2.0.0", "encodings": {}}', "no list"),
        ('{"version": "2.0.0", "encodings": [3]}', "int"),
        ('{"version": "1.0.0", "activation_encodings": {}}', "no list"),
        ('{"version": "0.6.1", "activation_encodings": []}', "no object"),
        ("[" * 100_000, "cannot be read"),
        ('{"version": "2.0.0", "encodings": [NEW, NEW]}', "two encodings for 'x'"),
        ("\ud800", "cannot be read"),
    ],
)
def test_a_file_that_is_none_is_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.encodings"
    filled = text.replace("NEW", json.dumps(NEW))
    path.write_bytes(filled.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match=says) as caught:
        read_encodings(path)
    assert "bad.encodings" in str(caught.value)
    assert caught.value.hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=r"none\.encodings"):
        read_encodings(tmp_path / "none.encodings")


def test_an_unknown_version_cannot_be_written(tmp_path: Path) -> None:
    document = conv_document(tmp_path)
    with pytest.raises(ConfigError, match=r"'3\.0'"):
        encodings_document(document.plan, document.encodings, "3.0")


# --- names and shapes -----------------------------------------------------------------------------


@pytest.fixture
def net(tmp_path: Path) -> Document:
    return conv_document(tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
def test_findings_are_named_with_what_to_do(version: str, net: Document) -> None:
    kept = {name: item for name, item in net.encodings.items() if name not in ("r1", "b1")}
    document = encodings_document(net.plan, kept, version)
    text = json.dumps(document).replace('"scores"', '"scores_0"')
    report = match_encodings(read(json.loads(text)), net.graph, net.plan)
    (unknown,) = report.of(FindingKind.UNKNOWN)
    assert unknown.name == "scores_0"
    assert "'scores'" in unknown.message and "'scores'" in unknown.action
    missing = {finding.name for finding in report.of(FindingKind.MISSING)}
    assert missing == {"r1", "scores", *(["b1"] if version.startswith("2.") else [])}
    assert report.problems == (unknown,)
    with pytest.raises(ConfigError, match="scores_0"):
        report.require()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_wrong_number_of_channels_is_named(version: str, net: Document) -> None:
    wrong = Encoding(Grid(8, True, True), numbers(7), zeros(7), 0)
    document = encodings_document(net.plan, {**net.encodings, "w1": wrong}, version)
    report = match_encodings(read(document), net.graph, net.plan)
    (misfit,) = report.of(FindingKind.MISFIT)
    assert misfit.name == "w1"
    assert "7 scales" in misfit.message
    assert "[4, 3, 3, 3]" in misfit.message


def test_blocks_and_axes_that_do_not_fit_are_named(net: Document) -> None:
    for change in (
        {"axis": 4, "y_scale": [0.1, 0.1]},
        {"axis": 1, "block_size": 8, "y_scale": [[0.1], [0.1]]},
        {"axis": 1, "block_size": 1, "y_scale": [[0.1, 0.2]]},
    ):
        entry = {"name": "w1", "output_dtype": "int8", **change}
        report = match_encodings(
            read({"version": "2.0.0", "encodings": [entry]}), net.graph, net.plan
        )
        assert [finding.name for finding in report.of(FindingKind.MISFIT)] == ["w1"]


def test_a_tensor_that_preparation_removed_is_no_error(tmp_path: Path) -> None:
    import small_models
    from onnx import helper

    path = small_models.build(
        tmp_path / "net.onnx",
        [
            helper.make_node("Identity", ["x"], ["same"], "same"),
            helper.make_node("Relu", ["same"], ["y"], "relu"),
        ],
        {"x": (small_models.FLOAT, [1, 4])},
        {"y": (small_models.FLOAT, [1, 4])},
        {},
    )
    document = calibrated(path, {"x": small_models.numbers(1, 3, 4)[:1]})
    file = read({"version": "2.0.0", "encodings": [{**NEW, "name": "same"}, NEW]})
    report = match_encodings(file, document.graph, document.plan)
    assert [finding.name for finding in report.of(FindingKind.PREPARED_AWAY)] == ["same"]
    assert not report.problems


def test_an_integer_tensor_has_no_encoding(tmp_path: Path) -> None:
    import small_models

    document = calibrated(
        small_models.transformer(tmp_path / "t.onnx"),
        {"tokens": np.random.default_rng(0).integers(0, 11, (4, 6))},
    )
    file = read({"version": "2.0.0", "encodings": [{**NEW, "name": "tokens"}]})
    report = match_encodings(file, document.graph, document.plan)
    assert "int64" in report.of(FindingKind.MISFIT)[0].message
