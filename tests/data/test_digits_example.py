"""The bundled example is what its README says."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import onnxruntime as ort
import torch
from safetensors.torch import load_file

from studio.data import InputSpec, open_data
from studio.resource_files import resource

SPEC = InputSpec("image", (None, 1, 8, 8), np.dtype("float32"))


def logits_and_labels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    session = ort.InferenceSession(resource("examples", "digits", "digits.onnx"))
    (batch,) = open_data(resource("examples", "digits", "test.npz"), [SPEC]).batches(1000)
    (logits,) = session.run(["logits"], batch.inputs)
    return logits, batch.labels, batch.inputs["image"]


def test_accuracy_in_onnxruntime() -> None:
    logits, labels, _ = logits_and_labels()
    assert len(labels) == 360
    assert (logits.argmax(1) == labels).mean() >= 0.97


def test_module_and_onnx_file_agree() -> None:
    path = resource("examples", "digits", "model.py")
    spec = importlib.util.spec_from_file_location("digits_example_model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = module.digits_net().eval()
    net.load_state_dict(load_file(resource("examples", "digits", "weights.safetensors")))
    logits, _, images = logits_and_labels()
    with torch.no_grad():
        wanted = net(torch.from_numpy(images)).numpy()
    assert np.abs(logits - wanted).max() / np.abs(wanted).max() < 1e-5


def test_calibration_data_opens_without_warnings() -> None:
    data = open_data(resource("examples", "digits", "calibration.npz"), [SPEC])
    assert len(data) == 200
    assert data.warnings == ()
    (batch,) = data.batches(200)
    assert batch.inputs["image"].min() == 0
    assert batch.inputs["image"].max() == 1
    assert np.bincount(batch.labels, minlength=10).min() >= 10


def test_the_graph_has_what_the_studio_shows() -> None:
    model = onnx.load(resource("examples", "digits", "digits.onnx"))
    ops = [node.op_type for node in model.graph.node]
    assert ops.count("BatchNormalization") == 6
    assert ops.count("Add") == 2
    groups = [
        attribute.i
        for node in model.graph.node
        for attribute in node.attribute
        if node.op_type == "Conv" and attribute.name == "group"
    ]
    assert max(groups) == 48
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_no_path_of_the_machine_it_was_made_on() -> None:
    model = onnx.load(resource("examples", "digits", "digits.onnx"))
    traces = [entry.value for node in model.graph.node for entry in node.metadata_props]
    assert any('File "model.py"' in text for text in traces)
    assert not [text for text in traces if 'File "/' in text]
