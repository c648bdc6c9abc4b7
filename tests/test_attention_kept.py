"""Models whose attention SDPA cannot express keep their own function and mask; models that run eager in FP32 keep eager's masks."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from optimum_int8 import Int8Config, OptimizedModel, quantize
from optimum_int8.errors import QuantizationError
from optimum_int8.nn import IMPLEMENTATION, int8_attention_forward
from optimum_int8.nn.cores import core_obstacles
from optimum_int8.training import convert_qat, prepare_qat
from tests.attention_models import EAGER, KEPT, error, inputs, make, outputs

QUICK = ("gpt_oss",)


def quick_first(names: Any) -> list[Any]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


def quantized(model: nn.Module, batch: dict[str, Tensor], approach: str = "dynamic", **settings: Any) -> Any:
    data = [batch] if approach == "static" else None
    return quantize(copy.deepcopy(model), Int8Config(approach=approach, **settings), data, progress=False)


def metadata(model: Any) -> dict[str, Any]:
    found = model.config.quantization_config
    return found if isinstance(found, dict) else found.to_dict()


@pytest.mark.parametrize("attention", ["int8", "bfloat16", "float32"])
@pytest.mark.parametrize("approach", ["dynamic", "static"])
@pytest.mark.parametrize("name", quick_first(KEPT))
def test_its_own_attention_stays(name: str, approach: str, attention: str) -> None:
    """To the bit what the model computes on its own eager function and masks, with padding and windows."""
    model = make(name)
    batch = inputs(model)
    int8 = quantized(model, batch, approach, attention=attention, fuse=False)
    found = outputs(int8, batch)
    assert error(found, outputs(model, batch)) < 0.25  # a token that another expert gets is far off
    kinds = metadata(int8)["modules"]
    obstacles = core_obstacles(model)
    assert obstacles
    assert not obstacles.keys() & kinds.keys()
    assert all(metadata(int8)["fp32"][path] == reason for path, reason in obstacles.items())
    int8.set_attn_implementation("eager")
    assert torch.equal(found, outputs(int8, batch))


@pytest.mark.parametrize("name", quick_first(["gpt_oss", "gemma2", "nllb_moe", "inkling2_loop"]))
def test_fused_blocks_agree(name: str) -> None:
    model = make(name)
    batch = inputs(model)
    found, unfused = (outputs(quantized(model, batch, fuse=fuse), batch) for fuse in (True, False))
    assert error(found, unfused) < 0.01


@pytest.mark.parametrize("name", quick_first(["gpt_oss", "vaultgemma", "flint", "mimo_v2_flash"]))
def test_a_step_with_a_cache_equals_the_whole(name: str) -> None:
    model = make(name)
    batch = inputs(model, padded=False)
    int8 = quantized(model, batch, fuse=False)
    ids = batch["input_ids"]
    with torch.no_grad():
        whole = int8(input_ids=ids).logits[:, -1]
        cache = int8(input_ids=ids[:, :-1], use_cache=True).past_key_values
        step = int8(input_ids=ids[:, -1:], past_key_values=cache).logits[:, -1]
    assert error(step, whole) < 1e-3


@pytest.mark.parametrize("name", quick_first(["gpt_oss", "gemma2", "nllb_moe"]))
def test_reloads_to_the_bit(name: str, tmp_path: Path) -> None:
    model = make(name)
    batch = inputs(model)
    int8 = quantized(model, batch, "static")
    OptimizedModel.save_pretrained(int8, tmp_path)
    loaded = getattr(transformers, type(model).__name__).from_pretrained(tmp_path)
    assert torch.equal(outputs(loaded.eval(), batch), outputs(int8, batch))
    stored = json.loads((tmp_path / "config.json").read_text())["quantization_config"]["fp32"]
    assert core_obstacles(model).items() <= stored.items()


@pytest.mark.parametrize("name", quick_first(["gpt_oss", "gemma2"]))
def test_training_keeps_it_too(name: str) -> None:
    model = make(name)
    batch = inputs(model)
    prepared = prepare_qat(model, Int8Config(approach="qat"), [batch], progress=False)
    assert error(outputs(prepared.eval(), batch), outputs(model, batch)) < 0.15
    found = outputs(convert_qat(prepared), batch)
    assert error(found, outputs(model, batch)) < 0.15


@pytest.mark.parametrize("approach", ["dynamic", "static"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n != "splinter" else n for n in EAGER])
def test_models_that_run_eager_have_int8_cores_on_eager_masks(name: str, approach: str) -> None:
    model = make(name)
    batch = inputs(model)
    exact = outputs(model, batch)
    int8 = quantized(model, batch, approach, fuse=False)
    assert "attention" in metadata(int8)["modules"].values()
    bound = 0.1 if name == "switch_transformers" else 0.05  # its experts
    assert error(outputs(int8, batch), exact) < bound
    assert error(outputs(quantized(model, batch, approach), batch), exact) < bound


@pytest.mark.parametrize("approach", ["dynamic", pytest.param("static", marks=pytest.mark.slow)])
def test_masks_that_a_model_joins_are_whole(approach: str) -> None:
    """T5Gemma2 concatenates its decoder's mask and the encoder's."""
    model = make("t5gemma2")
    batch = inputs(model)
    int8 = quantized(model, batch, approach)
    assert "attention" in metadata(int8)["modules"].values()
    assert error(outputs(int8, batch), outputs(model, batch)) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deepseek_v32", "glm_moe_dsa"])
def test_attention_to_chosen_keys_stays(name: str) -> None:
    """Its code makes the mask of the keys it chose only for the implementations that it names."""
    model = make(name)
    batch = inputs(model)
    int8 = quantized(model, batch, fuse=False)
    found = outputs(int8, batch)
    assert (
        error(found, outputs(model, batch)) < 0.35
    )  # a rounded score chooses another key here and there; without a choice 0.5
    assert all("'indices'" in metadata(int8)["fp32"][path] for path in core_obstacles(model))
    int8.set_attn_implementation("sdpa")
    assert torch.equal(found, outputs(int8, batch))


@pytest.mark.slow
def test_a_model_that_asks_for_sdpa_by_name_gets_whole_masks() -> None:
    """Gemma 4 drops queries whose logits are not wanted; under a mask that goes without saying, only `sdpa` stops it."""
    model = make("gemma4")
    batch = {"input_ids": inputs(model)["input_ids"], "logits_to_keep": 3}
    int8 = quantized(model, {}, fuse=False)
    assert "attention" in metadata(int8)["modules"].values()
    with torch.no_grad():
        assert error(int8(**batch).logits, model(**batch).logits) < 0.15


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float = 1.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """With a sink of its own, as a model's file would have it."""
    scores = query @ key.transpose(-1, -2) * scaling
    scores = scores if attention_mask is None else scores + attention_mask
    sink = kwargs["s_aux"].reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
    weights = torch.cat([scores, sink], -1).softmax(-1)[..., :-1]
    return (weights @ value).transpose(1, 2), weights


