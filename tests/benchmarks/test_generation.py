"""Tokens per second: the benchmark on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from benchmarks import generation, results
from benchmarks.tables import make_table
from benchmarks.turns import EngineFailed

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    sizes = {"n_layer": 1, "n_embd": 64, "n_head": 2, "vocab_size": 500, "bos_token_id": 0, "eos_token_id": 1}
    config = transformers.GPT2Config(**sizes)
    monkeypatch.setitem(generation.MODELS, "tiny", lambda: transformers.GPT2LMHeadModel(config))
    monkeypatch.setattr(generation, "NEW", 3)
    monkeypatch.setattr(generation, "BATCHES", (1, 2))
    return "tiny"


def test_a_result_with_every_engine(tiny: str, tmp_path: Path) -> None:
    result = generation.measure(tiny, torch.get_num_threads(), 0.1)
    path = results.save(result, tmp_path / "generation.json")
    assert json.loads(path.read_text())["kind"] == "generation"
    assert [row["tokens"] for row in result["rows"]] == [3, 6]
    for row in result["rows"]:
        assert {"int8_dynamic", "eager_fp32"} <= set(row["engines"])
    assert set(result["engines"]) == set(generation.TITLES)
    table = make_table(results.load(path))
    assert table.columns == ["engine", "batch 1", "batch 2"] and len(table.rows) >= 3


def test_an_engine_that_makes_other_tokens_than_asked_for_fails(tiny: str) -> None:
    with pytest.raises(EngineFailed, match="instead of 3"):
        generation.Generation(lambda ids: [[1, 2]], torch.zeros(1, 4)).turn()
