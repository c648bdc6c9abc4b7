"""Every operator on every instruction set of this machine equals `numerics` to the bit; shapes for tracing fit the results."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.differences import difference, distance
from optimum_int8 import kernels, operators
from optimum_int8.operators import REGISTRY, bind, run_as_program
from tests.operators.cases import CASES, Case, linear_arguments

ISAS = kernels.info()["isa_found"]
TANH_OF_NAN = pytest.mark.xfail(reason="the kernels' exp swallows NaN, so that their tanh of NaN is 1")
BY_NAME = {str(case): case for case in CASES}


def operator(case: Case) -> Any:
    return getattr(torch.ops.optimum_int8, case.op)(*case.make())


@functools.cache
def expected(name: str) -> Any:
    case = BY_NAME[name]
    return REGISTRY[case.op].definition(*case.make())


def wrong_cases(op: str, isa: str) -> dict[str, str]:
    """Cases of an operator that differ from the definition, with how they do."""
    wrong = {}
    with kernels.use_isa(isa):
        for case in CASES:
            if case.op != op:
                continue
            args = case.make()
            compare = distance if isa == "amx" and in_bfloat16(op, args) else difference
            if (told := compare(run_as_program(op, *args), expected(str(case)))) is not None:
                wrong[str(case)] = told
    return wrong


def in_bfloat16(op: str, args: tuple[Any, ...]) -> bool:
    """Whether sums run in an order of their own on AMX."""
    return op.startswith("float_attention") and bind(REGISTRY[op].overload, args)["bfloat16"]


def test_every_operator_is_tested() -> None:
    assert {case.op for case in CASES} == set(REGISTRY)
    assert len(BY_NAME) == len(CASES)


@pytest.mark.slow
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", REGISTRY)
def test_equal_to_numerics(op: str, isa: str) -> None:
    assert wrong_cases(op, isa) == {}


@pytest.mark.parametrize("op", REGISTRY)
def test_operator_of_several_calls(op: str) -> None:
    for case in [c for c in CASES if c.op == op][::7]:
        assert difference(operator(case), expected(str(case))) is None, case


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(ISAS or [None]), st.integers(1, 70), st.integers(1, 150), st.integers(1, 100),
    st.booleans(), st.booleans(), st.sampled_from(kernels.ACTIVATIONS),
)  # fmt: skip
def test_linear_of_any_size(
    isa: str | None, rows: int, k: int, n: int, dynamic: bool, bias: bool, activation: str
) -> None:
    if isa is None:
        pytest.skip("no native library")
    args = linear_arguments(rows, k, n, dynamic, bias, activation)
    with kernels.use_isa(isa):
        assert difference(operators.linear(*args), REGISTRY["linear"].definition(*args)) is None


@pytest.mark.parametrize("isa", ISAS)
def test_quantize_any_bits(isa: str) -> None:
    bits = torch.randint(-(2**31), 2**31, (64, 100), generator=torch.Generator().manual_seed(0), dtype=torch.int64)
    x = bits.to(torch.int32).view(torch.float32)
    assert x.isnan().any()
    for scale in (1e-30, 0.01, 3e20):
        args = x, torch.tensor(scale), torch.tensor(93, dtype=torch.int32)
        with kernels.use_isa(isa):
            assert difference(operators.quantize(*args), REGISTRY["quantize"].definition(*args)) is None


@pytest.mark.parametrize("isa", [*ISAS, "none"])
@pytest.mark.parametrize("wrong", [5, -1, 2**40, -(2**40)])
def test_embedding_refuses_an_index_outside_the_table(
    isa: str, wrong: int, without_library: Callable[[], None]
) -> None:
    table = torch.ones(5, 48, dtype=torch.int8), torch.ones(5)
    if isa == "none":
        without_library()
        if wrong == -1:
            pytest.xfail("numerics counts negative indices from the end")
    with kernels.use_isa(isa) if isa != "none" else contextlib.nullcontext():
        for position in (0, 36):
            ids = torch.zeros(37, dtype=torch.int64)
            ids[position] = wrong
            with pytest.raises(IndexError):
                operators.embedding(ids, *table)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation", ["none", "gelu", "gelu_tanh", "silu", pytest.param("tanh", marks=TANH_OF_NAN)])
def test_activations_hand_nan_on(activation: str, isa: str) -> None:
    args = linear_arguments(1, 1, 3, dynamic=False, activation=activation)
    args[6][1] = float("nan")
    with kernels.use_isa(isa):
        assert operators.linear(*args).isnan().tolist() == [[False, True, False]]


@pytest.mark.parametrize("op", REGISTRY)
def test_shapes_for_tracing(op: str) -> None:
    named = [c for c in CASES if c.op == op]
    for case in named[:: max(1, len(named) // 5)]:
        expected(str(case))  # outside the mode: the references need data
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        for case in named[:: max(1, len(named) // 5)]:
            args = [fake.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in case.make()]
            traced = getattr(torch.ops.optimum_int8, op)(*args)
            results = [traced] if isinstance(traced, torch.Tensor) else traced
            wanted = expected(str(case))
            wanted = [wanted] if isinstance(wanted, torch.Tensor) else wanted
            assert [(t.dtype, t.shape) for t in results] == [(t.dtype, t.shape) for t in wanted], case


def _whole_steps(op: str) -> Case:
    """A case whose rows fill whole steps of the kernels, so that results lie as in a plain tensor."""
    found = [c for c in CASES if c.op == op and any(n in c.name for n in ("64", "(1, 1, 1)", "no_bias"))]
    assert found, f"{op} needs a case of 64 columns, with 64 in its name"
    return found[0]


@pytest.mark.parametrize("op", REGISTRY)
def test_registration(op: str) -> None:
    """Schemas tell the truth: nothing is written to or aliased, and symbolic shapes work."""
    args = _whole_steps(op).make()
    torch.library.opcheck(getattr(torch.ops.optimum_int8, op).default, args, test_utils=("test_schema",))
