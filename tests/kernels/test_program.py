"""Programs: several instructions over local and external values give what the operators give one by one; refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.differences import difference
from optimum_int8 import kernels, operators
from optimum_int8.errors import KernelError
from optimum_int8.kernels.emission import Rows, row_bytes
from optimum_int8.operators import REGISTRY
from tests.operators.cases import static_grid, weight_arguments

ISAS = kernels.info()["isa_found"]
pytestmark = pytest.mark.skipif(not ISAS, reason="no native library")


class Emission:
    """Results are local, except the next one after `out` was set."""

    def __init__(self) -> None:
        self.program = kernels.Program()
        self.outside = False
        self.keys = 1

    def new(self, columns: int, dtype: torch.dtype) -> Rows:
        make = self.program.external if self.outside else self.program.local
        return Rows(make(row_bytes(columns, dtype)), columns, dtype)


def mlp(width: int, hidden: int) -> tuple[list[Any], list[Any]]:
    up, down = torch.randn(hidden, width), torch.randn(width, hidden) / hidden
    return [*weight_arguments(up), torch.randn(hidden)], [*weight_arguments(down), None]


def mlp_by_operators(x: Tensor, up: list[Any], down: list[Any]) -> Tensor:
    q = REGISTRY["quantize"].definition(x, *static_grid())
    h = REGISTRY["linear_quantized"].definition(q, *static_grid(), *up, "gelu", *static_grid(-1, 20))
    y = REGISTRY["linear"].definition(h, *static_grid(-1, 20), *down, "none")
    return REGISTRY["norm"].definition(y, x, None, None, "layer_norm", 1e-5)


def mlp_program(width: int, up: list[Any], down: list[Any]) -> kernels.Program:
    e = Emission()
    x = Rows(e.program.external(4 * width), width, torch.float32)
    q = REGISTRY["quantize"].emit(e, x, *static_grid())
    h = REGISTRY["linear_quantized"].emit(e, q, *static_grid(), *up, "gelu", *static_grid(-1, 20))
    y = REGISTRY["linear"].emit(e, h, *static_grid(-1, 20), *down)
    e.outside = True
    REGISTRY["norm"].emit(e, y, x, None, None, "layer_norm", 1e-5)
    assert len(e.program) == 4
    return e.program


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("width", "hidden"), [(33, 65), (64, 256), (1, 17)])
def test_local_values(isa: str, width: int, hidden: int) -> None:
    up, down = mlp(width, hidden)
    program = mlp_program(width, up, down)
    with kernels.use_isa(isa):
        for batch, length in ((1, 1), (2, 17), (3, 33), (1, 5)):  # the arena grows, then is larger than needed
            x = torch.randn(batch, length, width)
            out = torch.full_like(x, float("nan"))
            program.run(batch, length, [x, out])
            assert difference(out, mlp_by_operators(x, up, down)) is None


def test_a_program_grows_after_it_ran() -> None:
    e = Emission()
    x, q, r = (e.program.external(n) for n in (4 * 16, 64, 64))
    e.program.add("quantize", [x], [q], columns=16, output_scale=0.1, output_zero_point=3)
    data, first, second = (
        torch.randn(2, 16),
        kernels.empty_rows((2,), 16, torch.uint8),
        kernels.empty_rows((2,), 16, torch.uint8),
    )
    e.program.run(1, 2, [data, first, second])
    e.program.add("quantize", [x], [r], columns=16, output_scale=0.2, output_zero_point=5)
    e.program.run(1, 2, [data, first, second])
    assert torch.equal(first, REGISTRY["quantize"].definition(data, 0.1, 3))
    assert torch.equal(second, REGISTRY["quantize"].definition(data, 0.2, 5))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_merged_projections(isa: str, dynamic: bool) -> None:
    """Queries, keys and values as columns of one value, as a merged projection writes them."""
    batch, length, heads, kv_heads, head = 2, 19, 4, 2, 24
    sizes = [heads * head, kv_heads * head, kv_heads * head]
    x = torch.randn(batch, length, sum(sizes))
    if dynamic:
        merged, scales = REGISTRY["quantize_groups"].definition(x, heads + 2 * kv_heads)
        parts = [t.contiguous() for t in scales.split([heads, kv_heads, kv_heads], -1)]
    else:
        merged, parts = REGISTRY["quantize"].definition(x, 0.03, 128), [torch.tensor(s) for s in (0.03, 0.02, 0.05)]
    expected = REGISTRY["attention_rows"].definition(
        *merged.split(sizes, -1), *parts, heads, kv_heads, None, 0.2, False
    )

    e = Emission()
    e.outside = True
    value = e.new(sum(sizes), torch.uint8)
    starts = (0, sizes[0], sizes[0] + sizes[1])
    qkv = [value._replace(column=start, columns=size) for start, size in zip(starts, sizes, strict=True)]
    tensors, used = [kernels.as_rows(merged)], parts
    if dynamic:
        grid = e.new(heads + 2 * kv_heads, torch.float32)
        used = [grid._replace(column=c) for c in (0, heads, heads + kv_heads)]
        tensors.append(scales)
    REGISTRY["attention_rows"].emit(e, *qkv, *used, heads, kv_heads, 0.2, False)
    out = torch.empty(batch, length, sizes[0])
    with kernels.use_isa(isa):
        e.program.run(batch, length, [*tensors, out])
    assert difference(out, expected) is None


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_fewer_heads_than_threads(isa: str, threads: int) -> None:
    """A thread without a head of its own has the next linear's weights to prefetch all the same."""
    length, head = 21, 32
    parts = [REGISTRY["quantize"].definition(torch.randn(1, length, head), 0.03, 128) for _ in range(3)]
    scales = [torch.tensor(0.03)] * 3
    weight = [*weight_arguments(torch.randn(70, head)), torch.randn(70)]
    q = REGISTRY["quantize"].definition(
        REGISTRY["attention_rows"].definition(*parts, *scales, 1, 1, None, 0.2, False), *static_grid()
    )
    e = Emission()
    rows = [Rows(e.program.external(row_bytes(head, torch.uint8)), head, torch.uint8) for _ in parts]
    seen = REGISTRY["quantize"].emit(
        e, REGISTRY["attention_rows"].emit(e, *rows, *scales, 1, 1, 0.2, False), *static_grid()
    )
    e.outside = True
    REGISTRY["linear"].emit(e, seen, *static_grid(), *weight)
    out, before = torch.empty(1, length, 70), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with kernels.use_isa(isa):
            e.program.run(1, length, [*map(kernels.as_rows, parts), out])
    finally:
        torch.set_num_threads(before)
    assert difference(out, REGISTRY["linear"].definition(q, *static_grid(), *weight, "none")) is None


