"""`torch.compile` of an INT8 model, and models at every length: nothing breaks, nothing is captured twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from optimum_int8 import Int8Config, quantize
from optimum_int8.fx.call import SHORT
from optimum_int8.passes import find_blocks
from tests.models import batch, classifier, int8_classifier, logits
from tests.operators.cases import CASES


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize(("approach", "fuse"), [("static", True), ("dynamic", False)])
def test_one_graph_of_a_whole_model(approach: str, fuse: bool) -> None:
    int8 = int8_classifier(approach=approach, fuse=fuse)
    unfused = int8_classifier(approach=approach, fuse=False)
    logits(int8, **batch())
    compiled = torch.compile(int8, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((2, 9, 4), (3, 17, 0)):
        assert torch.equal(logits(compiled, **batch(*shape)), logits(unfused, **batch(*shape)))


@pytest.mark.slow
@pytest.mark.parametrize("width", [10, 48, 64])
@torch.no_grad()
def test_inductor(width: int) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 5)).eval(), torch.randn(8, width)
    int8 = quantize(model, Int8Config(approach="static"), [x], progress=False)
    with torch._inductor.config.patch(force_disable_caches=True):  # they know nothing of a change in our operators
        assert torch.equal(torch.compile(int8, fullgraph=True)(x), int8(x))


def layout(x: torch.Tensor) -> list[tuple[int, int]]:
    """Sizes and steps of the axes that have any."""
    return [(size, step) for size, step in zip(x.shape, x.stride(), strict=True) if size > 1]


def as_list(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)


@pytest.mark.parametrize("op", sorted({case.op for case in CASES}))
def test_results_lie_as_tracing_says(op: str) -> None:
    operator = getattr(torch.ops.optimum_int8, op)
    for case in [c for c in CASES if c.op == op][::5]:
        args = case.make()
        found = as_list(operator(*args))
        with FakeTensorMode(allow_non_fake_inputs=True) as fake:
            traced = as_list(operator(*[fake.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in args]))
        for real, told in zip(found, traced, strict=True):
            assert not real.numel() or layout(real) == layout(told), case


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_every_length_runs_and_none_is_captured_again(approach: str) -> None:
    int8 = int8_classifier(approach=approach, model=classifier(max_position_embeddings=512))
    for length in (9, SHORT + 1):  # the encoder, and its layers
        logits(int8, **batch(1, length, 0))
    blocks = find_blocks(int8)
    before = {name: len(block.variants) for name, block in blocks.items()}
    for length in range(1, 513):
        assert logits(int8, **batch(1, length, 0)).isfinite().all()
    assert {name: len(block.variants) for name, block in find_blocks(int8).items()} == before
    assert not any(block.misses for block in blocks.values())
