"""The language modelling task: perplexity of causal and masked models against torch's own loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from optimum_int8 import Int8Config, LanguageModelingQuantizer
from optimum_int8.errors import ConfigError, DataError
from optimum_int8.quantizers import quantizer_for

from ..tiny import make_config, make_folder, make_sentences, make_tokenizer


def make_causal() -> GPT2LMHeadModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 40, "vocab_size": 64}
        return GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.3, bos_token_id=0, eos_token_id=0)).eval()


def make_masked() -> BertForMaskedLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertForMaskedLM(make_config()).eval()


def masking_tokenizer() -> Any:
    tokenizer = make_tokenizer()
    tokenizer.mask_token = "[UNK]"
    return tokenizer


DATA = datasets.Dataset.from_dict({"text": ["", *make_sentences(12), "  "]})


@pytest.mark.slow
def test_causal_perplexity_is_that_of_the_model(tmp_path: Path) -> None:
    make_causal().save_pretrained(tmp_path / "fp32")
    make_tokenizer().save_pretrained(tmp_path / "fp32")
    made = LanguageModelingQuantizer.from_pretrained(tmp_path / "fp32", max_length=16)
    made.quantize(Int8Config(approach="static"), DATA, tmp_path / "int8")
    report = made.evaluate(DATA, batch_size=3, latency_rounds=1)

    tokens = make_tokenizer()(" ".join(make_sentences(12)), add_special_tokens=False)["input_ids"]
    blocks = [torch.tensor([tokens[start : start + 16]]) for start in range(0, len(tokens), 16)]
    blocks = [block for block in blocks if block.shape[1] > 1]
    with torch.no_grad():
        total = sum(float(made.model(block, labels=block).loss) * (block.shape[1] - 1) for block in blocks)
    expected = math.exp(total / sum(block.shape[1] - 1 for block in blocks))
    assert (report.metric, report.fp32.value) == ("perplexity", pytest.approx(expected, rel=1e-4))
    assert report.int8.value == pytest.approx(expected, rel=0.3)
    assert report.relative_loss == pytest.approx((report.int8.value - report.fp32.value) / report.fp32.value)


@pytest.mark.slow
def test_masked_perplexity_is_that_of_the_model() -> None:
    made = LanguageModelingQuantizer(make_masked(), masking_tokenizer(), masked_share=0.3)
    made.quantize(Int8Config(approach="dynamic"))
    features = made.preprocess(DATA)
    assert features == made.preprocess(DATA)  # a fixed seed
    total = count = 0.0
    for example, text in zip(features, make_sentences(12), strict=True):
        whole = make_tokenizer()(text)["input_ids"]
        labels = torch.tensor(example["labels"])
        hidden = labels != -100
        assert int(hidden.sum()) == max(1, round(0.3 * len(text.split())))
        assert torch.equal(torch.where(hidden, labels, torch.tensor(example["input_ids"])), torch.tensor(whole))
        assert torch.tensor(example["input_ids"])[hidden].eq(1).all()
        with torch.no_grad():
            loss = made.model(torch.tensor([example["input_ids"]]), labels=labels[None]).loss
        total, count = total + float(loss) * int(hidden.sum()), count + int(hidden.sum())
    report = made.evaluate(DATA, batch_size=5, latency_rounds=1)
    assert report.fp32.value == pytest.approx(math.exp(total / count), rel=1e-4)


def test_a_wrong_model_shows() -> None:
    made = LanguageModelingQuantizer(make_causal(), make_tokenizer(), max_length=16)
    wrong = make_causal()
    with torch.no_grad():
        wrong.transformer.ln_f.weight.mul_(20)
    made.int8_model = wrong
    report = made.evaluate(DATA, latency_rounds=1)
    assert report.relative_loss is not None and report.relative_loss > 0.5


def test_predict() -> None:
    made = LanguageModelingQuantizer(make_causal(), make_tokenizer())
    made.quantize(Int8Config(approach="dynamic"))
    (found,) = made.predict("word1 word2", max_new_tokens=3, do_sample=False, int8=False)
    assert found["generated_text"].startswith("word1 word2")
    masked = LanguageModelingQuantizer(make_masked(), masking_tokenizer())
    assert len(masked.predict("word1 [UNK] word3", top_k=2, int8=False)) == 2
    with pytest.raises(ConfigError, match="there is no INT8 model yet"):
        masked.predict("word1")


def test_found_by_class() -> None:
    for model in (make_causal(), make_masked()):
        model.config.architectures = [type(model).__name__]
        assert quantizer_for(model.config) is LanguageModelingQuantizer
    assert quantizer_for(make_config(architectures=["BertModel"])).task == "feature-extraction"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": ["x"], "b": ["x"]}, "cannot tell the text column among a, b"),
        ({"text": ["", " "]}, "holds too little text"),
        ({"sentence1": ["x"], "sentence2": ["x"]}, "expected one: name it"),
        ({"text": []}, "has no rows"),
    ],
)
def test_data_that_does_not_fit(columns: dict[str, Any], message: str) -> None:
    made = LanguageModelingQuantizer(make_causal(), make_tokenizer())
    made.int8_model = made.model
    with pytest.raises(DataError, match=message):
        made.evaluate(datasets.Dataset.from_dict(columns))


def test_arguments_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="masked_share is 0"):
        LanguageModelingQuantizer(make_causal(), make_tokenizer(), masked_share=0)
    made = LanguageModelingQuantizer(make_masked(), make_tokenizer())
    made.int8_model = made.model
    with pytest.raises(ConfigError, match="needs a tokenizer with a mask token"):
        made.evaluate(DATA)
    with pytest.raises(ConfigError, match="expected a class that ends in ForCausalLM or LMHeadModel or ForMaskedLM"):
        LanguageModelingQuantizer.from_pretrained(make_folder(tmp_path))
