"""What tracing leaves out changes no graph, and nothing for other threads or after it."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch._dynamo import config as dynamo_config
from torch._subclasses import fake_impls
from torch.fx import _symbolic_trace as symbolic_trace
from torch.fx.experimental import _config as shape_config
from torch.fx.experimental.proxy_tensor import make_fx

from optimum_int8 import torch_private
from optimum_int8.fx import capture
from optimum_int8.fx.arguments import flatten
from optimum_int8.fx.tracing import cheap_tracing
from tests.fx.test_gate import run_all
from tests.fx.toys import Layer, block_of, install

X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))


def settings() -> dict[str, Any]:
    """What this thread sees of torch."""
    return {
        "fake tensor cache": dynamo_config.fake_tensor_cache_enabled,
        "duck shape": shape_config.use_duck_shape,  # type: ignore[attr-defined]
        "stack traces": fx.config.do_not_emit_stack_traces,
        "shapes": dict(fake_impls.get_fast_op_impls()),
        "call": nn.Module.__call__,
        "getattr": nn.Module.__getattr__,
        "patcher": symbolic_trace.CURRENT_PATCHER,
        "traces": symbolic_trace._is_fx_tracing_flag,
    }


@pytest.mark.parametrize("collects", [True, False])
def test_all_is_as_before_also_after_an_error(collects: bool) -> None:
    enabled = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        before = settings()
        with pytest.raises(ZeroDivisionError), cheap_tracing():
            assert not gc.isenabled() and settings() != before
            raise ZeroDivisionError
        assert settings() == before and gc.isenabled() == collects
    finally:
        (gc.enable if enabled else gc.disable)()


class Net(nn.Module):
    """Two layers, one of them twice, with room between them for another thread."""

    def __init__(self, between: Callable[[], Any] = lambda: None) -> None:
        super().__init__()
        self.first = nn.Linear(16, 16)
        self.second = nn.Linear(16, 16)
        self.between = between

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = self.first(x)
        self.between()
        return self.second(self.first(x)) + y


def export(net: nn.Module) -> torch.export.ExportedProgram:
    dynamic = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    return torch.export.export(net, (X, X + 1), dynamic_shapes=(dynamic, dynamic), strict=False)


def functions() -> list[Any]:
    """What torch's functions give, other than an export."""
    traced = fx.symbolic_trace(nn.Sequential(nn.Linear(16, 16), nn.ReLU()))
    made = make_fx(lambda x: torch.relu(x) * x.shape[1], tracing_mode="symbolic")(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(nn.Linear(16, 16), (X,), check_trace=False)
    return [str(traced.graph), str(made.graph), [n.kind() for n in scripted.inlined_graph.nodes()], settings()]


def records(exported: torch.export.ExportedProgram) -> list[Any]:
    """A graph, and what torch keeps with each operator."""
    nodes = [n for n in exported.graph.nodes if n.op == "call_function"]
    kept = [(n.meta["tensor_meta"], list(n.meta["nn_module_stack"].values()), "stack_trace" in n.meta) for n in nodes]
    return [str(exported.graph), str(kept)]


def operators(exported: torch.export.ExportedProgram) -> list[Any]:
    return [n.target for n in exported.graph.nodes if n.op == "call_function"]


@pytest.mark.slow
def test_another_thread_sees_torch_as_it_is() -> None:
    alone = [functions(), records(export(Net()))]
    assert "call_module" in alone[0][0] and "first" in alone[1][1] and "True" in alone[1][1]
    inside, go = threading.Event(), threading.Event()
    found: dict[str, Any] = {}

    def stop() -> None:
        inside.set()
        assert go.wait(60)

    def cheap() -> None:
        with cheap_tracing():
            found["cheap"] = export(Net(stop))

    def other() -> None:
        assert inside.wait(60)
        try:
            found["functions"] = functions()
        finally:
            go.set()
        found["records"] = records(export(Net()))

    run_all([cheap, other])
    assert [found["functions"], found["records"]] == alone
    assert operators(found["cheap"]) == operators(export(Net()))
    assert settings() == alone[0][-1]


class Trace(threading.Thread):
    """Another thread's `fx.symbolic_trace`, which lasts from `start` to `end`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.inside, self.go = threading.Event(), threading.Event()

    def run(self) -> None:
        def between() -> None:
            self.inside.set()
            assert self.go.wait(60)

        self.graph = fx.symbolic_trace(Net(between)).graph

    def start(self) -> None:
        super().start()
        assert self.inside.wait(60)

    def end(self) -> None:
        self.go.set()
        self.join(60)


def test_another_thread_traces_until_after_the_end() -> None:
    """The modules that each thread calls meanwhile are in its own graph alone, and torch is itself afterwards."""
    before, plain = settings(), [str(fx.symbolic_trace(Net()).graph), operators(export(Net()))]
    trace = Trace()
    with cheap_tracing():
        exported = export(Net(trace.start))
    trace.end()
    assert [str(trace.graph), operators(exported)] == plain
    assert settings() == before


def test_a_model_is_captured_once_another_thread_has_exported() -> None:
    layer = Layer()
    install(nn.ModuleDict({"layer": layer}))
    inside, go = threading.Event(), threading.Event()
    found: list[Any] = []

    def stop() -> None:
        inside.set()
        assert go.wait(60)

    def other() -> None:
        found.append(records(export(Net(stop))))

    def first_calls() -> None:
        assert inside.wait(60)
        with torch.no_grad():
            assert torch.equal(layer(X), Layer.forward(layer, X))
            assert not block_of(layer).variants
        go.set()

    plain = records(export(Net()))
    run_all([other, first_calls])
    assert found == [plain]
    with torch.no_grad():
        assert torch.equal(layer(X), Layer.forward(layer, X))
    assert any(block_of(layer).variants.values())


def test_a_version_of_torch_that_is_not_known_gives_the_same_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch_private.is_known(), "look through lean_export for this version of torch"
    assert not torch_private.is_known("1.8.0") and not torch_private.is_known("2.130.1")
    layer = Layer()
    key, tensors = flatten((X, torch.ones(2, 5, dtype=torch.long)), {})
    known = capture(layer, layer.forward, key, tensors)
    monkeypatch.setattr(torch_private, "KNOWN", ())
    before = settings()
    with cheap_tracing():
        assert settings() == before
    plain = capture(layer, layer.forward, key, tensors)
    assert str(plain.graph) == str(known.graph) and plain.output == known.output
    sizes = [(2, 5), (3, 9), (1, 1), (1, 4)]
    assert [plain.holds([torch.rand(*s, 16), torch.ones(*s)]) for s in sizes] == [
        known.holds([torch.rand(*s, 16), torch.ones(*s)]) for s in sizes
    ]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_has_the_layout_that_torch_gives_it(affine: bool, layout: torch.memory_format) -> None:
    """Views after it depend on strides: as torch derives them from the operators inside."""

    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(4, affine=affine)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x).permute(0, 2, 3, 1).reshape(-1, 4)

    x = torch.randn(3, 4, 5, 6).to(memory_format=layout)
    exports = []
    for context in (cheap_tracing(), shape_config.patch(use_duck_shape=False)):  # type: ignore[attr-defined]
        with context:
            shapes = (dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO),)
            exports.append(torch.export.export(Norm().eval(), (x,), dynamic_shapes=shapes, strict=False))
    cheap, own = ([n for n in e.graph.nodes if n.op == "call_function"] for e in exports)
    assert [n.target for n in cheap] == [n.target for n in own]
    for a, b in zip(cheap, own, strict=True):
        assert str(a.meta["val"].shape) == str(b.meta["val"].shape)
        assert str(a.meta["val"].stride()) == str(b.meta["val"].stride())
        assert a.meta["val"].dtype == b.meta["val"].dtype


class Slow(nn.Module):
    """Exports operator by operator."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(50):
            x = x.sin()
        return x


def test_an_export_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from optimum_int8.fx import captured
    from optimum_int8.fx.arguments import NotCapturable, flatten

    x = torch.ones(3, 4)
    key, tensors = flatten((x,), {})
    slow = Slow()
    assert captured.capture(slow, slow.forward, key, tensors).graph is not None
    monkeypatch.setattr(captured, "_LIMIT", 0.0)
    with pytest.raises(NotCapturable, match="too slow"):
        captured.capture(slow, slow.forward, key, tensors)
    assert torch.export.export(slow, (x,)) is not None, "the limit ends with the export"
