"""A new operator is one file: defined here, it is registered, traced, emitted into a program among others, and run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, fx

from optimum_int8 import numerics
from optimum_int8.fx import shaped
from optimum_int8.kernels import library
from optimum_int8.kernels.emission import Emission, Rows, output_fields, row_bytes
from optimum_int8.lowering import lower_rows, runs_natively
from optimum_int8.operators import REGISTRY, ROWS, define, operator_of, run_as_program
from optimum_int8.operators.shapes import like

NAME = "toy_round_trip"


def round_trip(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """What is left of `x` once it was uint8."""
    return numerics.dequantize_affine(numerics.quantize_affine(x, scale, zero_point), scale, zero_point)


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
        "(Tensor x, Tensor scale, Tensor zero_point) -> Tensor",
        compute=round_trip,
        definition=round_trip,
        fake=lambda x, scale, zero_point: like(x, *x.shape),
        emit=emit,
        domains=(ROWS,),
        values=("x",),
    )
    yield
    REGISTRY.pop(NAME)


def arguments() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, 5, 48), torch.tensor(0.03), torch.tensor(120, dtype=torch.int32)


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
    module = torch.nn.Module()
    module.register_buffer("scale", scale)
    module.register_buffer("zero_point", zero_point)
    graph = fx.Graph()
    given = graph.placeholder("x")
    parameters = [graph.get_attr(name) for name in ("scale", "zero_point")]
    toy_node = graph.call_function(REGISTRY[NAME].overload, (given, *parameters))
    norm = graph.call_function(torch.ops.optimum_int8.norm.default, (toy_node, None, None, None, "rms_norm", 1e-6))
    graph.output((norm,))
    for node in graph.nodes:
        node.meta["val"] = shaped({"scale": scale, "zero_point": zero_point}.get(str(node.target), x))
    made = fx.GraphModule(module, graph)
    assert lower_rows(made) == 1
    made.recompile()
    assert runs_natively(made) == 3
    assert torch.equal(made(x)[0], numerics.rms_norm(round_trip(x, scale, zero_point), None, 1e-6))


def test_a_name_is_defined_once_and_values_are_arguments() -> None:
    with pytest.raises(ValueError, match="defined already"):
        define(NAME, "(Tensor x) -> Tensor", compute=abs, definition=abs, fake=abs)
