"""Every architecture, static and dynamic: what is INT8 and fused, that it reloads to the bit, where its error comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from optimum_int8 import Int8Config, OptimizedModel, inspect, quantize
from optimum_int8.operators import registry
from optimum_int8.passes import find_blocks, remove
from tests import zoo

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

OWN_ATTENTION = ("xlnet", "deberta-v2", "mpnet")
"""Attention that does not go through Transformers' interface by itself."""


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def int8(name: str, approach: str, **settings: Any) -> tuple[Any, Any, dict[str, Tensor]]:
    """The FP32 model, the INT8 one and a batch that calibration did not see."""
    model = zoo.make(name)
    data = [zoo.inputs(model, 4, 12, seed) for seed in (2, 3)] if approach == "static" else None
    return model, quantize(model, Int8Config(approach=approach, **settings), data, progress=False), zoo.inputs(model)


def share_captures(source: Any, target: Any) -> None:
    """Bind the graphs of one model to another of the same structure, as to siblings inside one: each is compared with the module that
    it is bound to, and only tracing it anew is left out."""
    (captured,) = {id(block.compiler): block.compiler.captured for block in find_blocks(source).values()}.values()
    (compiler,) = {id(block.compiler): block.compiler for block in find_blocks(target).values()}.values()
    compiler.captured.update(captured)


def distance(found: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference as a share of that of `expected`."""
    return float((found - expected).double().norm() / expected.double().norm())


def multiply_adds(model: Any, batch: dict[str, Tensor]) -> int:
    """Of one call, counted by torch; it does not know INT8 operators, so in an INT8 model only FP32 ones count."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # the counter follows gradients
    with FlopCounterMode(display=False) as counter:
        zoo.logits(model, batch)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("approach", ["dynamic", "static"])
@pytest.mark.parametrize("name", zoo.ZOO)
def test_fused_and_reloaded(name: str, approach: str, tmp_path: Path) -> None:
    model, made, batch = int8(name, approach)
    found = zoo.logits(made, batch)
    report = inspect(made)
    captured = [row for row in report.blocks if row.variants]
    assert captured or report.failures  # blocks, or the reason why there are none
    assert report.block_share > 0.9 or report.failures
    assert report.int8_share >= 0.95
    OptimizedModel.save_pretrained(made, tmp_path / name)
    again = OptimizedModel.from_pretrained(tmp_path / name)
    assert type(again) is type(model)
    share_captures(made, again)
    assert torch.equal(zoo.logits(again, batch), found)
    remove(made)
    assert distance(found, zoo.logits(made, batch)) < 0.03  # a fused block rounds some values to the next step


@pytest.mark.parametrize("approach", ["dynamic", "static"])
@pytest.mark.parametrize("name", zoo.ZOO)
def test_error_is_of_quantization_not_of_kernels(name: str, approach: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, made, batch = int8(name, approach, fuse=False)
    found = zoo.logits(made, batch)
    monkeypatch.setattr(registry, "library", lambda: None)  # the definition, in plain torch
    defined = zoo.logits(made, batch)
    assert torch.equal(found, defined)
    assert 0 < distance(defined, zoo.logits(model, batch)) < 0.08


@pytest.mark.parametrize("name", zoo.ZOO)
def test_coverage(name: str) -> None:
    model, made, batch = int8(name, "dynamic", fuse=False)
    if name not in OWN_ATTENTION:
        model.set_attn_implementation("eager")  # whose products the counter knows
    share = 1 - multiply_adds(made, batch) / multiply_adds(model, batch)
    assert share >= 0.95, f"{share:.3f}"


def test_inspect_counts_what_is_no_linear() -> None:
    """Bare parameters that einsum reads: `inspect` must not claim them."""

    class Bare(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.heads = torch.nn.Linear(64, 64), torch.nn.Parameter(torch.randn(64, 4, 16))

        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("ibh,hnd->ibnd", self.linear(x), self.heads)

    assert inspect(quantize(Bare().eval(), Int8Config(fuse=False))).int8_share == 0.5


@pytest.mark.parametrize("name", zoo.ZOO)
def test_an_int8_model_keeps_its_classes(name: str) -> None:
    """Transformers finds what to record by class, and people their embeddings."""
    model, made, _ = int8(name, "dynamic", fuse=False)
    tables = {n: type(m) for n, m in model.named_modules() if isinstance(m, torch.nn.Embedding)}
    assert all(isinstance(made.get_submodule(n), kind) for n, kind in tables.items())
    if model.main_input_name == "input_ids":
        assert made.get_input_embeddings() is made.get_submodule(
            next(n for n, m in model.named_modules() if m is model.get_input_embeddings())
        )


def test_relative_positions_do_not_keep_an_encoder_from_being_a_block() -> None:
    model = zoo.make("deberta-v2")
    int8 = quantize(model, Int8Config(approach="static"), [zoo.inputs(model, 3, 12, 2)], progress=False)
    for rows, length in ((2, 9), (1, 13), (3, 5), (1, 4)):
        zoo.logits(int8, zoo.inputs(model, rows, length))
    encoder = next(row for row in inspect(int8).blocks if row.cls == "DebertaV2Encoder")
    assert encoder.variants == 1 and encoder.gemms == 12 and not encoder.note