class Sinks(nn.Module):
    """An attention module that hands over an argument; the class of its model does not matter here."""

    def __init__(self, is_causal: bool = True) -> None:
        super().__init__()
        self.sinks = nn.Parameter(torch.tensor([2.0, 1.0]))
        self.is_causal = is_causal

    def forward(self, *tensors: Tensor, implementation: str = IMPLEMENTATION, mask: Tensor | None = None) -> Tensor:
        function = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        return function(self, *tensors, mask, scaling=0.25, s_aux=self.sinks)[0]


@pytest.mark.parametrize("kind", ["causal", "boolean", "float"])
def test_a_call_with_something_unknown_runs_the_models_own_function(kind: str) -> None:
    """On a mask of its kind, whatever the `sdpa` function would have been given."""
    draw = torch.Generator().manual_seed(0)
    tensors = [torch.randn(2, 2, 5, 16, generator=draw) for _ in range(3)]
    square = (
        torch.ones(5, 5).tril().bool()[None, None] if kind == "causal" else torch.rand(2, 1, 5, 5, generator=draw) > 0.3
    )
    square = square | torch.eye(5).bool()
    floats = torch.zeros(square.shape).masked_fill(~square, torch.finfo(torch.float32).min)
    given = {"causal": None, "boolean": square, "float": floats}[kind]
    module = Sinks()
    with torch.no_grad():
        assert torch.equal(module(*tensors, mask=given), module(*tensors, implementation="eager", mask=floats))


class Foreign(nn.Module):
    """Its file has no eager function."""

    __module__ = "elsewhere"


def test_a_call_with_something_unknown_and_nothing_to_run_is_refused() -> None:
    x = torch.randn(2, 2, 5, 16)
    with pytest.raises(
        QuantizationError, match=r"'softcap', which the cores of optimum_int8 do not know.*set_attn_implementation"
    ):
        int8_attention_forward(Foreign(), x, x, x, None, softcap=30.0)
