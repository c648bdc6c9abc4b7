"""`quantize`: what comes out, what stays FP32 and why, and that the FP32 model is left alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM
from transformers.pytorch_utils import Conv1D

from optimum_int8 import CalibrationError, Int8Config, QuantizationError, quantize
from optimum_int8.nn import IMPLEMENTATION, Int8Attention, Int8Embedding, Int8Linear, Int8Module
from optimum_int8.passes import find_blocks
from tests.models import batch, classifier, logits

APPROACHES = ("static", "dynamic")


def convert(
    model: nn.Module, approach: str, data: Any = None, inplace: bool = False, fuse: bool = False, **settings: Any
) -> Any:
    """Unfused unless a test is about that: capturing takes seconds."""
    settings["fuse"] = fuse
    data = [batch()] if data is None and approach == "static" else data
    return quantize(model, Int8Config(approach=approach, **settings), data, inplace=inplace, progress=False)


def snapshot(model: Any) -> tuple[Any, ...]:
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = {name: type(m) for name, m in model.named_modules()}
    hooks = sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())
    own = [name for name, m in model.named_modules() if "forward" in vars(m)]
    return (
        tensors,
        modules,
        hooks,
        own,
        copy.deepcopy(model.config.to_dict()),
        model.config._attn_implementation,
        model.training,
    )


@pytest.mark.parametrize("approach", APPROACHES)
def test_a_copy_leaves_the_fp32_model_untouched(approach: str) -> None:
    model = classifier()
    expected, before = logits(model, **batch()), snapshot(model)
    before = snapshot(model)  # after Transformers put its own hooks there
    int8 = convert(model, approach)
    tensors, *rest = snapshot(model)
    assert all(torch.equal(tensor, before[0][name]) for name, tensor in tensors.items())
    assert rest == list(before[1:])
    assert torch.equal(logits(model, **batch()), expected)
    assert type(int8) is type(model)
    assert int8.config is not model.config
    shared = {t.data_ptr() for t in model.state_dict().values()} & {t.data_ptr() for t in int8.state_dict().values()}
    assert not shared


@pytest.mark.parametrize("approach", APPROACHES)
def test_inplace_converts_the_model_itself_to_the_same(approach: str) -> None:
    model = classifier()
    twin = convert(model, approach)
    same = convert(model, approach, inplace=True)
    assert same is model
    assert torch.equal(logits(same, **batch()), logits(twin, **batch()))


def test_a_failed_calibration_leaves_an_inplace_model_fp32() -> None:
    model = classifier()
    expected, before = logits(model, **batch()), None
    before = snapshot(model)
    with pytest.raises(IndexError):
        convert(model, "static", [batch(), {"input_ids": torch.tensor([[10_000]])}], inplace=True)
    assert snapshot(model)[1:] == before[1:]
    assert torch.equal(logits(model, **batch()), expected)


@pytest.mark.parametrize("approach", APPROACHES)
def test_every_site_becomes_int8_and_is_described(approach: str) -> None:
    int8 = convert(classifier(), approach, fuse=True)
    kinds = {"linear": Int8Linear, "embedding": Int8Embedding, "attention": Int8Attention}
    described = int8.config.quantization_config
    assert (described["quant_method"], described["format_version"]) == ("optimum_int8", 1)
    assert Int8Config.from_dict(described["config"]).approach == approach
    assert described["fp32"] == {}
    for name, kind in described["modules"].items():
        where = f"{name}.int8_attention" if kind == "attention" else name
        assert type(int8.get_submodule(where)) is kinds[kind]
    assert len(described["modules"]) == sum(isinstance(m, Int8Module) for m in int8.modules()) == 19
    assert int8.config._attn_implementation == IMPLEMENTATION
    assert find_blocks(int8)
    assert not find_blocks(convert(classifier(), approach))


@pytest.mark.parametrize("approach", APPROACHES)
def test_is_near_the_fp32_model(approach: str) -> None:
    model = classifier()
    exact = torch.cat([logits(model, **batch(8, 11, 0, seed)) for seed in range(6)])
    int8 = convert(model, approach, [batch(8, 11, 0, seed) for seed in range(6)])
    found = torch.cat([logits(int8, **batch(8, 11, 0, seed)) for seed in range(6)])
    assert (found - exact).square().mean() < 0.01 * (exact - exact.mean(0)).square().mean()


def test_sites_never_reached_stay_fp32_and_say_so() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor, other: bool = False) -> Tensor:
            return self.idle(x) if other else self.used(x)

    model = Half()
    model.config = None
    int8 = convert(model, "static", [torch.randn(3, 4)])
    assert type(int8.used) is Int8Linear
    assert type(int8.idle) is nn.Linear
    x = torch.randn(2, 4)
    assert torch.equal(int8(x, other=True), model(x, other=True))


def test_the_reason_of_a_site_never_reached_is_in_the_description() -> None:
    model = classifier()
    model.register_module("spare", nn.Linear(4, 4))
    described = convert(model, "static").config.quantization_config
    assert described["fp32"] == {"spare": "never reached by the calibration data"}
    assert "spare" not in described["modules"]
    assert convert(model, "dynamic").config.quantization_config["modules"]["spare"] == "linear"


def test_data_that_reach_nothing_are_an_error() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(QuantizationError, match="nothing to quantize: never reached"):
        convert(Idle(), "static", [torch.ones(1, 4)])


@pytest.mark.parametrize("approach", APPROACHES)
def test_a_plain_module(approach: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 33), nn.ReLU(), Conv1D(7, 33)).eval()
    x = torch.randn(5, 40)
    int8 = convert(model, approach, [x])
    assert [type(m) for m in int8] == [Int8Linear, nn.ReLU, Int8Linear]
    with torch.no_grad():
        exact, found = model(x), int8(x)
    assert 0 < (found - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("model", [nn.Linear(8, 4), nn.Embedding(8, 4)])
def test_a_single_module_is_refused_with_the_way_out(model: nn.Module) -> None:
    with pytest.raises(QuantizationError, match=r"single (Linear|Embedding).*torch.nn.Sequential"):
        convert(model, "dynamic")
    assert type(convert(nn.Sequential(model), "dynamic")[0]).__name__.startswith("Int8")


def test_a_shared_module_becomes_one_int8_module() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    model["c"] = model["a"]
    int8 = convert(model, "dynamic")
    assert int8["a"] is int8["c"]
    assert int8["a"] is not int8["b"]


@pytest.mark.parametrize("approach", APPROACHES)
def test_tied_weights_are_stored_once(approach: str) -> None:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 50,
    }
    model = BertForMaskedLM(BertConfig(**sizes, max_position_embeddings=16)).eval()
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    data = [{"input_ids": torch.randint(0, 50, (2, 8))}]
    int8 = convert(model, approach, data)
    head, table = int8.cls.predictions.decoder, int8.bert.embeddings.word_embeddings
    assert head.weight.data_ptr() == table.weight.data_ptr()
    assert torch.equal(head.weight_scale, table.weight_scale)
    exact, found = logits(model, **data[0]), logits(int8, **data[0])
    assert (found - exact).square().mean() < 0.01 * exact.square().mean()


def test_an_int8_model_is_refused() -> None:
    int8 = convert(classifier(), "dynamic")
    with pytest.raises(QuantizationError, match="INT8 already; quantize the FP32 model"):
        convert(int8, "dynamic")


def test_static_without_data_says_what_to_do() -> None:
    with pytest.raises(CalibrationError, match=r"'static' needs calibration_data; .*'dynamic'"):
        quantize(classifier(), Int8Config(approach="static"))
    with pytest.raises(CalibrationError, match="holds no batch"):
        convert(classifier(), "static", [])


def test_nan_in_the_data_or_the_weights_is_an_error() -> None:
    with pytest.raises(CalibrationError, match="finite"):
        convert(nn.Sequential(nn.Linear(4, 4)), "static", [torch.tensor([[1.0, float("nan"), 0.0, 0.0]])])
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with torch.no_grad():
        model[1].weight[2, 1] = float("nan")
    with pytest.raises(QuantizationError, match="of '1' holds values that are not finite"):
        convert(model, "dynamic")
    with torch.no_grad():
        model[1].weight[2, 1], model[1].bias[0] = 0.0, float("inf")
    with pytest.raises(QuantizationError, match="of '1' holds values that are not finite"):
        convert(model, "dynamic")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("approach", APPROACHES)
def test_half_precision_models(approach: str, dtype: torch.dtype) -> None:
    model = classifier()
    exact = logits(model, **batch())
    int8 = convert(classifier().to(dtype), approach, fuse=dtype == torch.bfloat16)
    for _ in range(2):
        found = logits(int8, **batch())
        assert found.dtype == torch.float32  # what is not INT8 is float32: see precision.py
        assert (found - exact).abs().max() < 0.1 * exact.abs().max()
    assert logits(convert(model, approach).to(dtype), **batch()).dtype == dtype


def test_per_tensor_weights() -> None:
    int8 = convert(classifier(), "dynamic", weight_granularity="per_tensor")
    assert int8.classifier.weight_scale.unique().numel() == 1
    assert int8.bert.pooler.dense.weight_scale.unique().numel() == 1


def test_exclusions_are_kept_and_described() -> None:
    int8 = convert(classifier(), "static", exclude=("classifier",), attention="float32")
    described = int8.config.quantization_config
    assert type(int8.classifier) is nn.Linear
    assert described["fp32"]["classifier"] == "excluded by name"
    assert int8.config._attn_implementation == IMPLEMENTATION, "whose core without grids is float32"
    assert not any(isinstance(m, Int8Attention) for m in int8.modules())