@pytest.mark.parametrize("isa", ISAS)
def test_embeddings_add_up(isa: str) -> None:
    e = Emission()
    tables = [weight_table(30, 33), weight_table(5, 33)]
    ids = [torch.randint(0, n, (2, 7)) for n in (30, 5)]
    first, second = (Rows(e.program.external(8), 1, torch.int64) for _ in ids)
    word = REGISTRY["embedding"].emit(e, first, *tables[0])
    e.outside = True
    REGISTRY["embedding"].emit(e, second, *tables[1], word)
    out = torch.empty(2, 7, 33)
    with kernels.use_isa(isa):
        e.program.run(2, 7, [*ids, out])
    a, b = (REGISTRY["embedding"].definition(i, *t) for i, t in zip(ids, tables, strict=True))
    assert difference(out, b + a) is None


def weight_table(rows: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.randint(-127, 128, (rows, width), dtype=torch.int8), torch.rand(rows)


def attend(mask: Tensor) -> Tensor:
    x = torch.randn(2, 2, 5, 8)
    return operators.attention(x, x, x, None, None, None, mask, 0.3, False)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
@pytest.mark.parametrize("shape", [(3, 1, 5, 5), (2, 2, 4, 5), (1, 1, 6, 5), (1, 2, 2, 5, 5)])
def test_a_mask_that_does_not_fit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    with pytest.raises(KernelError, match=r"mask of shape .* does not fit batch 2"):
        attend(torch.ones(shape, dtype=dtype))


@pytest.mark.xfail(raises=(RuntimeError, pytest.fail.Exception), reason="set_mask checks neither heads nor keys")
@pytest.mark.parametrize("shape", [(2, 3, 5, 5), (2, 1, 1, 4), (2, 2, 5, 7)])
def test_a_mask_of_other_heads_or_keys(shape: tuple[int, ...]) -> None:
    try:
        attend(torch.ones(shape, dtype=torch.bool))
    except KernelError:
        return
    pytest.fail("accepted")


def test_unknown_instruction() -> None:
    program = kernels.Program()
    with pytest.raises(
        ValueError, match="no instruction 'convolve' in kernels/interface.py; expected one of quantize, "
    ):
        program.add("convolve", [], [])
    x = program.external(64)
    program.add("quantize", [x], [x], columns=16, output_scale=1.0)
    program._instructions[0].op = 99
    with pytest.raises(KernelError, match="refused a program of 1 instructions: bad argument"):
        program.run(1, 1, [torch.zeros(16)])


@pytest.mark.parametrize(
    ("op", "field"), [("norm", "scaling"), ("attention", "groups"), ("add", "parameter"), ("quantize", "op_")]
)
def test_a_field_of_another_operator(op: str, field: str) -> None:
    program = kernels.Program()
    x = program.external(64)
    with pytest.raises(KernelError, match=f"the operator '{op}' has no field '{field}'"):
        program.add(op, [x], [x], columns=16, **{field: 1})
    assert len(program) == 0


def test_nothing_to_do() -> None:
    program = kernels.Program()
    x, y = program.external(64), program.external(64)
    program.add("norm", [x], [y], columns=16, kind="none")
    program.run(1, 0, [torch.empty(0, 16), torch.empty(0, 16)])
    program.run(0, 3, [torch.empty(0, 3, 16), torch.empty(0, 3, 16)])
    with pytest.raises(KernelError, match="has no keys"):
        program.run(1, 3, [torch.empty(1, 3, 16)] * 2, key_length=0)
    assert operators.quantize(torch.empty(3, 0, 8), *static_grid()).shape == (3, 0, 8)
