"""Data like those that the published models were made for: photographs, lines of text, speech-like
sound, sentences."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

RATE = 16000
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

LINES = (
    "Quantization Studio", "Invoice 2024-117", "The quick brown fox", "Total: $1,234.56",
    "Platform 9, 14:05", "jumps over the lazy dog", "Exit through the shop", "No parking today",
    "Room B-204", "support@example.org", "Zurich - Milano", "FRAGILE: handle with care",
)  # fmt: skip

SENTENCES = (
    "A cat sits on the mat.", "Two kittens are sleeping on a sofa.",
    "The stock market fell sharply on Monday.", "Shares dropped as investors sold.",
    "He plays the guitar in a small band.", "She is learning to play the piano.",
    "The recipe needs two eggs and some flour.", "Bake the cake for half an hour.",
    "The train to Berlin leaves at noon.", "Our flight was delayed by three hours.",
    "Neural networks can run with 8-bit integers.", "Quantized models need less memory.",
    "It will rain in the north tomorrow.", "The forecast promises a sunny weekend.",
    "The doctor prescribed a new medicine.", "Patients should take one pill a day.",
)  # fmt: skip


def photographs(folder: Path, count: int, size: tuple[int, int]) -> np.ndarray:
    """`count` pictures of a folder, spread evenly, as (count, height, width, 3) RGB from 0 to 1."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpeg", ".jpg", ".png"))
    picked = [files[index * len(files) // count] for index in range(count)]
    pictures = [
        Image.open(file).convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
        for file in picked
    ]
    return np.stack([np.asarray(picture, np.float32) / 255 for picture in pictures])


def normalised(pictures: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """(n, h, w, c) from 0 to 1 -> (n, c, h, w) with `mean` and `std` taken out."""
    values = (pictures - np.float32(mean)) / np.float32(std)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)


def text_lines(count: int, size: tuple[int, int], upside_down: bool = False) -> np.ndarray:
    """Dark lines of text on light paper, (count, height, width, 3) from 0 to 1."""
    height, width = size
    random = np.random.default_rng(5)
    pictures = []
    for index in range(count):
        paper = random.integers(190, 250)
        picture = Image.new("RGB", (width, height), (paper, paper, int(paper) - 10))
        font = ImageFont.load_default(height * 0.55)
        place = (height * 0.2, height * 0.15)
        ink = tuple(int(v) for v in random.integers(0, 90, 3))
        ImageDraw.Draw(picture).text(place, LINES[index % len(LINES)], fill=ink, font=font)
        if upside_down and index % 2:
            picture = picture.rotate(180)
        grain = random.normal(0, 0.02, (height, width, 3))
        pictures.append(np.clip(np.asarray(picture) / 255 + grain, 0, 1))
    return np.stack(pictures).astype(np.float32)


def pages(folder: Path, count: int, size: tuple[int, int]) -> np.ndarray:
    """Photographs with lines of text on them, as signs have, (count, height, width, 3)."""
    pictures = photographs(folder, count, size)
    height, width = size
    for index, (picture, line) in enumerate(
        zip(pictures, text_lines(count, (height // 8, width * 3 // 4)), strict=True)
    ):
        top, left = (index * 37) % (height * 7 // 8), (index * 13) % (width // 4)
        picture[top : top + height // 8, left : left + width * 3 // 4] = line
    return pictures


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Sound like speech at 16 kHz: syllables of a gliding voice with formants, pauses, hiss."""
    random = np.random.default_rng(seed)
    total = int(seconds * RATE)
    sound = 0.002 * random.standard_normal(total)
    start = int(0.2 * RATE)
    while start < total:
        length = int(random.uniform(0.12, 0.35) * RATE)
        time = np.arange(length) / RATE
        pitch = random.uniform(90, 220) * (1 + random.uniform(-0.3, 0.3) * time / time[-1])
        phase = 2 * np.pi * np.cumsum(pitch) / RATE
        formants = random.uniform((300, 900, 2200), (800, 1800, 3000))
        voice = np.zeros(length)
        for harmonic in range(1, 30):
            heights = np.exp(-(((harmonic * pitch.mean() - formants) / 150) ** 2))
            voice += (0.02 + heights.sum()) / harmonic**0.5 * np.sin(harmonic * phase)
        voice += 0.1 * random.standard_normal(length)
        voice *= np.hanning(length) * random.uniform(0.05, 0.2)
        end = min(start + length, total)
        sound[start:end] += voice[: end - start]
        pause = random.uniform(0.4, 0.8) if random.random() < 0.2 else random.uniform(0, 0.08)
        start = end + int(pause * RATE)
    return sound.astype(np.float32)


def frames(sound: np.ndarray, size: int, step: int) -> np.ndarray:
    """(n, size) overlapping pieces of `sound`, one every `step` samples."""
    return np.lib.stride_tricks.sliding_window_view(sound, size)[::step].astype(np.float32)


class WordPiece:
    """The uncased tokenizer of BERT: lower case, no accents, the longest pieces first."""

    def __init__(self, vocabulary: Path) -> None:
        lines = vocabulary.read_text(encoding="utf-8").splitlines()
        self.numbers = {piece: number for number, piece in enumerate(lines)}

    def encode(self, sentence: str) -> list[int]:
        pieces = itertools.chain.from_iterable(map(self._pieces, self._words(sentence)))
        return [self.numbers[piece] for piece in ("[CLS]", *pieces, "[SEP]")]

    def _words(self, sentence: str) -> list[str]:
        plain = unicodedata.normalize("NFD", sentence.lower())
        marks = (c for c in plain if unicodedata.category(c) != "Mn")
        return "".join(c if c.isalnum() or c.isspace() else f" {c} " for c in marks).split()

    def _pieces(self, word: str) -> Iterator[str]:
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self.numbers:
                    yield piece
                    start = end
                    break
            else:
                yield "[UNK]"
                return


def tokens(vocabulary: Path, sentences: tuple[str, ...] = SENTENCES) -> dict[str, np.ndarray]:
    """`input_ids`, `attention_mask` and `token_type_ids` of the sentences, padded."""
    tokenizer = WordPiece(vocabulary)
    rows = [tokenizer.encode(sentence) for sentence in sentences]
    length = max(map(len, rows))
    ids = np.array([row + [0] * (length - len(row)) for row in rows])
    mask = np.array([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
