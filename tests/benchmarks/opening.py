"""Time and peak memory of opening a model, relative to `onnx.load` of the same file.

    python tests/benchmarks/opening.py [--nodes 5000] [--gigabytes 2.2] [--rounds 3]

Both models are made on the spot: one of many small operators, one of a few huge weights in an
external data file. Every figure comes from a process of its own; the best of the rounds counts.
Memory is what a process takes above the same process with its imports only. Mapped pages of the
weights count as memory once read, though they can be dropped at any time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMPORTS = """
import resource, sys, time
import onnx
import studio.graph.open, studio.runtime.ops, onnx.reference.ops
path, idle = sys.argv[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
"""

WORK = {
    "onnx.load": "model = onnx.load(path)",
    "open + prepare": "model = studio.graph.open.open_model(path)",
}

REPORT = """
taken = time.perf_counter() - start
print(taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle)
"""


def many_nodes(path: Path, count: int) -> None:
    """Conv, Relu, Sigmoid, Mul in a chain."""
    random = np.random.default_rng(0)
    nodes, weights, x = [], [], "x"
    for i in range(count // 4):
        kernel = (random.standard_normal((8, 8, 3, 3)) * 0.1).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{i}"))
        nodes += [
            helper.make_node("Conv", [x, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1], name=f"conv{i}"),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"], name=f"relu{i}"),
            helper.make_node("Sigmoid", [f"r{i}"], [f"s{i}"], name=f"sigmoid{i}"),
            helper.make_node("Mul", [f"s{i}", x], [f"m{i}"], name=f"mul{i}"),
        ]
        x = f"m{i}"
    _save(path, nodes, weights, ["N", 8, 16, 16], x, external=False)


def huge_weights(path: Path, gigabytes: float) -> None:
    """Eight matrix products that share the bytes."""
    side = int((gigabytes * 1e9 / 4 / 8) ** 0.5)
    random = np.random.default_rng(0)
    row = random.standard_normal(side).astype(np.float32)
    nodes, weights, x = [], [], "x"
    for i in range(8):
        weights.append(numpy_helper.from_array(np.tile(row / side, (side, 1)), f"w{i}"))
        nodes.append(helper.make_node("MatMul", [x, f"w{i}"], [f"m{i}"], name=f"matmul{i}"))
        x = f"m{i}"
    _save(path, nodes, weights, ["N", side], x, external=True)


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    shape: list[str | int],
    last: str,
    external: bool,
) -> None:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=external)


def measure(path: Path, work: str, rounds: int) -> tuple[float, float]:
    """Seconds and MB of the best round."""
    found = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-c", IMPORTS + WORK[work] + REPORT, str(path)],
            check=True,
            capture_output=True,
            text=True,
        )
        seconds, kib = map(float, done.stdout.split())
        found.append((seconds, kib * 1024 / 1e6))
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--gigabytes", type=float, default=2.2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = {
            f"{options.nodes} nodes": Path(folder) / "nodes.onnx",
            f"{options.gigabytes} GB": Path(folder) / "huge.onnx",
        }
        many_nodes(Path(folder) / "nodes.onnx", options.nodes)
        subprocess.run(  # in a process of its own, whose memory is given back
            [sys.executable, __file__, "--make", str(options.gigabytes), folder], check=True
        )
        for name, path in files.items():
            base = measure(path, "onnx.load", options.rounds)
            print(f"{name}: onnx.load {base[0]:.2f} s, {base[1]:.0f} MB")
            ours = measure(path, "open + prepare", options.rounds)
            print(
                f"    open + prepare {ours[0]:.2f} s, {ours[1]:.0f} MB: time x "
                f"{ours[0] / base[0]:.1f}, memory x {ours[1] / base[1]:.2f}"
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        huge_weights(Path(sys.argv[3]) / "huge.onnx", float(sys.argv[2]))
    else:
        main()
