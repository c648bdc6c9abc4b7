"""Rounding differences that add up over layers are no error; an error of one layer is."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from transformers import AutoModel

from optimum_int8 import Int8Config, OptimizedModel, quantize
from optimum_int8.errors import QuantizationError
from optimum_int8.fx import ROUNDED
from optimum_int8.fx.rewrite import is_call, ours
from optimum_int8.hub.programs import PROGRAMS_NAME, parse
from optimum_int8.passes import find_blocks, pipeline
from optimum_int8.passes.fuse_activation import fuse_activation
from optimum_int8.passes.rounding import Run, only_rounds

TRAINED = ("distilbert-minilm-sst2", "bert-minilm-squad", "electra-minilm-wnut17")


def chain(move: float, dynamic: bool = False) -> fx.GraphModule:
    """Two quantizations, and between them a value that is `move` steps off."""

    class Chain(nn.Module):
        def forward(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
            return x

    graph = fx.Graph()
    x, scale, zero_point = (graph.placeholder(name) for name in ("x", "scale", "zero_point"))
    y = x
    for _ in range(2):
        y = graph.call_function(torch.add, (graph.call_function(torch.mul, (y, 1.5)), move * 0.1))
        if dynamic:
            rows = graph.call_function(ours.quantize_rows.default, (y,))
            items = [graph.call_function(operator.getitem, (rows, i)) for i in range(3)]
            q = items[0]
        else:
            q = graph.call_function(ours.quantize.default, (y, scale, zero_point))
        y = graph.call_function(torch.mul, (graph.call_function(torch.Tensor.float, (q,)), 0.1))
    graph.output((y,))
    return fx.GraphModule({}, graph)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("move", "rounds"), [(0.001, True), (0.5, False), (3.0, False)])
def test_a_moved_value_may_reach_the_next_step_seldom(move: float, rounds: bool, dynamic: bool) -> None:
    x = torch.randn(4, 50, 32, generator=torch.Generator().manual_seed(0))
    if dynamic and move == 0.5:
        x, move = x * 0.05, 5.0
    tensors = [x, torch.tensor(0.1), torch.tensor(128, dtype=torch.int32)]
    reference = Run(chain(0.0, dynamic))
    reference.run(*tensors)
    moved = chain(move, dynamic)
    if dynamic and not rounds:  # the range moves with a shift of all values: scale one column instead
        tensors[0] = x.clone()
        tensors[0][..., 0] += move
    assert only_rounds(moved, tensors, reference.quantized)[0] is rounds


def trained(shared_dir: Path, name: str) -> tuple[Any, dict[str, Tensor]]:
    model = AutoModel.from_pretrained(shared_dir / "models" / name, dtype=torch.float32).eval()
    ids = torch.randint(1000, 5000, (1, 12), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return quantize(model, Int8Config(approach="static"), [inputs], progress=False), inputs


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_encoder_is_one_block(shared_dir: Path, name: str) -> None:
    model, inputs = trained(shared_dir, name)
    with torch.no_grad():
        model(**inputs)
    (stack,) = [block for block in find_blocks(model).values() if block.is_stack]
    assert any(stack.variants.values()) and not stack.compiler.failures


def scale_result(factor: float) -> pipeline.Pass:
    """A pass that moves the result, and nothing that is quantized."""

    def run(graph_module: fx.GraphModule) -> int:
        (output,) = graph_module.graph.find_nodes(op="output")
        (result,) = output.args[0]
        with graph_module.graph.inserting_before(output):
            output.args = ((graph_module.graph.call_function(torch.mul, (result, factor)),),)
        return 1

    return pipeline.Pass(run, rounds=True)


def shift_first_quantization(graph_module: fx.GraphModule) -> int:
    """A pass that moves what is quantized first by half a step; the result moves by little where values are large."""
    first = next(n for n in graph_module.graph.nodes if is_call(n, torch.add))
    first.args = (first.args[0], 0.05)
    return 1


NOTHING = pipeline.Pass(lambda graph_module: 0)
TOGETHER = {
    "two": (scale_result(1.018), scale_result(1.018)),
    "three": (scale_result(1.012), scale_result(1.012), scale_result(1.012)),
    "one between": (scale_result(0.985), NOTHING, scale_result(0.985)),
}


def compile_chain(passes: tuple[pipeline.Pass, ...], dynamic: bool, monkeypatch: pytest.MonkeyPatch) -> fx.GraphModule:
    monkeypatch.setattr(pipeline, "PASSES", passes)
    monkeypatch.setattr(pipeline, "library", lambda: True)
    graph = chain(0.0, dynamic)
    x = 3.0 + torch.rand(4, 50, 32, generator=torch.Generator().manual_seed(0))
    return pipeline.compile_graph(graph, [x, torch.tensor(0.1), torch.tensor(0, dtype=torch.int32)], check=True)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("passes", TOGETHER.values(), ids=TOGETHER)
def test_what_several_passes_round_adds_up(
    passes: tuple[pipeline.Pass, ...], dynamic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each within the bound, all together beyond it: a trained MiniLM with padding was refused."""
    assert compile_chain(passes, dynamic, monkeypatch).meta[ROUNDED] is True


def test_a_pass_that_is_wrong_is_refused_where_differences_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = pipeline.Pass(shift_first_quantization, rounds=True)
    compile_chain((wrong,), False, monkeypatch)  # alone it is within the bound
    with pytest.raises(QuantizationError, match="shift_first_quantization"):
        compile_chain((scale_result(1.018), wrong), False, monkeypatch)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("stored", [False, True])
def test_a_broken_pass_is_refused_there_too(
    stored: bool, shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a graph that comes with the checkpoint, which is compared twice, not after every pass."""

    def wrong(graph_module: fx.GraphModule) -> int:
        count = fuse_activation(graph_module)
        last = [n for n in graph_module.graph.nodes if is_call(n, ours.linear.default) and n.args[-1] == "gelu"][-1:]
        for node in last:
            node.args = (*node.args[:-1], "silu")
        return count

    model, inputs = trained(shared_dir, TRAINED[0])
    if stored:
        with torch.no_grad():
            model(**inputs)
        OptimizedModel.save_pretrained(model, tmp_path / "model")
        assert any(graph.get("rounded") for graph in parse(tmp_path / "model" / PROGRAMS_NAME)["graphs"])
        model = OptimizedModel.from_pretrained(tmp_path / "model")
    for name in ("PASSES", "ROUNDING_PASSES"):
        passes = [
            pipeline.Pass(wrong, True) if step.run is fuse_activation else step for step in getattr(pipeline, name)
        ]
        monkeypatch.setattr(pipeline, name, tuple(passes))
    with torch.no_grad():
        model(**inputs)
    assert not [block for block in find_blocks(model).values() if block.is_stack]
