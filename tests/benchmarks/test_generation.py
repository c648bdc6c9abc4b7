"""Tokens per second: the benchmark on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import generation, results
from benchmarks.tables import make_table
from benchmarks.turns import EngineFailed

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_a_result_with_every_engine(tmp_path: Path) -> None:
    result = generation.measure("tiny", 1, 0.1, batches=(1, 2), new=3)
    path = results.save(result, tmp_path / "generation.json")
    assert json.loads(path.read_text())["kind"] == "generation"
    assert [row["tokens"] for row in result["rows"]] == [3, 6]
    for row in result["rows"]:
        assert {"int8_dynamic", "eager_fp32"} <= set(row["engines"])
    assert set(result["engines"]) == set(generation.TITLES)
    table = make_table(results.load(path))
    assert table.columns == ["engine", "batch 1", "batch 2"] and len(table.rows) >= 3


def test_an_engine_that_cannot_do_it_says_why() -> None:
    with pytest.raises(EngineFailed, match="KeyError: 'no-such-model'"):
        generation.Engine("eager_fp32", "no-such-model", 1, 3)
