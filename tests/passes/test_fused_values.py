"""What `Int8Config.fuse` states: which operators round another way in a block, and how far that moves values."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, fx

from optimum_int8 import Int8Config, quantize
from optimum_int8.fx import ROUNDING, Compiler, agree
from optimum_int8.passes import pipeline
from optimum_int8.passes.rounding import Run, only_rounds

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
MODELS: dict[str, Any] = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=100, n_embd=64, n_layer=3, n_head=4, bos_token_id=1, eos_token_id=2)
    ),
    "bert": lambda: transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=100, **SIZES)),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=100, **SIZES)),
    "resnet": lambda: transformers.ResNetForImageClassification(
        transformers.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic")
    ),
}
CASES = [(name, approach) for name in MODELS for approach in ("static", "dynamic")]


def example(name: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if name == "resnet":
        return {"pixel_values": torch.randn(2, 3, 32, 32, generator=generator)}
    ids = torch.randint(5, 90, (2, 12), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def int8(name: str, approach: str, fuse: bool) -> Any:
    torch.manual_seed(0)
    model, data = MODELS[name]().eval(), [example(name)] if approach == "static" else None
    conf: Any = Int8Config(approach=approach, fuse=fuse, residuals="float32")
    return quantize(model, conf, data, progress=False)


def logits(model: Any, name: str) -> Tensor:
    with torch.no_grad():
        return model(**example(name)).logits


@pytest.mark.slow
@pytest.mark.parametrize(("name", "approach"), CASES)
def test_logits_differ_less_than_the_bound_and_than_by_quantization(name: str, approach: str) -> None:
    torch.manual_seed(0)
    exact = logits(MODELS[name]().eval(), name)
    fused, unfused = (logits(int8(name, approach, fuse), name) for fuse in (True, False))
    moved = (fused - unfused).norm()
    assert moved <= ROUNDING * unfused.norm()
    assert moved <= (unfused - exact).norm()
    assert not torch.equal(fused, exact)


def captured_blocks(
    name: str, approach: str, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[fx.GraphModule, list[Tensor]]]:
    """Graphs of all blocks as they were captured, each with the tensors of its call."""
    kept: list[tuple[fx.GraphModule, list[Tensor]]] = []
    finish = Compiler.finish

    def keep(self: Compiler, bound: Any, tensors: list[Tensor], *others: Any, **named: Any) -> Any:
        kept.append((copy.deepcopy(bound.graph), [x.clone() for x in tensors]))
        return finish(self, bound, tensors, *others, **named)

    monkeypatch.setattr(Compiler, "finish", keep)
    logits(int8(name, approach, True), name)
    return kept


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(("name", "approach"), CASES)
def test_each_quantized_value_moves_by_one_step_at_most(
    name: str, approach: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the INT8 values of one quantization to those of the next, so that what was moved before does not count again."""
    blocks = captured_blocks(name, approach, monkeypatch)
    compared = 0
    for graph, tensors in blocks:
        previous = Run(graph)
        before = list(previous.run(*tensors))
        for step in pipeline.PASSES:
            if not step.run(graph):
                continue
            graph.graph.eliminate_dead_code()
            run = Run(graph)
            after = list(run.run(*tensors))
            if previous.quantized.keys() & run.quantized.keys():
                rounds, results = only_rounds(graph, tensors, previous.quantized)
                assert rounds, step.run.__name__
                assert agree(results, before, ROUNDING if step.rounds else 0.0), step.run.__name__
                compared += 1
            else:  # no quantization stands alone, or none yet: only results can be compared
                assert agree(after, before, ROUNDING if step.rounds else 0.0), step.run.__name__
            previous, before = run, after
    per_image = (name, approach) == (
        "resnet",
        "dynamic",
    )  # its quantizations have ranges per image, which `Run` does not keep
    assert compared > len(blocks) or per_image


def test_the_statement_names_what_rounds() -> None:
    """A pass that rounds belongs into the text of `Int8Config.fuse`."""
    rounding = {step.run.__name__ for step in pipeline.PASSES if step.rounds}
    assert rounding == {
        "fold_batch_norm",
        "average_pools",
        "fold_scale",
        "fuse_gated",
        "fuse_activation",
        "fuse_conv",
        "fuse_head_norm",
        "fuse_norm",
        "fuse_written_attention",
    }
    text = " ".join(str(Int8Config.__doc__).split())
    for words in (
        "norms",
        "activations",
        "average pools",
        "batch norms",
        "attention that a model writes out",
        "factors",
        "the next of its steps",
        f"{ROUNDING:.0%}".replace("%", " %"),
    ):
        assert words in text.partition("fuse: run")[2], words
