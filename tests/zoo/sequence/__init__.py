"""Speech, sound, text, series, points, graphs, tables, video and diffusion."""

from __future__ import annotations

from ..registry import Entry, Input


def _tokens(
    length: int, below: int, name: str, *, dynamic: bool = True, kind: str = "integers"
) -> Input:
    return Input((1, length), kind, below, dynamic=(1,) if dynamic else (), name=name)


def _series(
    shape: tuple[int, ...], name: str, kind: str = "normal", dynamic: tuple[int, ...] = ()
) -> Input:
    return Input((1, *shape), kind, dynamic=dynamic, name=name)


_SPEECH = (
    Entry(
        "deepspeech2",
        "speech recognition",
        "sequence/speech.py",
        "deep_speech2",
        (_series((1, 64, 96), "spectrogram", dynamic=(3,)),),
        ((3, 1, 64, 70),),
    ),
    Entry(
        "quartznet",
        "speech recognition",
        "sequence/speech.py",
        "quartz_net",
        (_series((64, 96), "features", dynamic=(2,)),),
        ((3, 64, 80),),
    ),
    Entry(
        "jasper",
        "speech recognition",
        "sequence/speech.py",
        "jasper",
        (_series((64, 96), "features", dynamic=(2,)),),
        ((3, 64, 81),),
    ),
    Entry(
        "ds-cnn",
        "keyword spotting",
        "sequence/speech.py",
        "ds_cnn",
        (_series((1, 49, 10), "coefficients"),),
        ((3, 1, 49, 10),),
    ),
    Entry(
        "ecapa-tdnn",
        "speaker recognition",
        "sequence/speech.py",
        "ecapa_tdnn",
        (_series((40, 80), "features", dynamic=(2,)),),
        ((3, 40, 60),),
    ),
    Entry(
        "x-vector",
        "speaker recognition",
        "sequence/speech.py",
        "x_vector",
        (_series((24, 80), "coefficients", dynamic=(2,)),),
        ((3, 24, 60),),
    ),
    Entry(
        "conformer",
        "speech recognition",
        "sequence/speech_transformers.py",
        "conformer",
        (_series((64, 40), "features"),),
        ((3, 64, 40),),
        note="its relative positions are made for one length",
    ),
    Entry(
        "whisper-encoder",
        "speech recognition",
        "sequence/speech_transformers.py",
        "whisper_encoder",
        (_series((80, 200), "mel"),),
        ((3, 80, 200),),
        note="its positions are made for one length",
    ),
    Entry(
        "wav2vec2",
        "speech recognition",
        "sequence/speech_transformers.py",
        "wav2vec2",
        (_series((8000,), "wave", "sound", dynamic=(1,)),),
        ((3, 6000),),
    ),
)

_SOUND = (
    Entry(
        "wavenet",
        "sound synthesis",
        "sequence/audio.py",
        "wave_net",
        (_tokens(128, 256, "samples"),),
        ((3, 90),),
    ),
    Entry(
        "hifi-gan",
        "sound synthesis",
        "sequence/audio.py",
        "hifi_gan",
        (_series((40, 24), "mel", dynamic=(2,)),),
        ((3, 40, 31),),
    ),
    Entry(
        "tacotron-cbhg",
        "speech synthesis",
        "sequence/audio.py",
        "tacotron_cbhg",
        (_tokens(30, 40, "characters"),),
        ((3, 21),),
    ),
    Entry(
        "conv-tasnet",
        "source separation",
        "sequence/audio.py",
        "conv_tasnet",
        (_series((1, 800), "wave", "sound", dynamic=(2,)),),
        ((3, 1, 640),),
    ),
    Entry(
        "demucs",
        "source separation",
        "sequence/audio.py",
        "demucs",
        (_series((1, 1024), "mix", "sound"),),
        ((3, 1, 1024),),
        note="needs a multiple of 64 samples",
    ),
)

