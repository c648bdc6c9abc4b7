"""A new operator is one file: defined here, it is registered, traced, emitted into a program among others, and run."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, fx

from optimum_int8 import numerics
from optimum_int8.fx import shaped
from optimum_int8.fx.rewrite import ours
from optimum_int8.kernels import library
from optimum_int8.kernels.emission import Emission, Rows, output_fields, row_bytes
from optimum_int8.lowering import lower_rows, runs_natively
from optimum_int8.operators import (
    PER_ROW,
    REGISTRY,
    ROWS,
    Quantizing,
    define,
    operator_of,
    operator_with_form,
    run_as_program,
)
from optimum_int8.operators.shapes import like
from optimum_int8.passes.quantize_in_producer import quantize_in_producer

NAME = "toy_round_trip"
QUANTIZED = "toy_round_trip_quantized"
QUANTIZED_ROWS = "toy_round_trip_quantized_rows"
SCHEMA = "Tensor x, Tensor scale, Tensor zero_point"


def round_trip(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """What is left of `x` once it was uint8."""
    return numerics.dequantize_affine(numerics.quantize_affine(x, scale, zero_point), scale, zero_point)


def round_trip_quantized(
    x: Tensor, scale: Tensor, zero_point: Tensor, output_scale: Tensor, output_zero_point: Tensor
) -> Tensor:
    return numerics.quantize_affine(round_trip(x, scale, zero_point), output_scale, output_zero_point)


def round_trip_quantized_rows(x: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, ...]:
    y = round_trip(x, scale, zero_point)
    return y, *numerics.quantize_rows(y)


def emit(e: Emission, x: Rows, scale: Tensor, zero_point: Tensor) -> Rows:
    bytes_ = e.program.local(row_bytes(x.columns, torch.uint8))
    out = e.new(x.columns, torch.float32)
    e.program.add("quantize", [x.value], [bytes_], columns=x.columns, **output_fields(scale, zero_point))
    fields = {"input_scale": float(scale), "input_zero_point": int(zero_point)}
    e.program.add("add", [bytes_], [out.value], columns=x.columns, **fields)
    return out


@pytest.fixture(autouse=True, scope="module")
def toy() -> Iterator[None]:
    define(
        NAME,
        f"({SCHEMA}) -> Tensor",
        compute=round_trip,
        definition=round_trip,
        fake=lambda x, scale, zero_point: like(x, *x.shape),
        emit=emit,
        domains=(ROWS,),
        values=("x",),
    )
    define(
        QUANTIZED,
        f"({SCHEMA}, Tensor output_scale, Tensor output_zero_point) -> Tensor",
        compute=round_trip_quantized,
        definition=round_trip_quantized,
        fake=lambda x, *rest, **named: like(x, *x.shape, dtype=torch.uint8),
        form=Quantizing(NAME),
    )
    define(
        QUANTIZED_ROWS,
        f"({SCHEMA}) -> (Tensor, Tensor, Tensor, Tensor)",
        compute=round_trip_quantized_rows,
        definition=round_trip_quantized_rows,
        fake=lambda x, *rest, **named: (x, x, x, x),
        form=Quantizing(NAME, PER_ROW, keeps_float=True),
    )
    yield
    for name in (NAME, QUANTIZED, QUANTIZED_ROWS):
        REGISTRY.pop(name)


def arguments() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, 5, 48), torch.tensor(0.03), torch.tensor(120, dtype=torch.int32)


NORM = (None, None, None, "rms_norm", 1e-6)


def captured(after: Callable[[fx.Graph, fx.Node], tuple[fx.Node, ...]]) -> fx.GraphModule:
    """A graph of the toy operator on an input, and of what comes after it."""
    x, scale, zero_point = arguments()
    module = torch.nn.Module()
    module.register_buffer("scale", scale)
    module.register_buffer("zero_point", zero_point)
    graph = fx.Graph()
    given = graph.placeholder("x")
    qparams = [graph.get_attr(name) for name in ("scale", "zero_point")]
    graph.output(after(graph, graph.call_function(REGISTRY[NAME].overload, (given, *qparams))))
    for node in graph.nodes:
        node.meta["val"] = shaped({"scale": scale, "zero_point": zero_point}.get(str(node.target), x))
    return fx.GraphModule(module, graph)


def test_it_is_registered_and_traced() -> None:
    target = torch.ops.optimum_int8.toy_round_trip.default
    assert operator_of(target) is REGISTRY[NAME]

    class Module(torch.nn.Module):
        def forward(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
            return torch.ops.optimum_int8.toy_round_trip(x, scale, zero_point)

    graph = torch.export.export(Module(), arguments(), strict=False).graph
    assert [node.target for node in graph.nodes if node.op == "call_function"] == [target]


@pytest.mark.skipif(library() is None, reason="without the native library nothing becomes a program")
def test_it_is_emitted_and_run_among_others() -> None:
    x, scale, zero_point = arguments()
    assert torch.equal(run_as_program(NAME, x, scale, zero_point), round_trip(x, scale, zero_point))
    made = captured(lambda graph, toy_node: (graph.call_function(ours.norm.default, (toy_node, *NORM)),))
    assert lower_rows(made) == 1
    made.recompile()
    assert runs_natively(made) == 3
    assert torch.equal(made(x)[0], numerics.rms_norm(round_trip(x, scale, zero_point), None, 1e-6))


def targets(made: fx.GraphModule) -> list[object]:
    return [n.target for n in made.graph.nodes if n.op == "call_function" and "getitem" not in str(n.target)]


def test_a_pass_finds_its_form() -> None:
    """`quantize_in_producer` knows no names: it asks for the form that quantizes the result."""
    x, scale, zero_point = arguments()

    def quantize(graph: fx.Graph, node: fx.Node) -> tuple[fx.Node, ...]:
        qparams = (next(n for n in graph.nodes if n.target == name) for name in ("scale", "zero_point"))
        return (graph.call_function(ours.quantize.default, (node, *qparams)),)

    made = captured(quantize)
    before = made(x)[0]
    assert quantize_in_producer(made) == 1
    made.recompile()
    assert targets(made) == [REGISTRY[QUANTIZED].overload]
    assert torch.equal(made(x)[0], before)
    both = captured(lambda graph, node: (*quantize(graph, node), node))
    assert quantize_in_producer(both) == 0  # it has no form that keeps the float value


def test_a_pass_finds_its_form_per_row() -> None:
    def quantize(graph: fx.Graph, node: fx.Node) -> tuple[fx.Node, ...]:
        rows = graph.call_function(ours.quantize_rows.default, (node,))
        return (*(graph.call_function(operator.getitem, (rows, i)) for i in range(3)), node)

    made = captured(quantize)
    next(n for n in made.graph.nodes if n.target is ours.quantize_rows.default).meta["val"] = (
        shaped(arguments()[0]),
    ) * 3
    x = arguments()[0]
    before = made(x)
    assert quantize_in_producer(made) == 1
    made.recompile()
    assert targets(made) == [REGISTRY[QUANTIZED_ROWS].overload]
    assert all(torch.equal(a, b) for a, b in zip(made(x), before, strict=True))


def test_a_form_has_the_arguments_of_its_operator_and_those_of_the_result() -> None:
    parts = {"compute": abs, "definition": abs, "fake": abs}
    for schema, form, problem in (
        ("(Tensor x) -> Tensor", Quantizing("toy_unknown"), "defined before"),
        (
            f"({SCHEMA}, Tensor output_scale, Tensor output_zero_point) -> Tensor",
            Quantizing(NAME),
            "one operator of each",
        ),
        (f"({SCHEMA}) -> Tensor", Quantizing(NAME, keeps_float=True), "2 more"),
        (f"({SCHEMA}, Tensor output_scale) -> Tensor", Quantizing(NAME, PER_ROW), "0 more"),
    ):
        name = f"toy_bad_{form.of}_{form.per}_{form.keeps_float}"
        with pytest.raises(ValueError, match=problem):
            define(name, schema, **parts, form=form)
        assert name not in REGISTRY and getattr(operator_with_form(form), "name", "") != name


def test_a_name_is_defined_once_and_values_are_arguments() -> None:
    with pytest.raises(ValueError, match="defined already"):
        define(NAME, "(Tensor x) -> Tensor", compute=abs, definition=abs, fake=abs)
