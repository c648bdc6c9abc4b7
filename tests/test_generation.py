"""`generate()` of INT8 models: the same tokens with and without a cache, whatever the cache and the search."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from optimum_int8 import Int8Config, OptimizedModel, quantize
from optimum_int8.hub.checkpoint import read_headers, weight_files
from optimum_int8.nn import Int8Embedding
from optimum_int8.passes import install
from tests import zoo

pytestmark = pytest.mark.filterwarnings("ignore")

SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beam": {"do_sample": False, "num_beams": 3},
    "sampling": {"do_sample": True, "top_k": 20},
}
STEPS = 8


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def int8(name: str, approach: str, **settings: Any) -> Any:
    model = zoo.make(name)
    data = [zoo.inputs(model, 3, 12, 2)] if approach == "static" else None
    return quantize(model, Int8Config(approach=approach, **settings), data, progress=False)


def generate(model: Any, rows: int = 2, **settings: Any) -> Tensor:
    torch.manual_seed(5)
    batch = zoo.inputs(model, rows)
    batch.pop("decoder_input_ids", None)
    return model.generate(**batch, max_new_tokens=STEPS, min_new_tokens=STEPS, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["dynamic", "static"])
@pytest.mark.parametrize("name", zoo.GENERATIVE)
def test_same_tokens_with_and_without_cache(name: str, approach: str) -> None:
    model = int8(name, approach, fuse=False)
    for search, settings in SEARCHES.items():
        expected = generate(model, use_cache=False, **settings)
        assert torch.equal(generate(model, use_cache=True, **settings), expected), search
    static = generate(model, cache_implementation="static", **SEARCHES["greedy"])
    assert torch.equal(static, generate(model, use_cache=False, **SEARCHES["greedy"]))


@pytest.mark.parametrize("name", ["bart", "t5", "gpt2", "llama"])
def test_a_batch_gives_each_sequence_what_it_gets_alone(name: str) -> None:
    """A dynamic grid belongs to one token, so neighbours and padding cannot move it."""
    model = int8(name, "dynamic", fuse=False)
    batch = zoo.inputs(model)
    batch.pop("decoder_input_ids", None)
    together = model.generate(**batch, max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=False)
    alone = {key: value[:1][:, batch["attention_mask"][0].bool()] for key, value in batch.items()}
    single = model.generate(**alone, max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=False)
    assert torch.equal(together[0, -STEPS:], single[0, -STEPS:])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bart", "t5", "gpt2", "llama"])
def test_fused_blocks_generate_the_same(name: str) -> None:
    model = int8(name, "static")
    expected = generate(model, use_cache=False, **SEARCHES["greedy"])
    assert torch.equal(generate(model, use_cache=True, **SEARCHES["greedy"]), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bart", "t5", "gpt2", "llama"])
def test_a_block_captured_on_one_token_serves_longer_calls(name: str) -> None:
    """At one token, and at a batch of one, an axis that broadcasts looks like one that grows."""
    model = int8(name, "dynamic", fuse=False)
    given = zoo.inputs(model, 3, 9)
    key = "decoder_input_ids" if model.config.is_encoder_decoder else "input_ids"
    calls = [
        {n: v[:rows, -steps:] if n == key or zoo.is_decoder(model) else v[:rows] for n, v in given.items()}
        for rows, steps in ((1, 1), (1, 4), (3, 1), (3, 4), (2, 6))
    ]
    with torch.no_grad():
        expected = [model(**call, use_cache=False).logits for call in calls]
        compiler = install(model)
        for call, right in zip(calls, expected, strict=True):
            found = model(**call, use_cache=False).logits
            kept = (
                call["attention_mask"].bool()
                if zoo.is_decoder(model)
                else torch.ones(found.shape[:2], dtype=torch.bool)
            )
            assert (found - right)[kept].norm() <= 0.03 * right[kept].norm(), tuple(call[key].shape)
    assert compiler.blocks


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bart", "marian", "t5", "gpt2"])
def test_tied_tables_are_one_in_memory_and_on_disk(name: str, tmp_path: Path) -> None:
    model = int8(name, "dynamic", fuse=False)
    shape = (zoo.VOCABULARY, 64)
    stored = read_headers(weight_files(OptimizedModel.save_pretrained(model, tmp_path / name)))
    assert len([key for key, info in stored.items() if tuple(info.shape) == (*shape, 1)]) == 1
    for made in (model, OptimizedModel.from_pretrained(tmp_path / name)):
        tables = {
            m.weight.data_ptr()
            for m in made.modules()
            if isinstance(m, Int8Embedding) and tuple(m.weight.shape) == shape
        }
        assert tables == {made.lm_head.weight.data_ptr()}
        assert torch.equal(generate(made, **SEARCHES["beam"]), generate(model, **SEARCHES["beam"]))


def test_a_scaled_table_keeps_its_class_and_its_forward() -> None:
    """BART multiplies word vectors by a factor and shifts positions by two, in forwards of their own."""
    model = zoo.make("bart")
    made = quantize(model, Int8Config(fuse=False), progress=False)
    tokens = torch.tensor([[5, 6, 7]])
    for name in ("model.decoder.embed_tokens", "model.decoder.embed_positions"):
        table, exact = made.get_submodule(name), model.get_submodule(name)
        assert isinstance(table, type(exact)) and isinstance(table, Int8Embedding)
        with torch.no_grad():
            expected = exact(tokens)
        torch.testing.assert_close(table(tokens), expected, rtol=0, atol=float(expected.abs().max()) / 127)
        for twin in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
            assert type(twin) is type(table) and torch.equal(twin(tokens), table(tokens))
    assert made.model.decoder.embed_tokens.embed_scale == 8.0
