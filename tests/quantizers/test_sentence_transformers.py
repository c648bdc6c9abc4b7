"""Models of Sentence Transformers, and others around a Transformers model: quantized, saved by their own means, loaded again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedModel,
)

from optimum_int8 import Int8Config, QuantizationError, quantize
from optimum_int8.nn import IMPLEMENTATION, Int8Attention, Int8Linear, Int8Module

from .tiny import make_config, make_sentences, make_tokenizer

TEXTS = [*make_sentences(5), "word1 " * 30]


def int8(model: nn.Module, **settings: Any) -> Any:
    """The dynamic INT8 model."""
    return quantize(model, Int8Config(**settings), progress=False)


def folder_of(model_class: type[PreTrainedModel], path: Path, **settings: Any) -> str:
    """A model with drawn weights and its tokenizer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model_class(make_config(**settings)).eval().save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return str(path)


def sentence_transformer(path: Path, *more: str) -> Any:
    """Mean pooling, prompts, and what else is named."""
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    torch.manual_seed(0)
    made = {"Dense": lambda: Dense(32, 16), "LayerNorm": lambda: LayerNorm(16), "Normalize": Normalize}
    modules = [Transformer(folder_of(BertModel, path / "bert")), Pooling(32), *(made[name]() for name in more)]
    prompts = {"query": "word1 word2 ", "document": "word3 "}
    return library.SentenceTransformer(modules=modules, device="cpu", prompts=prompts, default_prompt_name="query")


def closeness(found: Tensor, expected: Tensor) -> float:
    """Least cosine of the rows."""
    return float(torch.cosine_similarity(found, expected).min())


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("Dense", "Normalize"), ("Dense", "LayerNorm")])
def test_a_sentence_transformer_saves_what_it_loads(tmp_path: Path, more: tuple[str, ...]) -> None:
    model = sentence_transformer(tmp_path, *more)
    quantized = int8(model)
    expected = quantized.encode(TEXTS, convert_to_tensor=True)
    assert closeness(expected, model.encode(TEXTS, convert_to_tensor=True)) > 0.99
    quantized.save_pretrained(str(tmp_path / "int8"))
    loaded = type(model)(str(tmp_path / "int8"), device="cpu")
    assert any(isinstance(module, Int8Linear) for module in loaded.modules())
    assert (loaded.prompts, loaded.default_prompt_name) == (model.prompts, "query")
    assert torch.equal(loaded.encode(TEXTS, convert_to_tensor=True), expected)
    documents = quantized.encode(TEXTS, prompt_name="document", convert_to_tensor=True, truncate_dim=8)
    assert torch.equal(loaded.encode(TEXTS, prompt_name="document", convert_to_tensor=True, truncate_dim=8), documents)
    loaded.save(str(tmp_path / "again"))
    again = type(model)(str(tmp_path / "again"), device="cpu")
    assert torch.equal(again.encode(TEXTS, convert_to_tensor=True), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model_class", "call"),
    [
        ("CrossEncoder", BertForSequenceClassification, lambda m: m.predict([(t, "word3") for t in TEXTS], convert_to_tensor=True)),
        ("SparseEncoder", BertForMaskedLM, lambda m: m.encode(TEXTS, convert_to_tensor=True).to_dense()),
    ],
)  # fmt: skip
def test_other_models_of_sentence_transformers(
    tmp_path: Path, name: str, model_class: type[PreTrainedModel], call: Callable[[Any], Tensor]
) -> None:
    library = pytest.importorskip("sentence_transformers")
    model = getattr(library, name)(folder_of(model_class, tmp_path / "fp32", num_labels=1), device="cpu")
    quantized = int8(model)
    expected = call(quantized)
    assert 0 < (expected - call(model)).norm() < 0.1 * call(model).norm()
    quantized.save_pretrained(str(tmp_path / "int8"))
    assert torch.equal(call(getattr(library, name)(str(tmp_path / "int8"), device="cpu")), expected)


def test_modules_that_save_themselves_stay_floats(tmp_path: Path) -> None:
    quantized = int8(sentence_transformer(tmp_path, "Dense"), fuse=False)
    assert type(quantized[2].linear) is nn.Linear
    assert quantized.int8_metadata["fp32"]["2.linear"] == "Sentence Transformers saves it as floats"
    with pytest.raises(QuantizationError, match="nothing to quantize: .*exclude"):
        int8(sentence_transformer(tmp_path / "other", "Dense"), exclude=("0",))


class Wrapped(nn.Module):
    """A user's module around a Transformers model."""

    def __init__(self, encoder: PreTrainedModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(32, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0])


def bert() -> PreTrainedModel:
    """A small BERT."""
    return BertModel(make_config())


def distilbert() -> PreTrainedModel:
    """A small DistilBERT."""
    return DistilBertModel(
        DistilBertConfig(vocab_size=64, dim=32, hidden_dim=64, n_heads=2, n_layers=2, max_position_embeddings=64)
    )


@pytest.mark.parametrize("make", [bert, distilbert])
@pytest.mark.parametrize("approach", ["dynamic", "static"])
@torch.no_grad()
def test_a_model_inside_a_module_saves_what_loads(
    tmp_path: Path, make: Callable[[], PreTrainedModel], approach: str
) -> None:
    torch.manual_seed(0)
    model = Wrapped(make()).eval()
    inputs = {"input_ids": torch.randint(5, 60, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.long)}
    excluded = next(n for n, m in model.named_modules() if isinstance(m, nn.Linear))
    config = Int8Config(approach=approach, fuse=False, exclude=(excluded,))
    quantized = quantize(model, config, [inputs], progress=False)
    assert sum(isinstance(module, Int8Attention) for module in quantized.modules()) == 2
    assert quantized.encoder.config._attn_implementation == IMPLEMENTATION  # else the cores above never run
    assert isinstance(quantized.head, Int8Module)
    quantized.encoder.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(**inputs).last_hidden_state, quantized.encoder(**inputs).last_hidden_state)
    assert type(loaded.get_submodule(excluded.removeprefix("encoder."))) is nn.Linear


def test_attention_inside_a_module_is_put_back_after_calibration() -> None:
    model = Wrapped(bert()).eval()
    data = [{"input_ids": torch.randint(5, 60, (2, 9))}]
    quantize(model, Int8Config(approach="static", fuse=False), data, inplace=False, progress=False)
    assert model.encoder.config._attn_implementation == "sdpa"
