"""A block notices at its next call that it is no longer made of what its module holds."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from optimum_int8 import Int8Config, quantize
from optimum_int8.fx import sources
from optimum_int8.nn import Int8Conv2d, Int8Linear
from optimum_int8.nn.changes import Changes
from optimum_int8.passes import find_blocks, install, remove
from tests.fx.toys import int8_linear

IDS = torch.randint(5, 90, (2, 12), generator=torch.Generator().manual_seed(0))


def bert(seed: int = 0, approach: str = "dynamic") -> nn.Module:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128
    )
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() == 1 else 0.06))
    data = [{"input_ids": IDS}] if approach == "static" else None
    return quantize(model, Int8Config(approach=approach), data, progress=False)


def layer(model: Any) -> Any:
    return model.bert.encoder.layer[0]


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits.float()


def unfused(model: nn.Module) -> Tensor:
    plain = copy.deepcopy(model)
    remove(plain)
    return logits(plain)


@torch.no_grad()
def scale_query(model: Any) -> None:
    layer(model).attention.self.query.weight_scale.mul_(1.5)


def scale_value_data(model: Any) -> None:
    layer(model).attention.self.value.weight_scale.data.mul_(1.5)


def scale_output_data(model: Any) -> None:
    layer(model).output.dense.weight_scale.data.mul_(1.5)


@torch.no_grad()
def norm_in_place(model: Any) -> None:
    layer(model).output.LayerNorm.weight.add_(0.5)


def norm_data(model: Any) -> None:
    layer(model).output.LayerNorm.weight.data.copy_(torch.linspace(0.5, 2.0, 64))


def norm_storage(model: Any) -> None:
    layer(model).output.LayerNorm.weight.data = torch.linspace(0.5, 2.0, 64)


def scale_output_storage(model: Any) -> None:
    layer(model).output.dense.weight_scale.data = layer(model).output.dense.weight_scale * 1.5


def norm_parameter(model: Any) -> None:
    layer(model).attention.output.LayerNorm.weight = nn.Parameter(torch.linspace(0.5, 2.0, 64))


def norm_registered(model: Any) -> None:
    layer(model).output.LayerNorm.register_parameter("bias", nn.Parameter(torch.linspace(-1.0, 1.0, 64)))


def norm_in_the_table(model: Any) -> None:
    layer(model).output.LayerNorm._parameters["bias"] = nn.Parameter(torch.linspace(-1.0, 1.0, 64))


def linear_module(model: Any) -> None:
    layer(model).output.dense = int8_linear(128, 64, seed=5, static=False)


def one_layer(model: Any) -> None:
    model.bert.encoder.layer[1].load_state_dict(bert(1).bert.encoder.layer[0].state_dict())


def last_layer_removed(model: Any) -> None:
    del model.bert.encoder.layer[-1]


def float_module(model: Any) -> None:
    torch.manual_seed(3)
    layer(model).intermediate.dense = nn.Linear(64, 128)


def other_model(model: nn.Module) -> None:
    model.load_state_dict(bert(1).state_dict())


def other_model_assigned(model: nn.Module) -> None:
    model.load_state_dict(bert(1).state_dict(), assign=True)


def wait() -> None:
    """Until a write that no module is told of must be seen."""
    time.sleep(sources._LATEST)


TOLD = {"norm_parameter", "norm_registered", "linear_module", "one_layer", "float_module", "other_model"} | {
    "other_model_assigned",
    "norm_in_place",  # read where it lies
    "norm_data",
    "norm_storage",
    "scale_output_data",
}
"""Changes that the very next call shows."""

CHANGES: list[Callable[[Any], None]] = [
    scale_query,
    scale_value_data,
    scale_output_data,
    scale_output_storage,
    norm_in_place,
    norm_data,
    norm_storage,
    norm_parameter,
    norm_registered,
    norm_in_the_table,
    linear_module,
    one_layer,
    last_layer_removed,
    float_module,
    other_model,
    other_model_assigned,
]


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_model_answers_as_its_modules_do(change: Callable[[Any], None]) -> None:
    model = bert()
    before = logits(model)
    assert torch.equal(logits(model), before)
    change(model)
    if change.__name__ not in TOLD:
        wait()
    after = logits(model)
    assert (after - before).abs().max() > 1e-3, "the change is one that can be seen"
    assert torch.allclose(after, unfused(model), atol=2e-2 * float(after.abs().max()))
    assert torch.equal(logits(copy.deepcopy(model)), after), "as a copy that captures anew"
    assert any(any(block.variants.values()) for block in find_blocks(model).values())


@pytest.mark.slow
def test_static_scales_are_part_of_what_is_watched() -> None:
    model = bert(approach="static")
    before = logits(model)
    with torch.no_grad():
        layer(model).intermediate.dense.input_scale.mul_(3.0)
        layer(model).attention.self.query.input_zero_point.data.add_(20)
    wait()
    after = logits(model)
    assert (after - before).abs().max() > 1e-3
    assert torch.allclose(after, unfused(model), atol=2e-2 * float(after.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_in_another_dtype_keeps_its_answer(dtype: torch.dtype) -> None:
    model = bert()
    before = logits(model)
    model.to(dtype)
    assert (logits(model) - before).norm() / before.norm() < 0.05


class Folded(nn.Module):
    """The batch norm becomes part of the convolution: its program holds copies."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = Int8Conv2d.from_float(nn.Conv2d(3, 8, 3).eval(), (-3.0, 3.0))
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
def test_a_folded_batch_norm_is_watched_through_data(name: str) -> None:
    module = Folded()
    install(nn.ModuleDict({"module": module}).eval())
    x = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        module(x)
        getattr(module.norm, name).data.add_(0.5)
        wait()
        assert any(find_blocks(module)[""].variants.values())
        assert torch.allclose(module(x), Folded.forward(module, x), atol=1e-4)


