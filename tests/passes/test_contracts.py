"""One harness for every pass: what it promises, on graphs made for it. A new pass is tested by being in `PASSES`."""

from __future__ import annotations

import pytest
import torch
from torch import fx

from optimum_int8 import QuantizationError
from optimum_int8.fx import ROUNDED, agree, rounding_tolerance
from optimum_int8.kernels import library
from optimum_int8.passes import PASSES, pipeline
from tests.passes.decoders import DECODER_CASES
from tests.passes.graphs import CASES as GRAPHS
from tests.passes.graphs import attention, feed_forward
from tests.passes.images import IMAGE_CASES
from tests.passes.sums import SUM_CASES

needs_library = pytest.mark.skipif(library() is None, reason="without the native library graphs are not rewritten")
CASES = GRAPHS | IMAGE_CASES | SUM_CASES | DECODER_CASES
NAMES = [step.run.__name__ for step in PASSES]


@pytest.fixture(scope="module")
def fired() -> dict[str, int]:
    return {}


@pytest.mark.slow
@needs_library
@pytest.mark.parametrize("case", CASES)
def test_each_pass_keeps_its_contract(case: str, fired: dict[str, int]) -> None:
    """In the pipeline's order: preserves what it promises, leaves a sound graph with shapes, finds nothing twice."""
    made = CASES[case]()
    before = made.run()
    assert agree(before, made.expected)
    for step in PASSES:
        name = step.run.__name__
        fired[name] = fired.get(name, 0) + made.apply(name)
        after = made.run()
        assert agree(after, before, rounding_tolerance(made.graph) if step.rounds else 0.0), (
            f"{name} changed the result"
        )
        assert made.apply(name) == 0, f"{name} found something again"
        missing = [n for n in made.graph.graph.nodes if n.op == "call_function" and n.meta.get("val") is None]
        assert not missing, f"{name} left nodes without a shape: {missing}"
        before = after
    assert agree(before, made.expected, 0.02)


@needs_library
def test_no_pass_is_idle_on_these_graphs(fired: dict[str, int]) -> None:
    """Needs the tests above: a pass that never fires is not tested by them."""
    if len(fired) < len(NAMES):
        pytest.skip("the contract tests were not run in this process")
    assert not [name for name in NAMES if not fired[name]]


@needs_library
@pytest.mark.parametrize("case", CASES)
def test_the_whole_pipeline_leaves_programs_that_serve_other_shapes(case: str) -> None:
    made = CASES[case]()
    copied = fx.Graph()
    copied.output(copied.graph_copy(made.graph.graph, {}))
    unfused = fx.GraphModule(made.graph, copied)
    compiled = pipeline.no_grad_compile(made.graph, made.inputs, check=True)
    for batch, length in [(1, 1), (3, 4), (1, 33)]:
        x = _another(made.inputs[0], batch, length)
        masks = [torch.ones(batch, 1, length, length, dtype=torch.bool).tril()] if len(made.inputs) > 1 else []
        with torch.no_grad():
            assert agree(compiled(x, *masks), list(unfused(x, *masks)), 0.02)


def _another(x: torch.Tensor, batch: int, length: int) -> torch.Tensor:
    if not x.is_floating_point():
        return torch.randint(0, 9, (batch, length))
    if x.dim() == 4:
        return torch.randn(batch, x.shape[1], 4 + length, 11)
    is_sequence = x.shape[1] == 12  # channels first
    return torch.randn(batch, x.shape[1], length) if is_sequence else torch.randn(batch, length, x.shape[-1])


def test_without_the_library_a_graph_stays_as_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "library", lambda: None)
    made = feed_forward()
    before = str(made.graph.graph)
    assert str(pipeline.compile_graph(made.graph, made.inputs, check=True).graph) == before


@needs_library
def test_a_pass_that_breaks_its_promise_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def double_all(graph_module: fx.GraphModule) -> int:
        for node in list(graph_module.graph.nodes):
            if node.op == "output":
                with graph_module.graph.inserting_before(node):
                    twice = graph_module.graph.call_function(torch.ops.aten.mul.Tensor, (node.args[0][0], 2.0))
                node.args = ((twice,),)
        return 1

    monkeypatch.setattr(pipeline, "PASSES", (pipeline.Pass(double_all, rounds=True),))
    made = feed_forward()
    with pytest.raises(QuantizationError, match="pass double_all changed what a block computes"):
        pipeline.no_grad_compile(made.graph, made.inputs, check=True)


@needs_library
@pytest.mark.parametrize("group", ["ROUNDING_PASSES", "EXACT_PASSES"])
def test_a_graph_that_rounds_is_compared_without_being_asked(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def shift(graph_module: fx.GraphModule) -> int:
        (output,) = graph_module.graph.find_nodes(op="output")
        with graph_module.graph.inserting_before(output):
            moved = graph_module.graph.call_function(torch.ops.aten.add.Tensor, (output.args[0][0], 1e-5))
        output.args = ((moved,),)
        return 1

    more = (*getattr(pipeline, group), pipeline.Pass(shift))
    monkeypatch.setattr(pipeline, group, more)
    made = feed_forward()
    made.graph.meta[ROUNDED] = True
    if group == "EXACT_PASSES":
        with pytest.raises(QuantizationError, match="shift changed what a block computes"):
            pipeline.no_grad_compile(made.graph, made.inputs, check=False)
        return
    assert ROUNDED not in pipeline.no_grad_compile(made.graph, made.inputs, check=False).meta  # within the tolerance


@needs_library
def test_graphs_are_printed_when_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OPTIMUM_INT8_SHOW_GRAPHS", "1")
    made = attention()
    pipeline.no_grad_compile(made.graph, made.inputs, check=True)
    shown = capsys.readouterr().out
    assert all(f"after {name} (" in shown for name in ("merge_projections", "fuse_norm", "lower_rows"))


def test_a_layer_becomes_one_program_without_anything_left_in_torch() -> None:
    if library() is None:
        pytest.skip("without the native library graphs are not rewritten")
    for made, instructions in ((attention(), 4), (feed_forward(), 4)):
        compiled = pipeline.no_grad_compile(made.graph, made.inputs, check=True)
        calls = [node for node in compiled.graph.nodes if node.op == "call_module"]
        assert len(calls) == 1
        assert not [n for n in compiled.graph.nodes if n.op == "call_function" and "sym_size" not in str(n.target)]
        assert len(compiled.get_submodule(calls[0].target).program) <= instructions + 1
