"""From a module and a call to a graph that serves every batch and length."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimum_int8.fx import NotCapturable, capture
from optimum_int8.fx.arguments import flatten
from tests.fx.toys import Layer, int8_linear


def captured(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    key, tensors = flatten(args, kwargs)
    return capture(module, module.forward, key, tensors)


@pytest.mark.parametrize("made_at", [(1, 1), (2, 5), (2, 2), (16, 16)])
def test_serves_other_shapes(made_at: tuple[int, int]) -> None:
    """Also when batch, length and width are equal, which torch.export would take for one size."""
    layer = Layer()
    with torch.no_grad():
        graph = captured(layer, torch.randn(*made_at, 16)).bind(layer)
        for batch, length in [(1, 1), (1, 7), (3, 1), (2, 2), (5, 33), (16, 16)]:
            x = torch.randn(batch, length, 16)
            assert torch.equal(graph(x)[0], layer(x))


def test_2d_inputs_have_a_batch_only() -> None:
    layer = Layer()
    graph = captured(layer, torch.randn(4, 16)).bind(layer)
    for rows in (1, 3, 16, 50):
        x = torch.randn(rows, 16)
        assert torch.equal(graph(x)[0], layer(x))


@pytest.mark.parametrize("shape", [(1, 5), (3, 5)])
def test_a_broadcast_mask_and_a_full_one(shape: tuple[int, int]) -> None:
    layer = Layer()
    x, mask = torch.randn(3, 5, 16), torch.rand(*shape).round()
    graph = captured(layer, x, mask.long()).bind(layer)
    for batch, length in [(3, 5), (2, 9), (6, 4)]:
        x = torch.randn(batch, length, 16)
        mask = torch.randint(0, 2, (shape[0] if shape[0] == 1 else batch, length))
        assert torch.equal(graph(x, mask)[0], layer(x, mask))


def test_binds_to_a_sibling() -> None:
    one, other = Layer(0), Layer(1)
    x = torch.randn(2, 5, 16)
    graph = captured(one, x)
    assert torch.equal(graph.bind(other)(x)[0], other(x))
    assert not torch.equal(graph.bind(one)(x)[0], other(x))


def test_a_tensor_of_the_module_may_have_the_name_of_one_that_torch_lifts() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = int8_linear()
            self.register_buffer("lifted_tensor_0", torch.full((16,), 3.0))
            self.register_buffer("lifted_tensor_1", torch.full((16,), 7.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * torch.tensor([0.5] * 16) + self.lifted_tensor_0 - self.lifted_tensor_1

    module, x = Named(), torch.randn(2, 5, 16)
    assert torch.equal(captured(module, x).bind(module)(x)[0], module(x))


def test_tensors_that_the_forward_makes_are_kept() -> None:
    class Makes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = int8_linear()

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * torch.tensor([0.5] * 16)

    module, x = Makes(), torch.randn(2, 3, 16)
    assert torch.equal(captured(module, x).bind(module)(x)[0], module(x))


def test_leaves_the_module_and_its_tensors_alone() -> None:
    layer = Layer()
    before = {name: id(tensor) for name, tensor in layer.named_buffers()}
    captured(layer, torch.randn(2, 3, 16))
    assert {name: id(tensor) for name, tensor in layer.named_buffers()} == before


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # the line
            return x
        return -x


class FixedLength(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(5, 16))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.position


def test_control_flow_on_data_is_refused_with_the_line() -> None:
    line = Branches.forward.__code__.co_firstlineno + 1
    with pytest.raises(NotCapturable, match=rf"at test_capture\.py:{line}"):
        captured(Branches(), torch.randn(2, 3, 16))


@pytest.mark.parametrize("module", [FixedLength(), Branches()])
def test_failures_are_one_line_without_a_dump(module: nn.Module) -> None:
    with pytest.raises(NotCapturable) as failure:
        captured(module, torch.randn(2, 5, 16))
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) < 260


def test_a_result_that_is_not_tensors_is_refused() -> None:
    class Dict(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x}

    with pytest.raises(NotCapturable, match="its result is a dict, not tensors"):
        captured(Dict(), torch.randn(2, 3))


def test_a_call_without_tensors_is_refused() -> None:
    with pytest.raises(NotCapturable, match="no tensor"):
        captured(Layer(), 3)


def test_what_nothing_reads_is_not_in_the_graph() -> None:
    """A module that asks for the dtype of a weight has the export compute the weight (T5's)."""

    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("w", torch.ones(16, dtype=torch.int8))

        def forward(self, x: Tensor) -> Tensor:
            weight = self.w.to(torch.float32) * 0.5
            return x.to(weight.dtype).relu()

    module = Asks()
    found = captured(module, torch.randn(3, 5, 16))
    assert [n.target for n in found.graph.nodes if n.op == "call_function"].count(torch.ops.aten.mul.Tensor) == 0
    assert not found.graph.find_nodes(op="get_attr")
    x = torch.randn(2, 7, 16)
    assert torch.equal(found.bind(module)(x)[0], x.relu())


def test_a_write_stays_in_the_graph_though_nothing_reads_it() -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            doubled = x * 2.0
            doubled.view(-1).add_(1.0)
            return doubled

    x = torch.randn(2, 7, 16)
    assert torch.equal(captured(Writes(), torch.randn(3, 5, 16)).bind(Writes())(x)[0], x * 2.0 + 1.0)


class _Biased(nn.Module):
    """Scores with a bias whose first axis has batch and heads, as ALiBi of BLOOM, MPT and Falcon."""

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        heads = x.view(*x.shape[:2], 4, -1).transpose(1, 2).flatten(0, 1)
        return bias.baddbmm(heads, heads.transpose(1, 2)).view(x.shape[0], 4, x.shape[1], -1)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("queries", [1, 7])
def test_batch_and_heads_in_one_axis(batch: int, queries: int) -> None:
    """One row of a bias for all queries, or one for each."""
    module = _Biased().eval()
    given = [torch.randn(batch, 7, 32), torch.randn(4 * batch, queries, 7)]
    key, tensors = flatten(given, {})
    captured = capture(module, module.forward, key, tensors)
    for rows, length in ((batch, 7), (2, 5), (5, 11)):
        others = [torch.randn(rows, length, 32), torch.randn(4 * rows, 1 if queries == 1 else length, length)]
        assert captured.holds(others)
        assert torch.equal(captured.bind(module)(*others)[0], module(*others))
    assert not captured.holds([torch.randn(2, 5, 32), torch.randn(12, queries, 5)])
