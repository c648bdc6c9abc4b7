"""`warmup`: the calls it is told of find everything compiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from optimum_int8 import ConfigError, Int8Config, kernels, quantize, warmup
from optimum_int8.fx import build
from optimum_int8.passes import find_blocks

needs_library = pytest.mark.skipif(kernels.library() is None, reason="programs need the native library")


def bert() -> PreTrainedModel:
    return BertModel(
        BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    )


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2)
    )


def t5() -> PreTrainedModel:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=50, d_model=32, d_ff=32, num_layers=1, num_heads=2, d_kv=16, decoder_start_token_id=0)
    )


def resnet() -> PreTrainedModel:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")
    config.image_size = 32
    return ResNetForImageClassification(config)


def int8(model: nn.Module) -> nn.Module:
    return quantize(model.eval(), Int8Config(approach="dynamic"), progress=False)


def call(model: nn.Module, batch: int, length: int) -> None:
    if model.main_input_name == "pixel_values":
        model(pixel_values=torch.randn(batch, 3, 32, 32))
        return
    ids = torch.randint(5, 50, (batch, length))
    mask = torch.ones_like(ids)
    mask[0, length // 2 :] = 0
    if model.can_generate():
        model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=5, do_sample=False)
    else:
        model(input_ids=ids, attention_mask=mask)


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("make", [bert, gpt2, t5, resnet], ids=lambda make: make.__name__)
def test_later_calls_compile_nothing(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = int8(make())
    assert warmup(model, [(2, 6)]) is model
    known = {name: set(block.variants) for name, block in find_blocks(model).items()}
    assert any(known.values())

    def never(*_: Any) -> Any:
        raise AssertionError("a call compiles")

    monkeypatch.setattr(build.Builder, "build", never)
    with torch.no_grad():
        for shape in [(2, 6), (3, 9)]:
            call(model, *shape)
    assert {name: set(block.variants) for name, block in find_blocks(model).items()} == known
    assert not any(block.misses for block in find_blocks(model).values())


def test_dictionaries_are_calls() -> None:
    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[list[str]] = []

        def forward(self, **inputs: torch.Tensor) -> None:
            assert not torch.is_grad_enabled()
            self.calls.append(sorted(inputs))

    model = Adds().eval()
    x = torch.ones(1)
    warmup(model, {"a": x, "b": x})
    warmup(model, [{"a": x}, {"b": x}])
    assert model.calls == [["a", "b"], ["a"], ["b"]]


def test_the_transformer_inside_takes_shapes() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = bert()
            self.seen: list[tuple[int, ...]] = []
            self.inner.register_forward_pre_hook(self.note, with_kwargs=True)

        def note(self, module: nn.Module, args: Any, kwargs: Any) -> None:
            self.seen.append(tuple(kwargs["input_ids"].shape))

    model = Around().eval()
    warmup(model, [(1, 4), (3, 7)])
    assert model.seen == [(1, 4), (3, 7), (3, 7)], "without padding and with"


@pytest.mark.parametrize("shape", [(0, 4), (1,), (1, 2, 3), "ab", 3, (1, 2.0), (True, 4)])
def test_a_shape_that_is_none_is_refused_before_anything_runs(shape: Any) -> None:
    model = bert().eval()
    model.register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
    with pytest.raises(ConfigError, match="expected \\(batch, length\\)"):
        warmup(model, [(1, 4), shape])


def test_what_cannot_be_warmed_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"call model\.eval\(\)"):
        warmup(bert().train(), [(1, 4)])
    with pytest.raises(ConfigError, match="give dictionaries of inputs"):
        warmup(nn.Linear(2, 2).eval(), [(1, 4)])
    with pytest.raises(ConfigError, match="at most 512"):
        warmup(bert().eval(), [(1, 513)])


def test_a_prompt_as_long_as_the_model_takes() -> None:
    model = gpt2().eval()
    assert warmup(model, [(1, 64), (1, 63)]) is model
