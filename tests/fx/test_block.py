"""Blocks: one variant for each way of calling, the module's own code wherever a graph would not do the same."""

from __future__ import annotations

import copy
import inspect
import pickle
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from transformers.modeling_outputs import BaseModelOutput

from optimum_int8.fx import Compiler, agree, block, build, capture, rounding_tolerance
from optimum_int8.fx.arguments import flatten
from optimum_int8.fx.call import SHORT
from optimum_int8.fx.variants import VARIANTS
from optimum_int8.nn import Int8Embedding
from optimum_int8.passes import install as install_passes
from tests.fx.toys import Layer, Stack, block_of, install, int8_conv, int8_linear


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Modules in the order in which they are captured."""
    done: list[nn.Module] = []

    def counted(module: nn.Module, *args: Any) -> Any:
        done.append(module)
        return capture(module, *args)

    monkeypatch.setattr(build, "capture", counted)
    return done


def plain(layer: Layer, *args: Any, **kwargs: Any) -> Tensor:
    return type(layer).forward(layer, *args, **kwargs)


def runs_own_code(layer: Layer, *args: Any, **kwargs: Any) -> bool:
    before = layer.calls
    layer(*args, **kwargs)
    return layer.calls > before


X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))


def one_layer(layer: nn.Module | None = None) -> tuple[nn.Module, Compiler]:
    layer = Layer() if layer is None else layer
    return layer, install(nn.ModuleDict({"layer": layer}))


def test_captures_at_the_first_call_and_runs_the_graph_afterwards(captures: list[nn.Module]) -> None:
    layer, compiler = one_layer()
    assert isinstance(block_of(layer), block.Block)
    assert not captures
    expected = plain(layer, X)
    assert torch.equal(layer(X), expected)
    assert captures == [layer]
    assert not runs_own_code(layer, X)
    assert torch.equal(layer(X), expected)
    assert not compiler.failures


def test_siblings_are_captured_once(captures: list[nn.Module]) -> None:
    layers = [Layer(i) for i in range(4)]
    expected = X
    for layer in layers:
        expected = plain(layer, expected)
    model = nn.ModuleDict({"layers": nn.ModuleList(layers)})
    install(model)
    stacked = X
    for layer in layers:
        stacked = layer(stacked)
    assert torch.equal(stacked, expected)
    assert captures == [layers[0]]
    assert not any(runs_own_code(layer, X) for layer in layers)


def test_a_sibling_that_computes_something_else_is_captured_itself(captures: list[nn.Module]) -> None:
    """Equal structure is a guess; the graph is compared with each module that it is bound to."""

    class Hidden(Layer):
        def __init__(self, sign: float) -> None:
            super().__init__()
            self.sign = (sign,)  # a tuple is no part of the structure key

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.sign[0]

    one, other = Hidden(1.0), Hidden(-1.0)
    install(nn.ModuleDict({"one": one, "other": other}))
    for layer in (one, other):
        assert torch.equal(layer(X), plain(layer, X))
        assert torch.equal(layer(X), plain(layer, X))
    assert captures == [one, other]


def test_none_and_a_mask_are_two_variants(captures: list[nn.Module]) -> None:
    layer, _ = one_layer()
    mask = torch.tensor([[1, 1, 0, 0, 1], [1, 0, 1, 1, 0]])
    for _ in range(2):
        for arguments in ((X,), (X, mask), (X, None), (X, mask, 0.5)):
            assert torch.equal(layer(*arguments), plain(layer, *arguments))
    assert len(captures) == len(block_of(layer).variants) == 4
    assert not runs_own_code(layer, X, mask, 0.5)
    assert runs_own_code(layer, X, mask, 0.25)  # a number is part of the graph: another one is another variant


def test_one_variant_serves_every_batch_and_length(captures: list[nn.Module]) -> None:
    layer, _ = one_layer()
    for length in [7, *range(1, 41)]:
        for batch in (1, 2, 3):
            x = torch.randn(batch, length, 16)
            assert torch.equal(layer(x), plain(layer, x))
    assert len(captures) == len(block_of(layer).variants) == 1


def test_made_at_batch_1_and_length_1_it_serves_others(captures: list[nn.Module]) -> None:
    layer, _ = one_layer()
    for shape in [(1, 1, 16), (2, 1, 16), (1, 3, 16), (4, 5, 16)]:
        x = torch.randn(shape)
        assert torch.equal(layer(x), plain(layer, x))
    assert len(captures) == 1


def test_training_runs_the_modules_own_code(captures: list[nn.Module]) -> None:
    layer, _ = one_layer()
    layer.train()
    assert runs_own_code(layer, X)
    assert not captures
    layer.eval()
    layer(X)
    assert not runs_own_code(layer, X)
    assert runs_own_code(layer.train(), X)


@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_inside_a_block_run(kind: str) -> None:
    layer, _ = one_layer()
    layer(X)
    seen: list[nn.Module] = []
    handle = getattr(layer.linear, kind)(lambda module, *_: seen.append(module))
    layer(X)
    assert seen == [layer.linear]
    handle.remove()
    assert not runs_own_code(layer, X)


def test_hooks_on_the_block_itself_run_around_the_graph() -> None:
    layer, _ = one_layer()
    expected = plain(layer, X * 2) + 1
    layer.register_forward_pre_hook(lambda _, args: (args[0] * 2,))
    layer.register_forward_hook(lambda _, __, output: output + 1)
    for _ in range(2):
        assert torch.equal(layer(X), expected)
    assert not runs_own_code(layer, X)


class Stateful(nn.Module):
    """A layer with a cache; its inner part has none."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Layer()

    def forward(self, x: Tensor, cache: Any = None) -> Tensor:
        if cache is not None:
            cache.append(x)
        return self.inner(x)