_RECURRENT = (
    Entry(
        "crnn",
        "text in images",
        "sequence/recurrent.py",
        "crnn",
        (Input((1, 1, 32, 96), dynamic=(3,), name="image"),),
        ((3, 1, 32, 128),),
    ),
    Entry(
        "lstm-lm",
        "language model",
        "sequence/recurrent.py",
        "lstm_language_model",
        (_tokens(20, 200, "words"),),
        ((3, 13),),
    ),
    Entry(
        "lstm-step",
        "language model",
        "sequence/recurrent.py",
        "lstm_step",
        (
            Input((1, 1), "integers", 200, name="words"),
            Input((2, 1, 32), "sound", name="hidden"),
            Input((2, 1, 32), "sound", name="cell"),
        ),
        fixed_batch="its states have the batch on axis 1",
    ),
    Entry(
        "gru-lm",
        "language model",
        "sequence/recurrent.py",
        "gru_language_model",
        (_tokens(20, 200, "words"),),
        ((3, 13),),
    ),
    Entry(
        "seq2seq-attention",
        "translation",
        "sequence/recurrent.py",
        "seq2seq_attention",
        (_tokens(9, 100, "source", dynamic=False), _tokens(7, 100, "target", dynamic=False)),
        ((3, 9), (3, 7)),
        note="the decoder's loop over the target is written out, which fixes both lengths",
    ),
    Entry(
        "conv-lstm",
        "video",
        "sequence/recurrent.py",
        "conv_lstm",
        (_series((4, 1, 16, 16), "frames", "uniform"),),
        ((3, 4, 1, 16, 16),),
    ),
    Entry(
        "tcn",
        "time series",
        "sequence/recurrent.py",
        "tcn",
        (_series((1, 64), "series", "sound", dynamic=(2,)),),
        ((3, 1, 100),),
    ),
    Entry(
        "n-beats",
        "time series",
        "sequence/recurrent.py",
        "n_beats",
        (_series((30,), "series", "sound"),),
        ((3, 30),),
    ),
)

_TEXT = (
    Entry(
        "bert",
        "text encoder",
        "sequence/text_encoders.py",
        "bert",
        (
            _tokens(16, 300, "input_ids"),
            _tokens(16, 2, "attention_mask", kind="mask"),
            _tokens(16, 2, "token_type_ids"),
        ),
        ((3, 11),) * 3,
    ),
    Entry(
        "albert",
        "text encoder",
        "sequence/text_encoders.py",
        "albert",
        (_tokens(16, 300, "input_ids"), _tokens(16, 2, "attention_mask", kind="mask")),
        ((3, 11),) * 2,
    ),
    Entry(
        "distilbert",
        "text encoder",
        "sequence/text_encoders.py",
        "distil_bert",
        (_tokens(16, 300, "input_ids"), _tokens(16, 2, "attention_mask", kind="mask")),
        ((3, 11),) * 2,
    ),
    Entry(
        "t5-encoder",
        "text encoder",
        "sequence/text_encoders.py",
        "t5_encoder",
        (_tokens(16, 300, "input_ids"),),
        ((3, 11),),
    ),
    Entry(
        "clip",
        "image and text",
        "sequence/text_encoders.py",
        "clip",
        (
            Input((1, 3, 32, 32), name="image"),
            _tokens(16, 100, "text", dynamic=False),
        ),
        ((3, 3, 32, 32), (3, 16)),
    ),
    Entry(
        "textcnn",
        "text classifier",
        "sequence/text_encoders.py",
        "text_cnn",
        (_tokens(20, 200, "words"),),
        ((3, 15),),
    ),
    Entry(
        "fasttext",
        "text classifier",
        "sequence/text_encoders.py",
        "fast_text",
        (_tokens(12, 500, "grams", dynamic=False),),
        ((3, 12),),
    ),
    Entry(
        "gpt2",
        "language model",
        "sequence/text_decoders.py",
        "gpt2",
        (_tokens(16, 300, "input_ids"),),
        ((3, 11),),
    ),
    Entry(
        "llama",
        "language model",
        "sequence/text_decoders.py",
        "llama",
        (_tokens(16, 300, "input_ids"),),
        ((3, 11),),
    ),
    Entry(
        "mixtral",
        "language model",
        "sequence/text_decoders.py",
        "mixtral",
        (_tokens(16, 300, "input_ids"),),
        ((3, 11),),
    ),
    Entry(
        "mamba",
        "language model",
        "sequence/text_decoders.py",
        "mamba",
        (_tokens(12, 100, "input_ids", dynamic=False),),
        ((3, 12),),
        note="the loop over time is unrolled",
    ),
    Entry(
        "transformer",
        "translation",
        "sequence/text_decoders.py",
        "transformer",
        (_tokens(10, 100, "source"), _tokens(8, 100, "target", dynamic=False)),
        ((3, 7), (3, 8)),
    ),
)