def test_training_in_between_is_seen() -> None:
    module = Folded()
    model = nn.ModuleDict({"module": module}).eval()
    install(model)
    x = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = module(x)
        model.train()
        module(x * 3 + 1)
        model.eval()
        wait()
        after = module(x)
    assert not torch.allclose(before, after, atol=1e-2)
    assert torch.allclose(after, Folded.forward(module, x), atol=1e-4)


def test_a_block_whose_tensors_never_rest_stops_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.ModuleDict({"linear": int8_linear()}).eval()
    compiler = install(model)
    made: list[Any] = []
    finish = compiler.finish
    monkeypatch.setattr(compiler, "finish", lambda *args, **named: made.append(args) or finish(*args, **named))
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        for i in range(12):
            model.linear.bias = torch.full((16,), float(i))
            assert torch.equal(model.linear(x), Int8Linear.forward(model.linear, x))
    assert 1 < len(made) <= 5


def test_a_module_that_did_not_change_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.ModuleDict({"linear": int8_linear()}).eval()
    install(model)
    x = torch.randn(2, 5, 16)
    model.linear(x)
    (block,) = find_blocks(model).values()
    known = block.sources
    model.linear.load_state_dict  # noqa: B018 - reading is no change
    model.linear(x)
    assert block.sources is known and isinstance(known, sources.Sources)


def test_a_hook_on_a_module_that_was_put_in_is_run_at_the_next_call() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"outer": nn.Sequential(int8_linear(16, 16), nn.ReLU())}).eval()
    install(model)
    x = torch.randn(2, 5, 16)
    seen: list[Tensor] = []
    other = nn.ReLU()
    other.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        for _ in range(2):
            model.outer(x)
        model.outer[1] = other
        for calls in range(1, 3):
            model.outer(x)
            assert len(seen) == calls


def test_a_list_that_is_made_at_each_call_is_no_change() -> None:
    """Decoders cut their layers anew in each forward."""
    model = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    watched = sources.Sources(model)
    before = Changes.count
    cut = model[:2]
    other = nn.Linear(2, 2)
    other.weight = nn.Parameter(torch.zeros(2, 2))
    assert Changes.count == before and len(cut) == 2
    model[0].weight = nn.Parameter(torch.ones(2, 2))
    assert Changes.count > before and not watched.same()