def test_a_stateful_argument_runs_own_code_and_splits_the_block(captures: list[nn.Module]) -> None:
    class Cache(list):
        pass

    outer = Stateful()
    compiler = install(nn.ModuleDict({"outer": outer}))
    cache = Cache()
    for _ in range(3):
        assert torch.equal(outer(X, cache), plain(outer.inner, X))
    assert len(cache) == 3
    assert captures == [outer.inner]
    assert "Cache" in compiler.failures["outer"]
    assert "forward" not in vars(outer)


def test_a_stateful_argument_after_captured_calls_keeps_the_variants() -> None:
    class Cache(list):
        pass

    outer = Stateful()
    install(nn.ModuleDict({"outer": outer}))
    outer(X)
    cache = Cache()
    assert torch.equal(outer(X, cache), plain(outer.inner, X))
    assert len(cache) == 1
    assert block_of(outer).misses == {"an argument is a Cache, which may hold state": 1}
    before = outer.inner.calls
    outer(X)
    assert outer.inner.calls == before


@pytest.mark.slow
def test_beyond_a_few_variants_own_code_runs(captures: list[nn.Module]) -> None:
    layer, _ = one_layer()
    for i in range(VARIANTS + 4):
        assert torch.equal(layer(X, None, float(i)), plain(layer, X, None, float(i)))
    assert len(captures) == len(block_of(layer).variants) == VARIANTS
    assert not runs_own_code(layer, X, None, VARIANTS - 1.0)
    assert runs_own_code(layer, X, None, VARIANTS + 3.0)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.negative, self.positive = Layer(0), Layer(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.positive(x) if x.sum() > 0 else self.negative(x)


def test_control_flow_on_data_falls_to_the_children(captures: list[nn.Module]) -> None:
    model = Branching()
    compiler = install(nn.ModuleDict({"model": model}))
    for x in (X.abs(), -X.abs(), X.abs() * 2, -X.abs() * 2):
        layer = model.positive if x.sum() > 0 else model.negative
        assert torch.equal(model(x), plain(layer, x))
    assert list(compiler.failures) == ["model"]
    assert "test_block.py" in compiler.failures["model"]
    assert "forward" not in vars(model)
    assert {b.name for b in compiler.blocks} == {"model.positive", "model.negative"}
    assert not runs_own_code(model.positive, X)


def test_a_graph_that_holds_at_one_shape_only_is_refused() -> None:
    """The constant 5 is baked in at the captured shape; the real call is the check at a second one."""

    class Shape(Layer):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (2.0 if x.shape[1] == 5 else 1.0)

    layer, compiler = one_layer(Shape())
    for length in (5, 6, 5, 7):
        x = torch.randn(2, length, 16)
        assert torch.equal(layer(x), plain(layer, x))
    assert compiler.failures or len(block_of(layer).variants) == 1


def test_a_compiler_that_fails_or_lies_leaves_own_code() -> None:
    def fails(graph: fx.GraphModule, tensors: list[Tensor], check: bool) -> fx.GraphModule:
        raise ValueError("no such tile")

    def lies(graph: fx.GraphModule, tensors: list[Tensor], check: bool) -> Any:
        return lambda *args: tuple(result * 1.1 for result in graph(*args))

    for compile_, reason in ((fails, "compiling failed: ValueError: no such tile"), (lies, "compiled graph disagrees")):
        layer = Layer()
        compiler = install(nn.ModuleDict({"layer": layer}), compile_)
        for _ in range(2):
            assert torch.equal(layer(X), plain(layer, X))
        assert reason in compiler.failures["layer"]


def test_the_first_call_answers_as_later_ones_do() -> None:
    """Reloaded in another process, a model's first answer must be what it was here after many."""

    def shift(graph: fx.GraphModule, *_: Any, **__: Any) -> fx.GraphModule:
        output = next(node for node in graph.graph.nodes if node.op == "output")
        with graph.graph.inserting_before(output):
            moved = graph.graph.call_function(torch.add, (output.args[0][0], 1e-4))
        output.args = ((moved,),)
        graph.recompile()
        return graph

    layer = Layer()
    install(nn.ModuleDict({"layer": layer}), shift)
    first, second = layer(X), layer(X)
    assert torch.equal(first, second)
    assert torch.equal(first, plain(layer, X) + 1e-4)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_of_a_fused_model_captures_its_own_tensors(clone: Any) -> None:
    model = Stack(Layer(0), Layer(1))
    install_passes(model.eval())
    expected = model(X)
    twin = clone(model)
    assert block_of(twin.layers[0]).module is twin.layers[0]
    for part in model.layers:
        part.linear.panels.zero_()
    assert torch.equal(twin(X), expected)
    assert torch.equal(twin(X), expected)
    assert block_of(twin.layers[0]).compiler is not block_of(model.layers[0]).compiler
    assert block_of(twin.layers[0]).compiler is block_of(twin.layers[1]).compiler


def test_a_copy_of_one_layer_does_not_copy_the_model() -> None:
    model = Stack(Layer(0), Layer(1))
    install(model)
    layer = copy.deepcopy(model.layers[0])
    assert block_of(layer).compiler.blocks == [block_of(layer)]


def test_many_threads_at_the_first_call(captures: list[nn.Module]) -> None:
    model = Stack(*(Layer(i) for i in range(3)))
    expected = X
    for layer in model.layers:
        expected = plain(layer, expected)
    install(model)
    results: list[Any] = []
    start = threading.Barrier(6)

    def work() -> None:
        start.wait()
        try:
            with torch.no_grad():
                results.extend(model(X) for _ in range(4))
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 24
    assert all(isinstance(r, Tensor) and torch.equal(r, expected) for r in results)
    assert len(captures) == 1
    assert all(list(block_of(layer).variants.values()) != [None] for layer in model.layers)


def test_a_thread_waits_while_another_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.export puts other tensors into the module meanwhile, and raises torch's tracing flag for all threads."""
    layer, _ = one_layer()
    given_up = (X, None, 9.0)  # runs the module's own code, whose tensors are the ones exchanged
    block_of(layer).variants[flatten(given_up, {})[0]] = None
    inside, go, answers = threading.Event(), threading.Event(), []

    def slow(*args: Any) -> Any:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        inside.set()
        go.wait(20)
        monkeypatch.undo()
        return capture(*args)

    monkeypatch.setattr(build, "capture", slow)
    first = threading.Thread(target=lambda: layer(X))
    second = threading.Thread(target=lambda: answers.append(layer(*given_up)))
    first.start()
    assert inside.wait(20)
    calls = layer.calls
    second.start()
    second.join(0.3)
    assert second.is_alive()
    assert layer.calls == calls
    go.set()
    first.join()
    second.join()
    assert torch.equal(answers[0], plain(layer, *given_up))


def test_tracing_uses_the_modules_own_code() -> None:
    layer, _ = one_layer()
    expected = layer(X)
    exported = torch.export.export(layer, (X,), strict=False)
    assert torch.equal(exported.module()(X), expected)
    names = {str(node.target) for node in exported.graph.nodes}
    assert "optimum_int8.linear.default" in names
    torch._dynamo.reset()
    graphs: list[fx.GraphModule] = []

    def backend(graph: fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    assert torch.equal(torch.compile(layer, backend=backend)(X), expected)
    assert any("optimum_int8.linear" in str(node.target) for graph in graphs for node in graph.graph.nodes)
    torch._dynamo.reset()


def test_first_call_in_inference_mode_then_with_gradients() -> None:
    layer = Layer()
    install_passes(nn.ModuleDict({"layer": layer}).eval())
    with torch.inference_mode():
        expected = layer(X).clone()
    assert torch.equal(layer(X), expected)
    with torch.no_grad():
        assert torch.equal(layer(X), expected)


def test_the_signature_is_the_modules_own() -> None:
    layer, _ = one_layer()
    assert list(inspect.signature(layer.forward).parameters) == ["x", "mask", "scale"]


def test_remove_gives_own_code_back() -> None:
    layer, compiler = one_layer()
    layer(X)
    compiler.blocks[0].remove()
    assert "forward" not in vars(layer)
    assert runs_own_code(layer, X)


def test_single_int8_modules_that_quantize_are_blocks() -> None:
    model = nn.ModuleDict(
        {"linear": int8_linear(), "conv": int8_conv(), "table": Int8Embedding.like(nn.Embedding(4, 4))}
    )
    image = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    expected = model.linear(X), model.conv(image)
    install(model)
    assert "forward" not in vars(model.table)
    for module, x, y in zip((model.linear, model.conv), (X, image), expected, strict=True):
        assert torch.equal(module(x), y)
        assert [v is not None for v in block_of(module).variants.values()] == [True]
    nothing = model.linear(X[:, :0])  # as of an expert without tokens: no graph is made of such a call
    assert nothing.shape == (2, 0, 16)


class Encoder(Stack):
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=super().forward(x, *args, **kwargs))


LONG = torch.randn(2, SHORT // 2 + 1, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("first", [X, LONG], ids=["short", "long"])
def test_a_stack_is_one_block_for_few_tokens_and_its_layers_are_for_many(
    captures: list[nn.Module], first: Tensor
) -> None:
    encoder = Encoder(Layer(0), Layer(1))
    expected = [encoder(x).last_hidden_state for x in (X, LONG)]
    _, compiler = one_layer(encoder)
    encoder(first)
    assert captures[0] is (encoder if first is X else encoder.layers[0])
    found = [encoder(x) for x in (X, LONG)]
    assert all(type(f) is BaseModelOutput and list(f) == ["last_hidden_state"] for f in found)
    assert all(torch.equal(f.last_hidden_state, e) for f, e in zip(found, expected, strict=True))
    assert (
        set(captures) == {encoder, encoder.layers[0]} and not compiler.failures
    )  # the second layer shares the first one's graph
    assert not runs_own_code(encoder.layers[1], LONG)
    copied = copy.deepcopy(encoder)
    assert torch.equal(copied(LONG).last_hidden_state, expected[1])


def test_a_stack_whose_layers_are_listened_to_runs_them(captures: list[nn.Module]) -> None:
    encoder = Encoder(Layer(0), Layer(1))
    one_layer(encoder)
    expected, states = encoder(X).last_hidden_state, []
    handle = encoder.layers[0].register_forward_hook(lambda module, args, output: states.append(output))
    assert torch.equal(encoder(X).last_hidden_state, expected)
    assert len(states) == 1 and captures == [encoder, encoder.layers[0]]
    handle.remove()
    assert torch.equal(encoder(X).last_hidden_state, expected) and len(states) == 1


@pytest.mark.parametrize(
    ("found", "tolerance", "equal"),
    [
        ([torch.ones(3)], 0.0, True),
        ([torch.ones(3) * (1 + 1e-6)], 0.0, False),
        ([torch.ones(3) * 1.01], 0.02, True),
        ([torch.ones(3) * 1.03], 0.02, False),
        ([torch.full((3,), float("nan"))], 0.02, False),
        ([torch.ones(1)], 0.02, False),
        ([], 0.02, False),
    ],
)
def test_agree(found: list[Tensor], tolerance: float, equal: bool) -> None:
    assert agree(found, [torch.ones(3)], tolerance) is equal


@pytest.mark.parametrize(
    ("convolutions", "linears", "tolerance"),
    [(0, 0, 0.02), (16, 0, 0.02), (64, 0, 0.04), (0, 64, 0.04), (40, 24, 0.04)],
)
def test_rounding_adds_up_as_the_root_of_the_layers(convolutions: int, linears: int, tolerance: float) -> None:
    graph = fx.Graph()
    for operator, count in (("conv", convolutions), ("linear", linears)):
        for _ in range(count):
            graph.call_function(getattr(torch.ops.optimum_int8, operator).default)
    assert rounding_tolerance(fx.GraphModule({}, graph)) == pytest.approx(tolerance)
