"""Calibration data: the forms that are taken, and errors that name the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import BatchEncoding

from optimum_int8 import (
    CalibrationError,
    DataError,
    Int8Config,
    QuantizationError,
    TextClassificationQuantizer,
    quantize,
)
from optimum_int8.evaluation.data import load_dataset
from optimum_int8.evaluation.readers import read_file
from tests.models import batch, classifier
from tests.quantizers.tiny import make_model, make_sentences, make_tokenizer

STATIC = Int8Config(approach="static", fuse=False)


def ranges(model: nn.Module, data: Any) -> list[float]:
    """Scales of the inputs of a static model."""
    int8 = quantize(model, STATIC, data, progress=False)
    return [float(value) for name, value in sorted(int8.state_dict().items()) if name.endswith("input_scale")]


def net() -> nn.Module:
    """Two linears."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()


X = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "data",
    [X, X.numpy(), X.double().numpy(), [X.numpy()], (X,), [[X]], DataLoader(TensorDataset(X), 2), DataLoader(X, 3), iter([X]),
     {"input": X}, [{"input": X.numpy()}], [{"input": X.tolist()}]],
    ids=["tensor", "array", "float64", "arrays", "tuple", "list of lists", "DataLoader", "DataLoader of rows", "iterator", "mapping",
         "mapping of arrays", "mapping of lists"],
)  # fmt: skip
def test_forms_with_one_meaning_are_taken(data: Any) -> None:
    assert ranges(net(), data) == pytest.approx(ranges(net(), [X]), rel=1e-6)


def features() -> list[dict[str, Any]]:
    """Examples as a tokenizer gives them, one by one: lists."""
    return [dict(make_tokenizer()(text)) for text in make_sentences(4)]


def test_examples_of_a_transformers_model() -> None:
    expected = ranges(make_model(), [{k: torch.tensor([v]) for k, v in row.items()} for row in features()])
    table = datasets.Dataset.from_list(features())
    for data in (
        features(),
        table,
        table.to_iterable_dataset(),
        table.with_format("torch"),
        [BatchEncoding(r) for r in features()],
    ):
        assert ranges(make_model(), data) == expected
    one = dict(make_tokenizer()(make_sentences(1), return_tensors="pt"))
    assert ranges(make_model(), one) == ranges(make_model(), [one])


FRAME = pd.DataFrame({"text": make_sentences(6), "label": [0, 1] * 3})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (FRAME, "holds a DataFrame of text, label; expected batches of tensors.*Dataset.from_pandas"),
        (make_sentences(3), r"holds texts; .*tokenizer\(texts"),
        ("word1", r"holds texts; .*tokenizer\(texts"),
        ([make_sentences(3)], "holds texts"),
        ([{"text": "word1"}], r"a mapping of text \(str\); expected batches of tensors"),
        (datasets.Dataset.from_pandas(FRAME), r"a mapping of text \(str\), label \(int\)"),
        (7, "holds a int; .*give a list of batches"),
        ({"text": make_sentences(3)}, r"a mapping of text \(list\)"),
        ([{"tokens": torch.ones(1, 3, dtype=torch.long)}], r"does not take a batch of tokens \(tensor \[1, 3\]\).*expected a mapping"),
        ([{"attention_mask": torch.ones(1, 3)}], r"does not take a batch of attention_mask"),
        ([(torch.ones(1, 3, dtype=torch.long),) * 40], "does not take a batch of tensor"),
    ],
)  # fmt: skip
def test_other_forms_are_named(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        quantize(make_model(), STATIC, data, progress=False)


def test_a_batch_of_other_arguments_is_named() -> None:
    with pytest.raises(DataError, match=r"Sequential does not take a batch of x \(tensor \[6, 8\]\)"):
        quantize(net(), STATIC, [{"x": X}], progress=False)
    with pytest.raises(DataError, match=r"arguments \(input\)"):
        quantize(net(), STATIC, [(X, X)], progress=False)


def rows_of() -> Iterator[dict[str, Any]]:
    """Of the frame."""
    yield from FRAME.to_dict("records")


@pytest.mark.parametrize(
    "data",
    [FRAME, list(rows_of()), FRAME.to_dict("list"), FRAME["text"].tolist(), datasets.IterableDataset.from_generator(rows_of)],
    ids=["DataFrame", "rows", "columns", "texts", "IterableDataset"],
)  # fmt: skip
def test_a_quantizer_takes_tables(data: Any) -> None:
    def scales(data: Any) -> list[Tensor]:
        quantizer = TextClassificationQuantizer(make_model(), make_tokenizer())
        state = quantizer.quantize(STATIC, data).state_dict()
        return [value for name, value in sorted(state.items()) if name.endswith("input_scale")]

    expected = scales(datasets.Dataset.from_pandas(FRAME))
    assert all(torch.equal(a, b) for a, b in zip(scales(data), expected, strict=True))


def test_evaluation_data_in_other_forms() -> None:
    assert load_dataset(FRAME).column_names == ["text", "label"]  # type: ignore[arg-type]
    with pytest.raises(DataError, match="are no table"):
        load_dataset([{"a": 1}, {"a": "x"}, 3])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="a DataFrame, a list of rows, a path or a name; found int"):
        load_dataset(3)  # type: ignore[arg-type]


