"""`resize_token_embeddings`, `tie_weights` and the setters of Transformers on INT8 models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from optimum_int8 import Int8Config, OptimizedModel, quantize
from optimum_int8.errors import QuantizationError
from optimum_int8.nn import Int8Embedding, Int8Linear

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "pad_token_id": 0,
}
IDS = torch.arange(2, 16).view(2, 7)


def bert(tied: bool) -> PreTrainedModel:
    return transformers.BertForMaskedLM(transformers.BertConfig(**SIZES, tie_word_embeddings=tied))


def roberta(tied: bool) -> PreTrainedModel:
    return transformers.RobertaForMaskedLM(transformers.RobertaConfig(**SIZES, tie_word_embeddings=tied))


def llama(tied: bool) -> PreTrainedModel:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, tie_word_embeddings=tied))


def gpt2(tied: bool) -> PreTrainedModel:
    config = transformers.GPT2Config(
        vocab_size=60, n_embd=32, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2, tie_word_embeddings=tied
    )
    return transformers.GPT2LMHeadModel(config)


def bart(tied: bool) -> PreTrainedModel:
    config = transformers.BartConfig(
        vocab_size=60,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=32,
        tie_word_embeddings=tied,
    )
    return transformers.BartForConditionalGeneration(config)


def make(build: Callable[[bool], PreTrainedModel], tied: bool = True) -> PreTrainedModel:
    torch.manual_seed(0)
    return build(tied).eval()


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    more = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    return model(input_ids=IDS, **more).logits


def quantized(float_model: PreTrainedModel, approach: str = "dynamic") -> PreTrainedModel:
    data = [{"input_ids": IDS}] if approach == "static" else None
    return quantize(float_model, Int8Config(approach=approach), data, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("size", [60, 71, 49])
@pytest.mark.parametrize(("build", "tied"), [(bert, True), (roberta, False), (llama, False), (gpt2, True)])
def test_resized_after_a_call(build: Any, tied: bool, size: int, tmp_path: Path) -> None:
    float_model = make(build, tied)
    int8 = quantized(float_model, "dynamic" if tied else "static")
    before, kept = logits(int8), min(size, 60)
    old = {name: tensor.clone() for name, tensor in int8.state_dict().items()}
    for model in (float_model, int8):
        torch.manual_seed(1)
        assert model.resize_token_embeddings(size) is model.get_input_embeddings()
    after = logits(int8)
    assert int8.config.vocab_size == size
    assert torch.equal(after[..., :kept], before[..., :kept])
    expected = logits(float_model)
    assert after.shape == expected.shape
    assert (after - expected).norm() < 0.03 * expected.norm()
    for name, tensor in int8.state_dict().items():
        both = tuple(slice(0, min(sizes)) for sizes in zip(tensor.shape, old[name].shape, strict=True))
        assert torch.equal(tensor[both], old[name][both]), name
    int8.tie_weights()
    assert torch.equal(logits(int8), after)
    OptimizedModel.save_pretrained(int8, tmp_path)
    again = OptimizedModel.from_pretrained(tmp_path)
    assert torch.equal(logits(again), after)


@pytest.mark.parametrize("build", [bart, gpt2])
def test_new_rows_are_those_that_transformers_draws(build: Any) -> None:
    int8 = quantized(make(build))
    table = nn.Embedding.from_pretrained(int8.get_input_embeddings().weight.dense())
    torch.manual_seed(3)
    expected = int8._get_resized_embeddings(table, 80, None, False).weight[60:]
    torch.manual_seed(3)
    found = int8.resize_token_embeddings(80, mean_resizing=False)
    step = found.weight_scale[60:, None]
    assert ((found.weight[60:] - expected).abs() <= 0.51 * step).all()
    assert float(found.weight[60:].std()) > 0.01
    assert logits(int8).shape[-1] == 80


def test_tied_tables_of_an_encoder_and_a_decoder_stay_one(tmp_path: Path) -> None:
    int8 = quantized(make(bart))
    before = logits(int8)
    int8.resize_token_embeddings(70)
    tables = [module for module in int8.modules() if isinstance(module, Int8Embedding) and module.num_embeddings == 70]
    assert len({table.int8_weight.data_ptr() for table in tables}) == 1
    assert torch.equal(logits(int8)[..., :60], before)
    OptimizedModel.save_pretrained(int8, tmp_path)
    assert torch.equal(logits(OptimizedModel.from_pretrained(tmp_path)), logits(int8))


def test_generates_after_resizing() -> None:
    int8 = quantized(make(llama))
    before = int8.generate(IDS, max_new_tokens=4, do_sample=False)
    int8.resize_token_embeddings(64)
    assert torch.equal(int8.generate(IDS, max_new_tokens=4, do_sample=False), before)


@pytest.mark.parametrize("tied", [True, False])
def test_setters_take_what_the_getters_give(tied: bool) -> None:
    int8 = quantized(make(bert, tied))
    before = logits(int8)
    int8.set_input_embeddings(int8.get_input_embeddings())
    int8.set_output_embeddings(int8.get_output_embeddings())
    int8.tie_weights()
    assert torch.equal(logits(int8), before)
    assert int8.get_input_embeddings().weight.shape == (60, 32)


def test_tying_gives_a_new_head_the_weight_of_the_table() -> None:
    int8 = quantized(make(gpt2))
    torch.manual_seed(5)
    expected = logits(int8)
    int8.set_output_embeddings(Int8Linear.from_float(nn.Linear(32, 60, bias=False)))
    assert not torch.equal(logits(int8), expected)
    int8.tie_weights()
    assert torch.equal(logits(int8), expected)


def test_a_float_head_of_an_int8_table_keeps_its_values() -> None:
    int8 = quantize(make(gpt2), Int8Config(exclude=("lm_head",)), progress=False)
    before = logits(int8)
    int8.tie_weights()
    assert torch.equal(logits(int8), before)
    int8.resize_token_embeddings(66)
    assert torch.equal(logits(int8)[..., :60], before)


@pytest.mark.parametrize(
    "write", [lambda w: w.__setitem__(-1, 1.0), lambda w: w.data[0].zero_(), lambda w: w.t().mul_(3)]
)
def test_writing_to_a_part_of_a_weight_is_our_error(write: Callable[[Tensor], Any]) -> None:
    """It would be lost without a word."""
    int8 = quantized(make(gpt2))
    with pytest.raises(QuantizationError, match="would write to the weight"):
        write(int8.get_input_embeddings().weight)


def test_a_bias_of_another_size_is_our_error() -> None:
    linear = Int8Linear.from_float(nn.Linear(8, 4))
    with pytest.raises(QuantizationError, match=r"expected \[4\]"):
        linear.bias = nn.Parameter(torch.zeros(5))
    linear.bias = nn.Parameter(torch.ones(4))
    assert torch.equal(linear(torch.zeros(1, 8)), torch.ones(1, 4))
