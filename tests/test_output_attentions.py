"""`output_attentions=True` of models that are eager, by `set_attn_implementation` or on loading: real attentions, as FP32 returns them."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from optimum_int8 import Int8Config, OptimizedModel, quantize
from optimum_int8.nn import IMPLEMENTATION, eager
from tests import zoo
from tests.models import batch, classifier

KINDS = ("attentions", "encoder_attentions", "decoder_attentions", "cross_attentions")


def eager_model(name: str = "bert", **changes: Any) -> transformers.PreTrainedModel:
    model = zoo.make(name, **changes)
    model.set_attn_implementation("eager")
    return model


def int8(model: transformers.PreTrainedModel, inputs: dict[str, Tensor] | None = None, **settings: Any) -> Any:
    data = None if inputs is None else [inputs]
    return quantize(copy.deepcopy(model), Int8Config(**settings), data, progress=False)


def attentions(model: Any, inputs: dict[str, Tensor], **asked: Any) -> list[Tensor]:
    with torch.no_grad():
        found = model(**inputs, **(asked or {"output_attentions": True}))
    return [x for kind in KINDS for x in found.get(kind) or ()]


def near(found: list[Tensor], exact: list[Tensor]) -> bool:
    return len(found) == len(exact) > 0 and all(
        (a - b).norm() < 0.05 * b.norm() for a, b in zip(found, exact, strict=True)
    )


@pytest.mark.parametrize("approach", ["dynamic", "static"])
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "bert",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("bart", "t5", "gpt2", "llama", "vit", "modernbert")),
    ],
)
def test_an_eager_model_returns_them(name: str, fuse: bool, approach: str) -> None:
    model = eager_model(name)
    inputs = zoo.inputs(model)
    found = int8(model, inputs if approach == "static" else None, approach=approach, fuse=fuse)
    plain = zoo.logits(found, inputs)
    assert near(attentions(found, inputs), attentions(model, inputs))
    assert torch.equal(zoo.logits(found, inputs), plain), "other calls stay as they were"
    exact = zoo.logits(model, inputs)
    assert (plain - exact).norm() < 0.05 * exact.norm()


def test_each_row_sums_to_one_and_sees_no_padding() -> None:
    model = eager_model("llama")
    inputs = zoo.inputs(model)
    for weights in attentions(int8(model, fuse=False), inputs):
        rows = weights[0, :, 3:]
        assert torch.allclose(rows.sum(-1), torch.ones(rows.shape[:-1]))
        assert not rows[..., :3].any()
        assert not weights.triu(1)[1].any()


def test_sdpa_returns_none_and_says_how_to_have_them(caplog: pytest.LogCaptureFixture) -> None:
    model = classifier()
    found = int8(model)
    eager._warned.clear()
    with caplog.at_level(logging.WARNING, "optimum_int8"):
        assert attentions(found, batch()) == attentions(model, batch()) == []
    assert 'attn_implementation="eager"' in caplog.text


def test_after_quantizing() -> None:
    model = classifier()
    found = int8(model)
    before = found(**batch()).logits
    found.set_attn_implementation("eager")
    model.set_attn_implementation("eager")
    assert near(attentions(found, batch()), attentions(model, batch()))
    found.set_attn_implementation(IMPLEMENTATION)
    assert attentions(found, batch()) == []
    assert torch.equal(found(**batch()).logits, before)


def clip(vision: str, text: str) -> transformers.CLIPModel:
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.CLIPConfig(
        text_config={**sizes, "vocab_size": 100, "eos_token_id": 2},
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config).eval()
    model.set_attn_implementation({"vision_config": vision, "text_config": text})
    return model


@pytest.mark.parametrize("when", ["before", "after"])
def test_one_part_of_a_model(when: str) -> None:
    """The part that is eager returns them, the other does not."""
    model = clip("eager", "sdpa")
    found = int8(model if when == "before" else clip("sdpa", "sdpa"))
    if when == "after":
        found.set_attn_implementation({"vision_config": "eager"})
    inputs = {"input_ids": torch.tensor([[3, 4, 5, 2]]), "pixel_values": torch.rand(1, 3, 32, 32)}
    with torch.no_grad():
        got, exact = (m(**inputs, output_attentions=True) for m in (found, model))
    assert near(list(got.vision_model_output.attentions), list(exact.vision_model_output.attentions))
    assert not got.text_model_output.attentions
    assert (got.image_embeds - exact.image_embeds).norm() < 0.05 * exact.image_embeds.norm()
    assert (got.text_embeds - exact.text_embeds).norm() < 0.05 * exact.text_embeds.norm()


@pytest.mark.parametrize("load", [OptimizedModel, transformers.AutoModelForSequenceClassification])
def test_on_loading(load: Any, tmp_path: Path) -> None:
    model = classifier()
    OptimizedModel.save_pretrained(int8(model), tmp_path)
    loaded = load.from_pretrained(tmp_path, attn_implementation="eager")
    model.set_attn_implementation("eager")
    assert near(attentions(loaded, batch()), attentions(model, batch()))
    assert attentions(load.from_pretrained(tmp_path), batch()) == []


def test_a_configuration_that_always_asks(tmp_path: Path) -> None:
    """`config.output_attentions` is kept and saved; as of an FP32 model, eager is asked for anew on loading."""
    model = classifier()
    model.set_attn_implementation("eager")
    model.config.output_attentions = True
    exact = attentions(model, batch(), return_dict=True)
    found = int8(model)
    assert near(attentions(found, batch(), return_dict=True), exact)
    OptimizedModel.save_pretrained(found, tmp_path)
    loaded = OptimizedModel.from_pretrained(tmp_path, attn_implementation="eager")
    assert near(attentions(loaded, batch(), return_dict=True), exact)
    assert torch.equal(loaded(**batch()).logits, found(**batch()).logits)
