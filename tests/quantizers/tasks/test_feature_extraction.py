"""The feature extraction task: pooling without padding, scores of pairs, nearness to FP32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import BertModel

from optimum_int8 import FeatureExtractionQuantizer, Int8Config
from optimum_int8.errors import ConfigError, DataError
from optimum_int8.nn import Int8Linear
from optimum_int8.quantizers.steps.sentence_files import read_pooling, sentence_files

from ..tiny import make_config, make_folder, make_sentences, make_tokenizer


def make_encoder() -> BertModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertModel(make_config()).eval()


def own_vector(model: BertModel, text: str) -> torch.Tensor:
    """Mean over the tokens of one text without padding, of length 1."""
    with torch.no_grad():
        states = model(**make_tokenizer()(text, return_tensors="pt")).last_hidden_state[0]
    mean = states.mean(dim=0)
    return mean / mean.norm()


def make_rows(model: BertModel, number: int = 12) -> dict[str, list[Any]]:
    """Pairs with their cosine under the FP32 model, so that its correlation is 1."""
    first, second = make_sentences(number, seed=1), make_sentences(number, seed=2)
    scores = [float(own_vector(model, a) @ own_vector(model, b)) * 5 for a, b in zip(first, second, strict=True)]
    return {"sentence1": first, "sentence2": second, "score": scores}


@pytest.fixture
def quantizer() -> FeatureExtractionQuantizer:
    made = FeatureExtractionQuantizer(make_encoder(), make_tokenizer())
    made.quantize(Int8Config(approach="dynamic"))
    return made


@pytest.mark.slow
def test_from_a_folder(tmp_path: Path) -> None:
    make_encoder().save_pretrained(tmp_path / "fp32")
    make_tokenizer().save_pretrained(tmp_path / "fp32")
    made = FeatureExtractionQuantizer.from_pretrained(tmp_path / "fp32", pooling="mean")
    data = datasets.Dataset.from_dict(make_rows(made.model))
    made.quantize(Int8Config(approach="static"), data, tmp_path / "int8")
    report = made.evaluate(data, batch_size=5, latency_rounds=1)
    assert (report.metric, report.fp32.value) == ("spearmanr", pytest.approx(1.0))
    assert report.int8.value > 0.8
    before = made.encode("word1 word2")
    made.load_int8(tmp_path / "int8")
    assert torch.equal(made.encode("word1 word2"), before)


def test_vectors_do_not_see_the_padding(quantizer: FeatureExtractionQuantizer) -> None:
    texts = make_sentences(9)
    vectors = quantizer.encode(texts, batch_size=4, int8=False)
    assert vectors.shape == (9, 32) and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, torch.stack([own_vector(quantizer.model, text) for text in texts]))
    assert quantizer.encode(texts[0], int8=False).shape == (32,)


def test_pooling_and_length(quantizer: FeatureExtractionQuantizer) -> None:
    quantizer.pooling, quantizer.normalize = "cls", False
    with torch.no_grad():
        states = quantizer.model(**make_tokenizer()("word1 word2", return_tensors="pt")).last_hidden_state
    vectors = quantizer.encode(["word1 word2", "word1 word2 word3 word4"], int8=False)
    torch.testing.assert_close(vectors[0], states[0, 0])
    left = torch.tensor([[0, 1, 1]])
    torch.testing.assert_close(quantizer.pool(states[:, :3], left)[0], states[0, 1])


@pytest.mark.slow
def test_nearness_to_fp32(quantizer: FeatureExtractionQuantizer) -> None:
    found = quantizer.similarity_to_fp32(make_sentences(6))
    assert 0.98 < found["minimum"] <= found["mean"] < 1
    wrong = make_encoder()
    with torch.no_grad():
        wrong.encoder.layer[-1].output.LayerNorm.weight.neg_()
        wrong.encoder.layer[-1].output.LayerNorm.bias.neg_()
    quantizer.int8_model = wrong
    assert quantizer.similarity_to_fp32(make_sentences(6))["mean"] == pytest.approx(-1, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_in_sentence_transformers(pooling: str, normalize: bool, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    options: dict[str, Any] = {"pooling": pooling, "normalize": normalize}
    made = FeatureExtractionQuantizer(make_encoder(), make_tokenizer(), max_length=12, **options)
    made.quantize(Int8Config(approach="dynamic"), save_directory=tmp_path)
    loaded = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    assert any(isinstance(module, Int8Linear) for module in loaded.modules())
    texts = [*make_sentences(5), "word1 " * 30]
    theirs = torch.as_tensor(loaded.encode(texts))
    torch.testing.assert_close(theirs, made.encode(texts), rtol=1e-4, atol=1e-5)
    loaded.save(str(tmp_path / "theirs"))
    assert read_pooling(tmp_path) == read_pooling(tmp_path / "theirs") == options


def test_pooling_comes_from_the_files_beside_the_model(tmp_path: Path) -> None:
    make_encoder().save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    plain = FeatureExtractionQuantizer.from_pretrained(tmp_path)
    assert (plain.pooling, plain.normalize) == ("mean", True)
    for name, content in sentence_files(32, "cls", False, None).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found = FeatureExtractionQuantizer.from_pretrained(tmp_path)
    assert (found.pooling, found.normalize) == ("cls", False)
    assert FeatureExtractionQuantizer.from_pretrained(tmp_path, pooling="mean").pooling == "mean"
    (tmp_path / "1_Pooling" / "config.json").write_text("{damaged")
    assert read_pooling(tmp_path) == {}
    (tmp_path / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_max_tokens": true, "pooling_mode_cls_token": true}'
    )
    assert read_pooling(tmp_path)["pooling"] == ("cls", "max")
    (tmp_path / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_median_tokens": true, "pooling_mode_cls_token": true}'
    )
    with pytest.raises(ConfigError, match="pools by pooling_mode_median_tokens; expected one of mean"):
        FeatureExtractionQuantizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"sentence": ["a"], "score": [1.0]}, r"expected two and a score, or use similarity_to_fp32"),
        ({"sentence1": ["a"], "sentence2": ["a"]}, "no label column among sentence1, sentence2"),
        ({"sentence1": ["a"], "sentence2": ["a"], "score": ["x"]}, "the model predicts a number"),
        ({"sentence1": [], "sentence2": [], "score": []}, "has no rows"),
    ],
)
def test_data_that_does_not_fit(columns: dict[str, Any], message: str, quantizer: FeatureExtractionQuantizer) -> None:
    with pytest.raises(DataError, match=message):
        quantizer.evaluate(datasets.Dataset.from_dict(columns))


def test_arguments_that_do_not_fit(quantizer: FeatureExtractionQuantizer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected at least one, all of them texts"):
        quantizer.encode([])
    with pytest.raises(ConfigError, match="pooling is 'median'; expected one of mean, cls"):
        FeatureExtractionQuantizer(make_encoder(), make_tokenizer(), pooling="median")
    with pytest.raises(ConfigError, match="expected a class that ends in Model"):
        FeatureExtractionQuantizer.from_pretrained(make_folder(tmp_path))
