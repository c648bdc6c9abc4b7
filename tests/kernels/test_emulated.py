"""AVX-512 and AMX where the processor lacks them: the same sources with emulated instructions equal `numerics` to the bit."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from optimum_int8 import Int8Config, kernels, operators, quantize
from optimum_int8.operators import REGISTRY
from tests import zoo
from tests.kernels import emulation
from tests.kernels.conftest import library
from tests.operators.test_operators import wrong_cases

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def emulated_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if emulation.compiler() is None or "avx2" not in kernels.info()["isa_found"]:
        pytest.skip("the emulation needs a C++ compiler and AVX2")
    target = tmp_path_factory.mktemp("emulation") / "_liboptimum_int8.so"
    emulation.build(target)
    return target


@pytest.fixture(autouse=True)
def emulated(emulated_library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package with this library in place of its own."""
    monkeypatch.setattr(library, "__file__", str(emulated_library.with_name("native.py")))
    for name in ("_load", "_default_isa"):
        monkeypatch.setattr(library, name, functools.cache(getattr(library, name).__wrapped__))
    assert kernels.info()["isa_found"] == list(kernels.ISAS)
    yield


@pytest.mark.parametrize("isa", emulation.EMULATED)
@pytest.mark.parametrize("op", REGISTRY)
def test_equal_to_numerics(op: str, isa: str) -> None:
    assert wrong_cases(op, isa) == {}


@pytest.mark.parametrize("attention", ["int8", "float32", "bfloat16"])
@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_one_checkpoint_gives_the_same_logits_everywhere(approach: str, attention: str) -> None:
    """Whole blocks, which no single operator covers: padding left out, merged projections, values kept INT8."""
    model = zoo.make("bert")
    data = [zoo.inputs(model, 4, 12, 2)] if approach == "static" else None
    made = quantize(model, Int8Config(approach=approach, attention=attention), data, progress=False)
    found = {}
    for isa in kernels.ISAS:
        with kernels.use_isa(isa):
            found[isa] = zoo.logits(made, zoo.inputs(model, 3, 40))
    amx, portable = found.pop("amx"), found["portable"]
    assert all(torch.equal(logits, portable) for logits in found.values())
    if attention == "bfloat16":
        assert (amx - portable).norm() < 0.02 * portable.norm(), (
            "an activation rounded to the next level, here and there"
        )
    else:
        assert torch.equal(amx, portable)


def test_the_tiles_of_bfloat16_are_used() -> None:
    """Their order of sums is seen in some bit: else the tests above would have compared the vectors with themselves."""
    query, key, value = (torch.randn(1, 2, 40, 64, generator=torch.Generator().manual_seed(i)) for i in range(3))
    found = {}
    for isa in emulation.EMULATED:
        with kernels.use_isa(isa):
            found[isa] = [operators.float_attention(query, key, value, b, None, 0.125, False) for b in (False, True)]
    assert torch.equal(found["amx"][0], found["avx512_vnni"][0])
    assert not torch.equal(found["amx"][1], found["avx512_vnni"][1])
