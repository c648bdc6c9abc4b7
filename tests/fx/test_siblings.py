"""Layers of one structure: one is compiled, the others take over what its passes found out, with the same values as compiled alone."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from optimum_int8 import Int8Config, kernels, quantize
from optimum_int8.fx import ROUNDED, Backend, Compiler, capture, compiler, flatten
from optimum_int8.fx.arguments import SliceDiffers
from optimum_int8.fx.compiler import Bound
from optimum_int8.fx.rewrite import tensor_of
from optimum_int8.fx.sources import Sources
from optimum_int8.lowering import Template
from optimum_int8.passes import find_blocks, pipeline
from optimum_int8.passes.pipeline import Pass
from tests import zoo

pytestmark = [
    pytest.mark.skipif(kernels.library() is None, reason="programs need the native library"),
    pytest.mark.slow,
]

NAMES = ("t5", "gpt2", "llama")
LAYERS = {"t5": "num_layers", "gpt2": "n_layer", "llama": "num_hidden_layers"}


def make(name: str, approach: str = "static") -> tuple[nn.Module, dict[str, Tensor]]:
    """A model of four layers, or of four and four, and a call."""
    float_model = zoo.make(name, **{LAYERS[name]: 4})
    batches = [zoo.inputs(float_model, 4, 12, seed) for seed in (2, 3)]
    model = quantize(
        float_model, Int8Config(approach=approach), batches if approach == "static" else None, progress=False
    )
    return model, zoo.inputs(model)


def backends(model: nn.Module) -> list[Compiler]:
    return list({id(block.compiler): block.compiler for block in find_blocks(model).values()}.values())


def compile_alone(model: nn.Module) -> None:
    """Let no block take over what a sibling's passes found out."""
    for found in backends(model):
        found.backend = dataclasses.replace(found.backend, template=lambda graph: None)


def logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**inputs).logits


class Compiled:
    """How often passes ran over a graph."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        original = compiler.Compiler._compile

        def count(*args: Any) -> Any:
            self.count += 1
            return original(*args)

        monkeypatch.setattr(compiler.Compiler, "_compile", count)


def variants(model: nn.Module) -> int:
    return sum(bool(variant) for block in find_blocks(model).values() for variant in block.variants.values())


@pytest.mark.parametrize("approach", ["static", "dynamic"])
@pytest.mark.parametrize("name", NAMES)
def test_siblings_give_what_they_give_compiled_alone(name: str, approach: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = make(name, approach)
    compiled = Compiled(monkeypatch)
    found = logits(model, inputs)
    layers = variants(model)
    first = compiled.count
    assert first <= layers - 3, "three siblings at least"
    alone, _ = make(name, approach)
    compile_alone(alone)
    expected = logits(alone, inputs)
    assert torch.equal(found, expected)
    assert compiled.count == first + layers
    longer = zoo.inputs(model, 3, 23, 7)
    assert torch.equal(logits(model, longer), logits(alone, longer))


def change_scale(layer: nn.Module) -> None:
    """The keys' projection reads other quantization parameters than its siblings: it cannot be merged with them."""
    layer.input_scale.mul_(1.5)


def change_bias(layer: nn.Module) -> None:
    layer._buffers["bias"].add_(0.25)


@pytest.mark.parametrize(
    ("name", "path", "change"),
    [
        ("t5", "encoder.block.2.layer.0.SelfAttention.k", change_scale),
        ("t5", "decoder.block.2.layer.1.EncDecAttention.k", change_scale),
        ("llama", "model.layers.2.self_attn.k_proj", change_scale),
        ("gpt2", "transformer.h.2.attn.c_attn", change_bias),
    ],
)
def test_a_sibling_for_whose_values_passes_decide_otherwise(
    name: str, path: str, change: Callable[[nn.Module], None]
) -> None:
    model, inputs = make(name)
    alone, _ = make(name)
    compile_alone(alone)
    for each in (model, alone):
        change(each.get_submodule(path))
    found = logits(model, inputs)
    assert torch.equal(found, logits(alone, inputs))
    unchanged, _ = make(name)
    assert not torch.equal(found, logits(unchanged, inputs))


@pytest.mark.parametrize(
    ("name", "path"), [("gpt2", "transformer.h.2.attn.c_attn"), ("gpt2", "transformer.h.3.mlp.c_fc")]
)
def test_what_is_written_to_a_sibling_later_is_seen(name: str, path: str) -> None:
    model, inputs = make(name)
    before = logits(model, inputs)
    change_bias(model.get_submodule(path))
    for block in find_blocks(model).values():
        if block.sources is not None:
            block.sources._due = 0.0
    found = logits(model, inputs)
    fresh, _ = make(name)
    change_bias(fresh.get_submodule(path))
    assert torch.equal(found, logits(fresh, inputs))
    assert not torch.equal(found, before)


def test_a_pass_that_looks_at_values_by_itself_has_each_sibling_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def looks(graph_module: Any) -> int:
        for node in graph_module.graph.find_nodes(op="get_attr"):
            tensor_of(graph_module, node)
        return 0

    monkeypatch.setattr(pipeline, "PASSES", (Pass(looks), *pipeline.PASSES))
    model, inputs = make("t5")
    compiled = Compiled(monkeypatch)
    logits(model, inputs)
    assert compiled.count == variants(model)


def test_a_template_keeps_no_tensor_alive() -> None:
    model, inputs = make("gpt2")
    logits(model, inputs)
    templates = [
        captured.reusable.template
        for found in backends(model)
        for captured in found.captured.values()
        if captured.reusable
    ]
    assert templates and all(isinstance(template, Template) for template in templates)
    for template in templates:
        assert all(not isinstance(value, Tensor) for step in template.recipe.steps for value in step)
        assert template.graph.graph.owning_module is None


class Plain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2.0


@pytest.mark.parametrize(("checked", "agrees"), [(1.03, True), (1.0, True), (1.5, False)])
def test_a_sibling_beyond_the_bound_is_compiled_again_and_checked(checked: float, agrees: bool) -> None:
    """The passes of the first one were compared; what they round may be a little more for another."""
    checks: list[bool] = []

    def scale(graph: fx.GraphModule, tensors: list[Tensor], *, check: bool) -> fx.GraphModule:
        checks.append(check)
        factor = checked if check else 1.03
        made = fx.symbolic_trace(nn.Identity())
        made.forward = lambda *given: [x * factor for x in graph(*given)]  # type: ignore[method-assign]
        if check and factor == 1.03:
            made.meta[ROUNDED] = True
        return made

    module = Plain()
    tensors = [torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))]
    key, given = flatten(tensors, {})
    captured = capture(module, module.forward, key, given)
    made = Compiler(Backend(scale))
    results = [module(tensors[0])]
    with contextlib.nullcontext() if agrees else pytest.raises(SliceDiffers):
        variant = made.finish(Bound(captured, module), tensors, results, Sources(module), check=False)
        assert torch.equal(variant.graph(*tensors)[0], results[0] * checked)
    assert checks == [False, True]
