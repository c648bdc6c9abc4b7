"""Gradients through INT8 modules are those of the float modules, within the error of quantization."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from optimum_int8 import Int8Config, quantize
from optimum_int8.nn import Int8Conv, Int8Linear
from optimum_int8.nn.attention import Int8Attention
from tests.models import classifier


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(24, 16), (3, 24)),
        (nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=2), (2, 8, 9, 9)),
        (nn.Conv1d(8, 8, 3, padding="same", groups=8), (2, 8, 9)),
    ],
)
@pytest.mark.parametrize("static", [False, True])
def test_a_modules_gradient(module: nn.Module, shape: tuple[int, ...], static: bool) -> None:
    torch.manual_seed(0)
    made = Int8Linear if isinstance(module, nn.Linear) else Int8Conv
    int8 = made.from_float(module, (-4.0, 4.0) if static else None)
    x = torch.randn(shape, requires_grad=True)
    with torch.no_grad():
        values = int8(x)
    found = int8(x)
    assert torch.equal(found, values)
    weights = torch.randn_like(found)
    (gradient,) = torch.autograd.grad((found * weights).sum(), x)
    (expected,) = torch.autograd.grad((module(x) * weights).sum(), x)
    assert relative(gradient, expected) < 0.02


@pytest.mark.parametrize("heads", [4, 2])
def test_the_cores_gradient(heads: int) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, n, 6, 8, requires_grad=True) for n in (4, heads, heads))
    core = Int8Attention(static=False)
    found = core(query, key, value, None, 0.3, True).sum(1)[..., 0].sum()
    exact = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3, enable_gqa=True)
    expected = exact.transpose(1, 2).sum(1)[..., 0].sum()
    for one, other in zip(
        torch.autograd.grad(found, (query, key, value)),
        torch.autograd.grad(expected, (query, key, value)),
        strict=True,
    ):
        assert relative(one, other) < 0.02


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("exclude", [(), ("bert.pooler", "classifier")])
def test_attribution_of_input_embeddings(fuse: bool, exclude: tuple[str, ...]) -> None:
    model: Any = classifier("Bert")
    int8 = quantize(model, Int8Config(fuse=fuse, exclude=exclude), progress=False)
    torch.manual_seed(0)
    embeds = torch.randn(2, 12, 64, requires_grad=True)
    gradients = []
    for made in (model, int8, int8):
        made(inputs_embeds=embeds).logits[:, 0].sum().backward()
        gradients.append(embeds.grad.clone())
        embeds.grad = None
    assert relative(gradients[1], gradients[0]) < 0.1
    assert torch.equal(gradients[1], gradients[2])


def test_prompt_tuning_of_a_decoder() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=64, **sizes)).eval()
    int8: Any = quantize(model, Int8Config(), progress=False)
    prompt = nn.Parameter(torch.randn(1, 4, 64))
    ids = torch.randint(0, 64, (1, 6))
    gradients = []
    for made in (model, int8):
        embeds = torch.cat([prompt, made.get_input_embeddings()(ids)], 1)
        loss = made(inputs_embeds=embeds).logits[0, -1].log_softmax(-1)[3]
        (gradient,) = torch.autograd.grad(loss, prompt)
        gradients.append(gradient)
    assert relative(gradients[1], gradients[0]) < 0.1


def test_calls_without_gradients_stay_fused() -> None:
    int8: Any = quantize(classifier("Bert"), Int8Config(), progress=False)
    assert not any(parameter.requires_grad for parameter in int8.parameters())
    logits = int8(input_ids=torch.randint(5, 90, (2, 12))).logits
    assert logits.grad_fn is None
