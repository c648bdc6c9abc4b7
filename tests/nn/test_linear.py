"""`Int8Linear`: equal to numerics, and a module that survives what users do to modules."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from optimum_int8 import numerics
from optimum_int8.nn import Int8Embedding, Int8Linear

RANGES = {"static": (-2.0, 3.0), "dynamic": None}


def make(kind: str = "static", inner: int = 33, outer: int = 17, bias: bool = True) -> tuple[nn.Linear, Int8Linear]:
    torch.manual_seed(inner * outer)
    linear = nn.Linear(inner, outer, bias=bias).eval()
    return linear, Int8Linear.from_float(linear, RANGES[kind])


def by_definition(linear: nn.Linear, x: torch.Tensor, kind: str) -> torch.Tensor:
    weight, weight_scale = numerics.quantize_weight(linear.weight)
    if kind == "static":
        scale, zero_point = numerics.choose_affine_qparams(*RANGES["static"])
        q = numerics.quantize_affine(x, scale, zero_point)
    else:
        q, scale, zero_point = numerics.quantize_rows(x)
    return numerics.linear(
        q, scale, zero_point, weight, weight_scale, None if linear.bias is None else linear.bias.detach()
    )


@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inner", "outer"), [(1, 1), (33, 17), (64, 32), (97, 65)])
def test_equals_the_definition(kind: str, bias: bool, inner: int, outer: int) -> None:
    linear, int8 = make(kind, inner, outer, bias)
    x = torch.randn(2, 5, inner) * 2
    found = int8(x)
    assert torch.equal(found, by_definition(linear, x, kind))
    # a bound of the theory: half a step of input and weight each, over the inner products
    scale = 5 / 255 if kind == "static" else float((x.amax(-1).clamp(min=0) - x.amin(-1).clamp(max=0)).max() / 255)
    inside = x.clamp(*RANGES["static"]) if kind == "static" else x
    weights, steps = linear.weight.abs(), linear.weight.abs().amax(1) / 127
    bound = scale * (weights.sum(1) + steps * inner / 2) + inside.abs().amax() * steps * inner / 2
    assert ((found - linear(inside)).abs() <= bound + 1e-6).all()


@pytest.mark.parametrize("kind", RANGES)
def test_conv1d_is_a_transposed_linear(kind: str) -> None:
    linear, int8 = make(kind)
    conv = Conv1D(17, 33)
    with torch.no_grad():
        conv.weight.copy_(linear.weight.T)
        conv.bias.copy_(linear.bias)
    x = torch.randn(3, 33)
    assert torch.equal(Int8Linear.from_float(conv, RANGES[kind])(x), int8(x))


def test_per_tensor_weights_carry_one_scale() -> None:
    linear, _ = make()
    int8 = Int8Linear.from_float(linear, None, per_channel=False)
    assert int8.weight_scale.shape == (17,)
    assert int8.weight_scale.unique().tolist() == [float(linear.weight.detach().abs().max() / 127)]


@pytest.mark.parametrize("kind", RANGES)
def test_state_dict_holds_the_stored_tensors_only(kind: str) -> None:
    linear, int8 = make(kind)
    state = int8.state_dict()
    static = {"input_scale", "input_zero_point"} if kind == "static" else set()
    assert set(state) == {"weight", "weight_scale", "bias"} | static
    assert state["weight"].dtype == torch.int8
    assert state["weight"].shape == (17, 33, 1)
    assert torch.equal(state["weight"].squeeze(-1), numerics.quantize_weight(linear.weight)[0])
    if static:
        assert (state["input_scale"].dtype, state["input_zero_point"].dtype) == (torch.float32, torch.int32)
        assert state["input_scale"].shape == state["input_zero_point"].shape == ()


@pytest.mark.parametrize("kind", RANGES)
def test_loading_into_a_packed_module_packs_again(kind: str) -> None:
    _, source = make(kind)
    torch.manual_seed(1)
    target = Int8Linear.from_float(nn.Linear(33, 17), (0.0, 1.0) if kind == "static" else None)
    x = torch.randn(4, 33)
    assert not torch.equal(target(x), source(x))
    target.load_state_dict(source.state_dict())
    assert torch.equal(target(x), source(x))
    assert torch.equal(target.weight, source.weight)


def test_loading_into_an_empty_module_packs() -> None:
    _, source = make()
    target = Int8Linear(33, 17)
    target.load_state_dict(source.state_dict())
    x = torch.randn(4, 33)
    assert torch.equal(target(x), source(x))


def test_loading_a_missing_or_a_wrong_tensor_fails() -> None:
    _, int8 = make()
    state = int8.state_dict()
    with pytest.raises(RuntimeError, match="weight_scale"):
        int8.load_state_dict({k: v for k, v in state.items() if k != "weight_scale"})
    with pytest.raises(RuntimeError, match="size mismatch"):
        int8.load_state_dict({**state, "weight": state["weight"].squeeze(-1)})
    x = torch.randn(2, 33)
    assert torch.isfinite(int8(x)).all()  # and the module still works


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.bfloat16, nn.Module.double, lambda m: m.to(torch.float16)])
def test_casting_keeps_the_tensors_and_answers_in_the_inputs_dtype(cast: object) -> None:
    _, int8 = make()
    x = torch.randn(4, 33)
    expected = int8(x)
    cast(int8)  # type: ignore[operator]
    assert {k: v.dtype for k, v in int8.state_dict().items()} == {k: v.dtype for k, v in make()[1].state_dict().items()}
    assert torch.equal(int8(x), expected)
    assert int8(x.half()).dtype == torch.float16


def test_deepcopy_shares_nothing() -> None:
    _, int8 = make()
    x = torch.randn(4, 33)
    twin = copy.deepcopy(int8)
    expected = int8(x)
    assert torch.equal(twin(x), expected)
    int8.panels.zero_()
    assert torch.equal(twin(x), expected)


def test_keeps_the_training_flag() -> None:
    linear, _ = make()
    assert not Int8Linear.from_float(linear.eval(), None).training
    assert Int8Linear.from_float(linear.train(), None).training


def test_a_tied_head_reads_the_weight_of_the_embedding() -> None:
    embedding = nn.Embedding(40, 33)
    head = nn.Linear(33, 40, bias=False)
    head.weight = embedding.weight
    table = Int8Embedding.from_float(embedding)
    int8 = Int8Linear.from_float(head, None)
    int8.tie(table)
    assert int8.weight.data_ptr() == table.weight.data_ptr()
    state = nn.ModuleDict({"embedding": table, "head": int8}).state_dict()
    assert state["head.weight"].data_ptr() == state["embedding.weight"].data_ptr()
    assert state["head.weight_scale"].data_ptr() == state["embedding.weight_scale"].data_ptr()
    assert "embedding" not in dict(int8.named_children())  # a tie, not a child: its tensors would be stored twice


def test_rows_do_not_depend_on_each_other() -> None:
    for kind in RANGES:
        _, int8 = make(kind)
        x = torch.randn(5, 7, 33)
        alone = torch.stack([torch.stack([int8(row) for row in rows]) for rows in x])
        assert torch.equal(int8(x), alone)


def test_an_empty_batch_gives_an_empty_result() -> None:
    for kind in RANGES:
        assert make(kind)[1](torch.empty(0, 5, 33)).shape == (0, 5, 17)
