"""The steps every quantizer shares: calibration data, quantize, save, load, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from optimum_int8 import Int8Config
from optimum_int8.errors import CalibrationError, CheckpointError, ConfigError, DataError
from optimum_int8.evaluation.size import checkpoint_size
from optimum_int8.quantizers import Quantizer, TextClassificationQuantizer

from .tiny import make_dataset, make_folder, make_model, make_sentences, make_tokenizer

STATIC, DYNAMIC = Int8Config(approach="static"), Int8Config(approach="dynamic")


@pytest.fixture
def quantizer() -> TextClassificationQuantizer:
    return TextClassificationQuantizer(make_model(), make_tokenizer())


def logits(model: Any, text: str = "word1 word2 word3") -> torch.Tensor:
    with torch.no_grad():
        return model(**make_tokenizer()(text, return_tensors="pt")).logits


def test_calibration_batches_are_padded_and_masked(quantizer: Quantizer) -> None:
    dataset = datasets.Dataset.from_dict({"sentence": make_sentences(10)})
    batches = list(quantizer.calibration_batches(dataset, 4))
    assert sorted(len(batch["input_ids"]) for batch in batches) == [2, 4, 4]
    lengths = sorted(len(text.split()) + 2 for text in make_sentences(10))
    for batch in batches:
        assert set(batch) == {"input_ids", "token_type_ids", "attention_mask"}
        assert torch.equal(batch["attention_mask"].bool(), batch["input_ids"] != 0)
    assert sorted(int(row.sum()) for batch in batches for row in batch["attention_mask"]) == lengths


def test_calibration_on_ready_inputs(quantizer: Quantizer) -> None:
    dataset = datasets.Dataset.from_dict({"input_ids": [[2, 5, 3], [2, 3]], "attention_mask": [[1, 1, 1], [1, 1]]})
    (batch,) = quantizer.calibration_batches(dataset, 8)
    assert batch["input_ids"].tolist() == [[2, 3, 0], [2, 5, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_ready_batches_pass_through(quantizer: Quantizer) -> None:
    batches = [{"input_ids": torch.tensor([[2, 3]])}]
    assert quantizer.calibration_batches(batches, 8) is batches


def test_get_calibration_dataset(quantizer: Quantizer, tmp_path: Path) -> None:
    rows = "".join(f"word{number % 60}\t0\n" for number in range(300))
    (tmp_path / "train.tsv").write_text("sentence\tlabel\n" + rows)
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\nword0\t0\n")
    assert len(quantizer.get_calibration_dataset(tmp_path)) == 128
    first = quantizer.get_calibration_dataset(tmp_path, num_samples=5, seed=1)
    assert first.to_dict() == quantizer.get_calibration_dataset(str(tmp_path), num_samples=5, seed=1).to_dict()
    assert len(quantizer.get_calibration_dataset(tmp_path, dataset_split="validation")) == 1
    prepared = quantizer.get_calibration_dataset(
        tmp_path, num_samples=3, preprocess_function=lambda rows: make_tokenizer()(rows["sentence"])
    )
    assert [len(row) for row in prepared["input_ids"]] == [3, 3, 3]


@pytest.mark.slow
@pytest.mark.parametrize("config", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_quantize_save_load(config: Int8Config, quantizer: TextClassificationQuantizer, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in quantizer.model.state_dict().items()}
    dataset = make_dataset(quantizer.model)
    made = quantizer.quantize(config, dataset, tmp_path / "int8", batch_size=5)
    assert made is quantizer.int8_model
    assert all(torch.equal(before[name], value) for name, value in quantizer.model.state_dict().items())
    assert getattr(quantizer.model.config, "quantization_config", None) is None
    assert (tmp_path / "int8" / "tokenizer.json").exists()

    other = TextClassificationQuantizer(make_model(), make_tokenizer())
    loaded = other.load_int8(tmp_path / "int8")
    assert torch.equal(logits(loaded), logits(made))
    assert not torch.equal(logits(loaded), logits(quantizer.model))  # really INT8


@pytest.mark.slow
@pytest.mark.parametrize("config", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_evaluate(config: Int8Config, quantizer: TextClassificationQuantizer, tmp_path: Path) -> None:
    dataset = make_dataset(quantizer.model)
    quantizer.quantize(config, dataset)
    report = quantizer.evaluate(dataset, batch_size=5, latency_rounds=3)
    assert report.metric == "accuracy"
    assert report.fp32.value == 1.0  # padding and order do not matter: labels come from single, unpadded sentences
    assert report.int8.value >= 0.9
    assert report.fp32.size_mb * 1e6 == sum(p.numel() for p in quantizer.model.parameters()) * 4
    quantizer.save_pretrained(tmp_path)
    saved = quantizer.evaluate(dataset, latency_rounds=3)
    assert saved.int8.size_mb * 1e6 == checkpoint_size(tmp_path)
    assert saved.int8.size_mb < report.fp32.size_mb
    header = saved.int8.size_mb * 1e6 - report.int8.size_mb * 1e6
    assert 0 < header < 20_000  # the file is the tensors and a header


def test_an_int8_model_that_answers_wrongly_shows(quantizer: TextClassificationQuantizer) -> None:
    dataset = make_dataset(quantizer.model)
    wrong = make_model()
    with torch.no_grad():
        wrong.classifier.weight.neg_()
        wrong.classifier.bias.neg_()
    quantizer.int8_model = wrong
    report = quantizer.evaluate(dataset, latency_rounds=1)
    assert (report.fp32.value, report.int8.value, report.relative_loss) == (1.0, 0.0, 1.0)


def test_latency_gives_both_models_the_same_examples(quantizer: TextClassificationQuantizer) -> None:
    seen: dict[str, list[int]] = {"fp32": [], "int8": []}

    def forward(model: Any, batch: Any) -> None:
        seen["fp32" if model is quantizer.model else "int8"].append(batch["input_ids"].shape[1])

    quantizer.int8_model = make_model()
    quantizer.forward = forward  # type: ignore[method-assign]
    features = [{"input_ids": [5] * length} for length in (9, 3, 7, 5)]
    assert set(quantizer.latency(features, rounds=4)) == {"fp32", "int8"}
    assert seen["fp32"] == seen["int8"]
    assert set(seen["fp32"]) == {3, 5, 7, 9}


def test_static_without_data(quantizer: Quantizer) -> None:
    with pytest.raises(CalibrationError, match="pass calibration_dataset="):
        quantizer.quantize(STATIC)


def test_empty_calibration_set(quantizer: Quantizer) -> None:
    with pytest.raises(DataError, match="has no rows"):
        quantizer.quantize(STATIC, datasets.Dataset.from_dict({"sentence": []}))
    with pytest.raises(CalibrationError):
        quantizer.quantize(STATIC, [])
    assert quantizer.int8_model is None


def test_before_anything_was_quantized(quantizer: TextClassificationQuantizer, tmp_path: Path) -> None:
    for action in (
        lambda: quantizer.save_pretrained(tmp_path / "x"),
        lambda: quantizer.evaluate(make_dataset(quantizer.model)),
        lambda: quantizer.predict("word1"),
    ):
        with pytest.raises(ConfigError, match="there is no INT8 model yet"):
            action()
    assert not (tmp_path / "x").exists()


def test_load_int8_refuses_others(quantizer: TextClassificationQuantizer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not an INT8 model"):
        quantizer.load_int8(make_folder(tmp_path / "fp32"))
    with pytest.raises(CheckpointError):
        quantizer.load_int8(tmp_path / "absent")
    assert quantizer.int8_model is None


def test_the_generic_quantizer_quantizes_but_knows_no_metric(tmp_path: Path) -> None:
    quantizer = Quantizer.from_pretrained(make_folder(tmp_path / "fp32"))
    dataset = make_dataset(quantizer.model)
    quantizer.quantize(STATIC, dataset)
    with pytest.raises(ConfigError, match="Quantizer knows no task"):
        quantizer.evaluate(dataset)
    with pytest.raises(ConfigError, match="Quantizer knows no task"):
        quantizer.evaluate(dataset, metric="accuracy")