_POINTS = (
    Entry(
        "pointnet",
        "points",
        "sequence/points_and_graphs.py",
        "point_net",
        (_series((3, 128), "cloud", dynamic=(2,)),),
        ((3, 3, 90),),
    ),
    Entry(
        "pointnet2",
        "points",
        "sequence/points_and_graphs.py",
        "point_net2",
        (_series((64, 3), "cloud", dynamic=(1,)),),
        ((3, 50, 3),),
    ),
    Entry(
        "dgcnn",
        "points",
        "sequence/points_and_graphs.py",
        "dgcnn",
        (_series((3, 64), "cloud", dynamic=(2,)),),
        ((3, 3, 50),),
    ),
    Entry(
        "gcn",
        "graphs",
        "sequence/points_and_graphs.py",
        "gcn",
        (
            Input((20, 16), "normal", dynamic=(0,), name="nodes"),
            Input((2, 60), "integers", 20, dynamic=(1,), name="edge_index"),
        ),
        ((31, 16), (2, 80)),
        fixed_batch="a graph has no batch",
    ),
    Entry(
        "gat",
        "graphs",
        "sequence/points_and_graphs.py",
        "gat",
        (
            Input((20, 16), "normal", dynamic=(0,), name="nodes"),
            Input((2, 60), "integers", 20, dynamic=(1,), name="edge_index"),
        ),
        ((31, 16), (2, 80)),
        fixed_batch="a graph has no batch",
    ),
)

_TABLES = (
    Entry(
        "dlrm",
        "recommendation",
        "sequence/tabular.py",
        "dlrm",
        (_series((13,), "dense"), Input((1, 3, 4), "integers", 100, name="sparse")),
        ((3, 13), (3, 3, 4)),
    ),
    Entry(
        "wide-and-deep",
        "recommendation",
        "sequence/tabular.py",
        "wide_and_deep",
        (
            _series((40,), "crosses", "uniform"),
            _tokens(5, 50, "categories", dynamic=False),
            _series((6,), "numbers"),
        ),
        ((3, 40), (3, 5), (3, 6)),
    ),
    Entry(
        "ncf",
        "recommendation",
        "sequence/tabular.py",
        "ncf",
        (
            Input((1,), "integers", 100, name="users"),
            Input((1,), "integers", 200, name="items"),
        ),
        ((3,), (3,)),
    ),
    Entry(
        "tab-transformer",
        "tables",
        "sequence/tabular.py",
        "tab_transformer",
        (_tokens(6, 10, "categories", dynamic=False), _series((4,), "numbers")),
        ((3, 6), (3, 4)),
    ),
    Entry(
        "autoencoder",
        "anomaly detection",
        "sequence/tabular.py",
        "autoencoder",
        (_series((640,), "frames", "sound"),),
        ((3, 640),),
    ),
    Entry(
        "nerf",
        "view synthesis",
        "sequence/tabular.py",
        "nerf",
        (_series((3,), "places"), _series((3,), "directions")),
        ((3, 3), (3, 3)),
    ),
)

_VIDEO = (
    Entry(
        "c3d",
        "video",
        "sequence/video_and_diffusion.py",
        "c3d",
        (_series((3, 8, 32, 32), "clip", "sound"),),
        ((3, 3, 8, 32, 32),),
    ),
    Entry(
        "r2plus1d",
        "video",
        "sequence/video_and_diffusion.py",
        "r2plus1d",
        (_series((3, 8, 32, 32), "clip", "sound", dynamic=(3, 4)),),
        ((3, 3, 8, 40, 24),),
    ),
    Entry(
        "diffusion-unet",
        "diffusion",
        "sequence/video_and_diffusion.py",
        "diffusion_unet",
        (
            Input((1, 3, 32, 32), name="noisy"),
            Input((1,), "integers", 1000, name="step"),
            _series((6, 16), "condition", dynamic=(1,)),
        ),
        ((3, 3, 32, 32), (3,), (3, 9, 16)),
    ),
    Entry(
        "dit",
        "diffusion",
        "sequence/video_and_diffusion.py",
        "dit",
        (
            Input((1, 4, 8, 8), name="noisy"),
            Input((1,), "integers", 1000, name="step"),
            Input((1,), "integers", 11, name="label"),
        ),
        ((3, 4, 8, 8), (3,), (3,)),
    ),
)

ENTRIES: tuple[Entry, ...] = (
    *_SPEECH,
    *_SOUND,
    *_RECURRENT,
    *_TEXT,
    *_POINTS,
    *_TABLES,
    *_VIDEO,
)
