"""A lazy graph gives what a plain one does, before and after changes, copied and pickled; its Python is written where it runs."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, fx

from optimum_int8.fx.lazy_graph import LazyGraph, SharedGraph


@pytest.fixture
def graph() -> LazyGraph:
    made = fx.Graph()
    total = made.call_function(torch.add, (made.placeholder("x"), made.get_attr("w")))
    made.output((total,))
    return LazyGraph({"w": torch.ones(2)}, made)


def is_written(graph: LazyGraph) -> bool:
    return type(graph).forward is not LazyGraph.forward


def run(graph: LazyGraph) -> Tensor:
    (result,) = graph(torch.full((2,), 3.0))
    return result


def test_python_is_written_by_the_first_run(graph: LazyGraph) -> None:
    assert not is_written(graph)
    assert torch.equal(run(graph), torch.full((2,), 4.0))
    assert is_written(graph)
    assert not is_written(LazyGraph({"w": torch.ones(2)}, graph.graph))


def test_a_change_is_seen_once_it_is_recompiled(graph: LazyGraph) -> None:
    run(graph)
    (node,) = graph.graph.find_nodes(op="call_function", target=torch.add)
    node.target = torch.sub
    graph.recompile()
    assert torch.equal(run(graph), torch.full((2,), 2.0))
    assert "torch.sub" in graph.code
    assert "torch.sub" in str(graph)


@pytest.mark.parametrize("runs", [False, True])
def test_copies(graph: LazyGraph, runs: bool) -> None:
    if runs:
        run(graph)
    for other in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        assert torch.equal(run(other), torch.full((2,), 4.0))


def test_a_forward_that_calls_the_one_it_replaced(graph: LazyGraph) -> None:
    own = graph.forward
    graph.forward = lambda x: own(x + 1.0)  # type: ignore[method-assign]
    assert torch.equal(run(graph), torch.full((2,), 5.0))


def test_modules_share_a_graph_and_its_python(graph: LazyGraph) -> None:
    shared = SharedGraph(graph.graph)
    first, second = (shared.bind({"w": torch.full((2,), value)}) for value in (1.0, 5.0))
    assert first.graph is second.graph and first.graph is not graph.graph
    assert first.graph.owning_module is None
    assert torch.equal(run(first), torch.full((2,), 4.0))
    assert not is_written(second)
    assert torch.equal(run(second), torch.full((2,), 8.0))
    assert type(first).forward is type(second).forward
    assert "torch.add" in second.code and "torch.add" in str(second)
    for other in (copy.deepcopy(second), pickle.loads(pickle.dumps(second))):
        assert torch.equal(run(other), torch.full((2,), 8.0))


def test_a_module_that_is_changed_shares_no_longer(graph: LazyGraph) -> None:
    shared = SharedGraph(graph.graph)
    first, second = (shared.bind({"w": torch.full((2,), value)}) for value in (1.0, 5.0))
    run(first)
    second.graph = copy.deepcopy(second.graph)
    (node,) = second.graph.find_nodes(op="call_function", target=torch.add)
    node.target = torch.sub
    second.recompile()
    assert torch.equal(run(second), torch.full((2,), -2.0))
    assert torch.equal(run(first), torch.full((2,), 4.0))