class Branch(nn.Module):
    """A linear that reads the rows behind the fourth, and one that reads none."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.rare = nn.Linear(8, 8), nn.Linear(8, 8)
        self.never = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.main(x)
        rest = y[4:]
        self.never(rest[:0])
        return torch.cat([y[:4], self.rare(rest)])


def test_modules_that_see_only_empty_inputs_stay_fp32_with_their_name() -> None:
    int8 = quantize(Branch().eval(), STATIC, [X[:3]], progress=False)
    reason = "the calibration data reached it with empty inputs or padding alone"
    assert int8.int8_metadata["fp32"] == {"rare": reason, "never": reason}
    assert torch.isfinite(int8(X)).all()
    assert quantize(Branch().eval(), STATIC, [X[:3], X], progress=False).int8_metadata["fp32"] == {"never": reason}
    with pytest.raises(CalibrationError, match="no value of the calibration data counts: the inputs of '0'"):
        quantize(net(), STATIC, [X[:0]], progress=False)


def test_padding_alone_is_no_range() -> None:
    hidden = {**batch(), "attention_mask": torch.zeros_like(batch()["input_ids"])}
    model = quantize(classifier(), STATIC, [hidden], progress=False)
    reasons = model.config.quantization_config["fp32"]
    assert "padding alone" in reasons["bert.encoder.layer.0.attention.self.query"]
    assert "padding alone" in reasons["bert.encoder.layer.0.attention.self"]  # its core


def test_misspelt_types_are_refused() -> None:
    with pytest.raises(QuantizationError, match=r"no module of the model has: 'Linaer'.*near it are Linear"):
        quantize(net(), Int8Config(exclude_types=("ReLU", "Linaer")), progress=False)
    with pytest.raises(QuantizationError, match=r"does not have: 'bert.poler'.*near it are bert.pooler"):
        quantize(classifier(), Int8Config(exclude=("bert.poler",)), progress=False)
    attention = nn.Sequential(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Linear(16, 4)).eval()
    int8 = quantize(attention, Int8Config(exclude_types=("MultiheadAttention",), fuse=False), progress=False)
    assert int8.int8_metadata["fp32"]["0.self_attn.q_proj"] == "excluded by type MultiheadAttention"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text;label\na, b;1\n", r"separated by semicolons \(';'\); expected commas"),
        ("text;label\na;1\nb;0\n", "semicolons"),
        ("text\tlabel\na\t1\n", r"separated by tabs.*name it \.tsv"),
        ("text|label\na|1\n", "vertical bars"),
    ],
)
def test_a_csv_with_another_delimiter_names_it(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_file(tmp_path / "data.csv")


def test_a_csv_of_one_column_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("text\na; b\nc\n")
    assert read_file(tmp_path / "data.csv")["text"][:] == ["a; b", "c"]
    (tmp_path / "data.csv").write_text("text;more,label\na;b,1\n")
    assert read_file(tmp_path / "data.csv").column_names == ["text;more", "label"]


def test_sentence_transformers_calibrate_on_texts(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    from tests.quantizers.test_sentence_transformers import sentence_transformer

    model = sentence_transformer(tmp_path)
    assert isinstance(model, library.SentenceTransformer)
    texts = make_sentences(6)
    found = ranges(model, texts)
    assert found == ranges(model, [texts]) == ranges(model, [model.preprocess(texts)])
    assert len(found) > 8


@pytest.mark.parametrize("name", ["Siglip2VisionModel", "Siglip2ForImageClassification"])
def test_patches_of_images_are_a_batch(name: str) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = transformers.Siglip2VisionConfig(**sizes, num_patches=16, patch_size=4)
    whole = name != "Siglip2VisionModel"
    config = transformers.Siglip2Config(text_config=sizes, vision_config=vision.to_dict()) if whole else vision
    model = getattr(transformers, name)(config).eval()
    batch = {
        "pixel_values": torch.rand(2, 16, 48),
        "pixel_attention_mask": torch.ones(2, 16, dtype=torch.long),
        "spatial_shapes": torch.full((2, 2), 4),
    }
    one = {key: value[0] for key, value in batch.items()}
    for data in ([batch], [one, one]):
        int8 = quantize(model, Int8Config(approach="static", fuse=False), data, progress=False)
        with torch.no_grad():
            ours, exact = int8(**batch)[0], model(**batch)[0]
        assert (ours - exact).norm() < 0.1 * exact.norm()


def test_a_decoder_of_spectrograms_is_calibrated() -> None:
    config = transformers.SpeechT5Config(
        vocab_size=40, hidden_size=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=8, speech_decoder_prenet_units=16,
        speaker_embedding_dim=8, speech_decoder_postnet_units=16, reduction_factor=2,
    )  # fmt: skip
    model = transformers.SpeechT5ForTextToSpeech(config).eval()
    batch = {
        "input_ids": torch.randint(4, 40, (2, 7)),
        "decoder_input_values": torch.rand(2, 4, 8),
        "speaker_embeddings": torch.rand(2, 8),
    }
    int8 = quantize(model, Int8Config(approach="static", fuse=False), [batch], progress=False)
    assert int8.speecht5.decoder.wrapped_decoder.layers[0].encoder_attn.k_proj.input_scale > 0
