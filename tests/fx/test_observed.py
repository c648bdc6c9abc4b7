"""Whatever traces, transforms or watches a model gets the modules' own code."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from optimum_int8.nn import Int8Linear
from optimum_int8.passes import install
from tests.fx.toys import Layer, block_of, int8_linear

X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def layer() -> Layer:
    layer = Layer()
    install(nn.ModuleDict({"layer": layer}).eval())
    with torch.no_grad():
        layer(X)
    layer.calls = 0
    return layer


class Tagged(Tensor):
    pass


def test_jit_trace_records_operators(layer: Layer) -> None:
    other = torch.randn(3, 9, 16)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(layer, (X,))
        unchecked = torch.jit.trace(layer, (X,), check_trace=False)
        for graph in (traced, unchecked):
            assert torch.equal(graph(other), Layer.forward(layer, other))
    assert "optimum_int8::linear" in str(traced.inlined_graph)


def test_jit_trace_of_a_model_that_was_never_called() -> None:
    model = nn.Sequential(Layer(), int8_linear()).eval()
    install(model)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, (X,), check_trace=False)
        assert torch.equal(traced(X), model(X))


def test_make_fx_records_operators(layer: Layer) -> None:
    with torch.no_grad():
        graph = make_fx(layer)(X)
    assert torch.ops.optimum_int8.linear.default in {n.target for n in graph.graph.nodes}
    assert torch.equal(graph(X), Layer.forward(layer, X))


def test_symbolic_trace_does_not_give_the_block_up(layer: Layer) -> None:
    class Leaf(fx.Tracer):
        def is_leaf_module(self, module: nn.Module, name: str) -> bool:
            return isinstance(module, Int8Linear)

    fresh = Layer()
    model = nn.ModuleDict({"layer": fresh}).eval()
    install(model)
    for traced in (layer, fresh):
        graph = fx.GraphModule(traced, Leaf().trace(traced, {"mask": None, "scale": 1.0}))
        with torch.no_grad():
            assert torch.equal(graph(X), Layer.forward(traced, X))
    assert vars(fresh)["forward"] is block_of(fresh)


def test_fake_tensors_inside_and_outside_of_their_mode(layer: Layer) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = mode.from_tensor(X)
        assert layer(fake).shape == X.shape
    assert layer.calls == 1
    assert block_of(layer).variants


def test_meta_tensors_have_no_values_to_compute(layer: Layer) -> None:
    with torch.no_grad():
        assert layer(X.to("meta")).is_meta
        assert torch.equal(layer(X), Layer.forward(layer, X))


def test_a_subclass_of_tensor_keeps_its_class(layer: Layer) -> None:
    tagged = X.as_subclass(Tagged)
    with torch.no_grad():
        assert type(layer(tagged)) is type(Layer.forward(layer, tagged))
    assert layer.calls == 2


def test_transformations_of_functions(layer: Layer) -> None:
    def values(x: Tensor) -> Any:
        with torch.no_grad():
            return layer(x)

    with torch.no_grad():
        plain = layer(X)
    _, tangent = torch.func.jvp(lambda x: (values(x), x), (X,), (X,), has_aux=True)[:2]
    assert layer.calls == 1
    assert tangent.shape == plain.shape
    with forward_ad.dual_level():
        values(forward_ad.make_dual(X, X))
    assert layer.calls == 2


@pytest.mark.parametrize("kind", [TorchDispatchMode, TorchFunctionMode])
def test_modes_see_the_operators(kind: Any, layer: Layer) -> None:
    seen: list[str] = []

    class Watch(kind):  # type: ignore[misc]
        def _note(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

        __torch_dispatch__ = __torch_function__ = _note

    with torch.no_grad(), Watch():
        layer(X)
    assert any("linear" in name for name in seen)


def test_a_default_device_watches_nothing(layer: Layer) -> None:
    with torch.no_grad(), torch.device("cpu"):
        layer(X)
    assert not layer.calls


def test_an_argument_that_needs_a_gradient(layer: Layer) -> None:
    x = X.clone().requires_grad_()
    layer(x)
    assert layer.calls == 1
    with torch.no_grad():
        layer(x)
    assert layer.calls == 1
