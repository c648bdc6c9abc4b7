"""LoRA adapters of PEFT next to INT8 linears, put on before quantizing or after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from optimum_int8 import Int8Config, quantize
from optimum_int8.errors import QuantizationError
from optimum_int8.nn import Int8Linear

peft = pytest.importorskip("peft")
lora = pytest.importorskip("peft.tuners.lora.layer")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Unsupported layer type")]

IDS = torch.arange(2, 16).view(2, 7)


def llama() -> transformers.LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=60, pad_token_id=0, **sizes)).eval()


def adapted(model: nn.Module) -> Any:
    """With an adapter that changes the result by more than it is; PEFT is told what an INT8 linear is."""
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    config._register_custom_module({Int8Linear: lora.Linear})
    found = peft.get_peft_model(model, config)
    torch.manual_seed(1)
    for name, parameter in found.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(0.4 * torch.randn(parameter.shape))
    return found.eval()


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model(input_ids=IDS).logits


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("fuse", [True, False])
def test_an_adapter_on_an_int8_model_counts_and_learns(fuse: bool, tmp_path: Path) -> None:
    reference = adapted(llama())
    int8 = quantize(llama(), Int8Config(fuse=fuse), progress=False)
    plain = logits(int8)
    model = adapted(int8)
    expected, found = logits(reference), logits(model)
    assert error(plain, expected) > 0.3
    assert error(found, expected) < 0.05
    assert torch.equal(logits(model), found)
    with model.disable_adapter():
        assert torch.equal(logits(model), plain)
    for each in (reference, model):
        each.train()
        each(input_ids=IDS, labels=IDS).loss.backward()
    gradients = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    assert len(gradients) == 4
    for name, gradient in gradients.items():
        assert error(model.get_parameter(name).grad, gradient) < 0.1, name
    model.eval().save_pretrained(tmp_path)
    config = peft.LoraConfig.from_pretrained(tmp_path)
    config._register_custom_module({Int8Linear: lora.Linear})
    again = peft.PeftModel.from_pretrained(quantize(llama(), Int8Config(), progress=False), tmp_path, config=config)
    assert error(logits(again), found) < 1e-5


@pytest.mark.parametrize("approach", ["dynamic", "static"])
def test_an_adapter_put_on_before_quantizing_counts(approach: str) -> None:
    expected = logits(adapted(llama()))
    data = [{"input_ids": IDS}] if approach == "static" else None
    model = quantize(adapted(llama()), Int8Config(approach=approach), data, progress=False)
    assert isinstance(model.base_model.model.model.layers[0].self_attn.q_proj.base_layer, Int8Linear)
    assert error(logits(model), expected) < 0.06


def test_merging_into_int8_is_our_error_and_changes_nothing() -> None:
    model = adapted(quantize(llama(), Int8Config(), progress=False))
    before = logits(model)
    with pytest.raises(QuantizationError, match="would write to the weight"):
        model.merge_adapter()
    assert torch.equal(logits(model), before)
