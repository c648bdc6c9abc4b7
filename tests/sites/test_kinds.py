"""What every kind of site answers: one module of each, by one harness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertConfig, BertSelfAttention

from optimum_int8 import Int8Config
from optimum_int8.nn.call_modules import FloatCall
from optimum_int8.nn.experts import FloatExperts
from optimum_int8.nn.scores import Scores
from optimum_int8.sites import KINDS, FakeQuantization, Quantization, RecipeEntry, Storage, kind_of, recipe_traits

HEADS, LENGTH, WIDTH = 2, 5, 8


@dataclass
class Case:
    """A float module of a kind, the arguments of a call of the site, its result, and the multiply-adds of that."""

    module: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    output: Callable[..., Tensor]
    products: int
    config: Int8Config = Int8Config(approach="static")


def heads() -> Tensor:
    return torch.randn(3, HEADS, LENGTH, WIDTH)


def attention() -> nn.Module:
    return BertSelfAttention(BertConfig(hidden_size=16, num_attention_heads=2, attn_implementation="sdpa"))


def core(module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)


def run(module: nn.Module, *inputs: Any) -> Tensor:
    return module(*inputs)


def run_call(module: nn.Module, *inputs: Any) -> Tensor:
    return module(list(inputs)) if module.op == "cat" else module(*inputs)


_CORE = 2 * 3 * HEADS * LENGTH * LENGTH * WIDTH
CASES = {
    "linear": Case(lambda: nn.Linear(WIDTH, 6), lambda: (torch.randn(3, LENGTH, WIDTH),), run, 3 * LENGTH * WIDTH * 6),
    "conv": Case(
        lambda: nn.Conv2d(4, 6, 3, groups=2), lambda: (torch.randn(2, 4, 5, 7),), run, 2 * 6 * 3 * 5 * (2 * 3 * 3)
    ),
    "conv3d": Case(
        lambda: nn.Conv3d(4, 6, (2, 3, 3), stride=(2, 3, 3)),
        lambda: (torch.randn(2, 4, 5, 6, 7),),
        run,
        2 * 6 * 2 * 2 * 2 * (4 * 2 * 3 * 3),
    ),
    "embedding": Case(lambda: nn.Embedding(10, WIDTH), lambda: (torch.tensor([[1, 2, 9]]),), run, 0),
    "embedding_bag": Case(lambda: nn.EmbeddingBag(10, WIDTH), lambda: (torch.tensor([[1, 2, 9]]),), run, 0),
    "recurrent": Case(
        lambda: nn.GRU(WIDTH, 6, batch_first=True),
        lambda: (torch.randn(3, LENGTH, WIDTH),),
        lambda module, x: module(x)[0],
        3 * LENGTH * 3 * 6 * (WIDTH + 6),
    ),
    "pool": Case(lambda: nn.AvgPool2d(2), lambda: (torch.randn(2, 4, 6, 6),), run, 0),
    "scores": Case(Scores, lambda: (heads(), heads()), run, 3 * HEADS * LENGTH * LENGTH * WIDTH),
    "experts": Case(
        lambda: FloatExperts(nn.Parameter(torch.randn(3, 6, WIDTH)), False),
        lambda: (torch.randn(LENGTH, WIDTH), 1),
        run,
        LENGTH * WIDTH * 6,
    ),
    "attention": Case(attention, lambda: (heads(), heads(), heads()), core, _CORE),
    "attention_bfloat16": Case(
        attention,
        lambda: (heads(), heads(), heads()),
        core,
        _CORE,
        Int8Config(approach="static", attention="bfloat16"),
    ),
    "matmul": Case(lambda: FloatCall("matmul"), lambda: (torch.randn(3, 4), torch.randn(4, 5)), run_call, 0),
    "add": Case(lambda: FloatCall("add"), lambda: (torch.randn(3, 4), torch.randn(3, 4)), run_call, 0),
    "cat": Case(lambda: FloatCall("cat"), lambda: (torch.randn(3, 4), torch.randn(3, 4)), run_call, 0),
}

BY_RECIPE = [name for name, kind in KINDS.items() if kind.recipe.ops]
FROM_RANGES = [name for name in CASES if name not in ("matmul", "add", "cat")]


def made(name: str) -> tuple[Case, nn.Module, tuple[Any, ...]]:
    torch.manual_seed(0)
    case = CASES[name]
    return case, case.module().eval(), case.inputs()


def ranges(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> dict[str, tuple[float, float]]:
    rows = KINDS[name].rows(module, inputs)
    return {key: (min(float(x.min()), 0.0), max(float(x.max()), 0.0)) for key, x in rows.items()}


def signature(module: nn.Module) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {key: (tensor.dtype, tensor.shape) for key, tensor in module.state_dict().items()}


def test_every_kind_has_a_case() -> None:
    assert CASES.keys() == KINDS.keys()


@pytest.mark.parametrize("name", CASES)
def test_a_module_is_of_one_kind(name: str) -> None:
    case, module, _ = made(name)
    assert [kind.name for kind in KINDS.values() if kind.matches(module, case.config)] == [name]
    found = kind_of(module, case.config)
    assert found is not None and found.name == name
    assert found.obstacle("site", module, case.config) == ""


@pytest.mark.parametrize("name", CASES)
def test_inputs_are_rows_by_name(name: str) -> None:
    kind, (_, module, inputs) = KINDS[name], made(name)
    rows = kind.rows(module, inputs) if kind.inputs else {}
    assert len(rows) == len(kind.inputs)
    if not kind.may_lack_ranges:  # experts are named by their numbers
        assert tuple(rows) == kind.inputs
    sizes = {x.shape[-1] for x in rows.values()}
    expected = {"conv": {4}, "conv3d": {4}, "pool": {4}, "attention": {HEADS * WIDTH}, "scores": {HEADS * WIDTH}}
    assert sizes == (expected.get(name, {WIDTH}) if rows else set())


@pytest.mark.parametrize("name", CASES)
def test_multiply_adds_and_rows_of_the_result(name: str) -> None:
    kind, (case, module, inputs) = KINDS[name], made(name)
    with torch.no_grad():
        output = case.output(module, *inputs)
    assert kind.multiply_adds(module, inputs, output) == case.products
    assert kind.output_rows(module, output).numel() == output.numel()


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("name", FROM_RANGES)
def test_an_empty_module_is_one_that_was_made_from_floats(name: str, static: bool) -> None:
    kind, (_, module, inputs) = KINDS[name], made(name)
    if not static and kind.obstacle("site", module, Int8Config(approach="dynamic")):
        pytest.skip("static only")
    new = kind.from_float(module, Quantization(ranges(name, module, inputs) if static else None))
    empty = kind.empty(module, Storage(static))
    assert type(empty) is type(new) and empty is not None
    assert signature(empty) == signature(new)
    empty.load_state_dict(new.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(empty.state_dict().values(), new.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_an_empty_module_is_refused_for_another_module(name: str) -> None:
    other = nn.LayerNorm(4) if name != "linear" else nn.Conv1d(3, 4, 2)
    assert KINDS[name].empty(other, Storage(True)) is None


@pytest.mark.parametrize("name", BY_RECIPE)
def test_a_recipe_gives_its_numbers_to_the_bit(name: str) -> None:
    kind, (_, module, inputs) = KINDS[name], made(name)
    count = len(inputs)
    zero_point = 128 if kind.symmetric else 117
    qparams = [(0.1 + 0.03 * i, zero_point) for i in range(count)]
    new = kind.from_recipe(module, RecipeEntry([True] * count, qparams, per_channel=False))
    stored = new.state_dict()
    names = (
        kind.inputs if kind.takes_place and kind.holds_weights else kind.inputs or [f"input{i}" for i in range(count)]
    )
    for key, (scale, zero) in zip(names, qparams, strict=False):
        assert float(stored[f"{key}_scale"]) == float(torch.tensor(scale))
        assert int(stored.get(f"{key}_zero_point", torch.tensor(zero))) == zero


@pytest.mark.parametrize("name", ["linear", "conv"])
def test_a_recipe_gives_its_weight_scales(name: str) -> None:
    kind, (_, module, _) = KINDS[name], made(name)
    scales = [0.01 * (i + 1) for i in range(6)]
    new = kind.from_recipe(module, RecipeEntry([True], [(0.1, 117)], weight_scales=scales))
    assert new.state_dict()["weight_scale"].tolist() == pytest.approx(scales)
    kept = kind.from_recipe(module, RecipeEntry([True], [(0.1, 117)], weight_scales=[0.5, 0.5]))
    assert not torch.equal(kept.state_dict()["weight_scale"], new.state_dict()["weight_scale"])


def test_ops_of_recipes_are_of_one_kind() -> None:
    ops = [op for kind in KINDS.values() for op in kind.recipe.ops]
    assert len(set(ops)) == len(ops)
    assert recipe_traits("add_").rounds_output and not recipe_traits("matmul").rounds_output
    assert recipe_traits("no_such_op") == recipe_traits("conv3d")


@pytest.mark.parametrize("name", CASES)
def test_what_is_trained_and_back(name: str) -> None:
    kind, (_, module, inputs) = KINDS[name], made(name)
    if kind.float_in_training:
        with pytest.raises(NotImplementedError):
            kind.unfake(module)
        return
    cls, before = type(module), {key: id(tensor) for key, tensor in module.named_parameters()}
    how = FakeQuantization(ranges(name, module, inputs), True, 8, False, torch.device("cpu"))
    kind.fake(module, how)
    assert kind.fake_quantizers(module).keys() == ranges(name, module, inputs).keys()
    kind.unfake(module)
    assert type(module) is cls
    assert {key: id(tensor) for key, tensor in module.named_parameters()} == before
