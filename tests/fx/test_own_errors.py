"""Errors of ours lead to the module's own code; errors of the module reach the user as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from optimum_int8 import QuantizationError, inspect
from optimum_int8.fx import ROUNDED, Compiler
from optimum_int8.passes import find_blocks, install
from tests.fx.toys import Layer, block_of, int8_linear
from tests.fx.toys import install as install_toys

X = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0))


class Loop(nn.Module):
    """A recurrent cell over time: the captured graph has as many steps as its example."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.cell = int8_linear(), nn.GRUCell(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        state, x = torch.zeros_like(x[:, 0]), self.linear(x)
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return state


class Decay(nn.Module):
    """A state kept by hand, as RWKV does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = int8_linear()

    def forward(self, x: Tensor) -> Tensor:
        keys, state, results = self.linear(x), x.new_zeros(x.shape[0], 16), []
        for step in range(x.shape[1]):
            state = state * 0.5 + keys[:, step]
            results.append(state)
        return torch.stack(results, 1)


class Splits(nn.Module):
    """Sizes that were unpacked into a list."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = int8_linear()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part * (i + 1) for i, part in enumerate(self.linear(x).unbind(1))], -1)


@pytest.mark.parametrize("make", [Loop, Decay, Splits])
def test_a_graph_that_fails_at_the_check_leaves_own_code(make: type[nn.Module]) -> None:
    module = make()
    install(nn.ModuleDict({"module": module}).eval())
    with torch.no_grad():
        for shape in [(2, 6), (3, 4), (2, 6), (1, 9)]:
            x = torch.randn(*shape, 16)
            assert torch.equal(module(x), make.forward(module, x))


class Raises(Exception):
    pass


def compiler_that(fails: Any) -> tuple[Layer, Compiler]:
    layer = Layer()
    return layer, install_toys(nn.ModuleDict({"layer": layer}), fails)


@pytest.mark.parametrize("error", [RecursionError("deep"), Raises("own"), MemoryError(), AssertionError()])
def test_any_error_of_a_compiler(error: Exception) -> None:
    def fails(graph: fx.GraphModule, tensors: list[Tensor], check: bool) -> fx.GraphModule:
        raise error

    layer, compiler = compiler_that(fails)
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(layer(X), Layer.forward(layer, X))
    assert type(error).__name__ in compiler.failures["layer"]


def test_an_error_at_a_later_call_falls_back_and_is_told() -> None:
    """The native library refuses, or the graph met a size that it was not made for."""

    def refuses(graph: fx.GraphModule, tensors: list[Tensor], check: bool) -> Any:
        forward_ = graph.forward

        def forward(*given: Tensor) -> Any:
            if given[0].shape[1] == 9:
                raise RuntimeError("bad argument")
            return forward_(*given)

        graph.forward = forward  # type: ignore[method-assign]
        return graph

    layer, compiler = compiler_that(refuses)
    model = nn.ModuleDict({"layer": layer})
    with torch.no_grad():
        layer(X)
        long = torch.randn(2, 9, 16)
        for _ in range(2):
            assert torch.equal(layer(long), Layer.forward(layer, long))
    assert "bad argument" in compiler.failures["layer"]
    (row,) = [row for row in inspect(model).blocks if row.path == "layer"]
    assert "bad argument" in row.note


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.linear = nn.Embedding(10, 16), int8_linear()

    def forward(self, ids: Tensor) -> Tensor:
        if ids.dim() != 2:
            raise Raises(f"ids have {ids.dim()} axes")
        return self.linear(self.table(ids))


@pytest.mark.parametrize("first", [False, True], ids=["at the first call", "later"])
def test_the_users_error_is_the_modules_own_and_leaves_the_block(first: bool) -> None:
    module = Table()
    install(nn.ModuleDict({"module": module}).eval())
    good = torch.arange(10).view(2, 5)
    with torch.no_grad():
        if first:
            module(good)
        with pytest.raises(IndexError):
            module(good + 90)
        with pytest.raises(Raises, match="ids have 3 axes"):
            module(good[None])
        assert torch.equal(module(good), Table.forward(module, good))
    assert any(find_blocks(module)[""].variants.values())


def test_arguments_of_no_known_form_run_own_code() -> None:
    """The rank of the first tensor decides how the others broadcast; a scalar has none."""

    class Scaled(Layer):
        def forward(self, factor: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
            return Layer.forward(self, x) * factor

    layer = Scaled()
    install_toys(nn.ModuleDict({"layer": layer}))
    factor = torch.tensor(2.0)
    with torch.no_grad():
        assert torch.equal(layer(factor, X), Scaled.forward(layer, factor, X))
    assert block_of(layer).misses


def test_a_graph_that_rounds_is_compared_pass_by_pass_where_that_fails_otherwise() -> None:
    checks = []

    def compile_it(graph: fx.GraphModule, tensors: list[Tensor], check: bool) -> Any:
        checks.append(check)
        if graph.meta.get(ROUNDED):
            raise QuantizationError("passes together round by more than a step")
        return graph

    layers = nn.ModuleDict({"one": Layer(0), "other": Layer(1)})
    compiler = install_toys(layers, compile_it)
    with torch.no_grad():
        layers["one"](X)
        for captured in compiler.captured.values():
            captured.rounded = True
        assert torch.equal(layers["other"](X), Layer.forward(layers["other"], X))
    assert checks == [True, False, True]
    assert not compiler.failures
