"""Tokens per second: rows, engines, turns and tables, and the benchmark on tiny models."""

from __future__ import annotations

import ast
import copy
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import results
from benchmarks.generation import agreement, engines, measure, process, processor
from benchmarks.generation.engines import NAMES, find_engine, missing, version
from benchmarks.generation.models import WHISPER_PROMPT, Generated, Job, make, make_inputs, step_weights
from benchmarks.generation.rows import DEFAULT, MODELS, Row
from benchmarks.tables import make_table
from benchmarks.turns import EngineFailed

FOLDER = Path(engines.__file__).parent
HELPERS = {"__init__", "transformers_model", "ggml_decoder"}


def test_rows_are_read_as_they_are_written() -> None:
    rows = [row for rows in MODELS.values() for row in rows]
    assert [Row.parse(str(row)) for row in rows] == rows
    assert Row.parse("generate:8x4b5n96") == Row("generate", 8, 4, 5, 96)
    assert [Row.parse(text).tokens for text in ("prefill:2x512", "decode:8x32", "generate:8x32b4")] == [1024, 8, 256]
    for name in DEFAULT[:2]:
        assert {"decode:1x32", "decode:1x1024", "decode:8x1024", "prefill:1x512"} <= {str(row) for row in MODELS[name]}


@pytest.mark.parametrize(
    "text", ["", "1x8", "encode:1x8", "decode:0x8", "decode:1x8b0", "decode:1x8b4", "decode:1x8n1", "generate:1x8n4b2"]
)
def test_other_rows_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected|whole calls"):
        Row.parse(text)


def test_every_file_is_an_engine_and_is_listed() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {*NAMES, *HELPERS}


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_are_the_same_in_the_same_order(name: str) -> None:
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    expected = ["NAME", "TITLE", "REQUIRES", "BYTES_PER_WEIGHT", "load"]
    parts = []
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node]
        for target in targets:
            parts.append(getattr(target, "id", None) or getattr(target, "name", None) or _annotated(target))
    assert [part for part in parts if part in expected] == expected
    assert name == find_engine(name).NAME


def _annotated(node: Any) -> str | None:
    return node.target.id if isinstance(node, ast.AnnAssign) else None


def test_a_missing_peer_is_named_with_what_installs_it(tmp_path: Path) -> None:
    engine: Any = SimpleNamespace(REQUIRES=("no-such-peer", "torch", "other-peer"))
    assert missing(engine) == "not installed: pip install no-such-peer other-peer"
    folder = tmp_path / "no_such_peer-1.5.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: no-such-peer\nVersion: 1.5\n")
    assert missing(engine, [str(tmp_path)]) == "not installed: pip install other-peer"
    assert version("no-such-peer", [str(tmp_path)]) == "1.5"


class FakeEngine:
    """Takes 10 ms to the first token and 2 ms for each other one."""

    def __init__(self, tells: bool) -> None:
        self.tells = tells
        self.rows: list[Row] = []

    def run(self, row: Row) -> Generated:
        self.rows.append(row)
        tokens = [[0] * row.new for _ in range(row.batch)]
        return Generated(tokens, 10.0 + 2.0 * (row.new - 1), 10.0 if self.tells else None, "slowly")


@pytest.mark.parametrize("tells", [True, False])
def test_a_step_is_timed_without_its_prompt(tells: bool) -> None:
    engine = FakeEngine(tells)
    answer = process.call(engine, Row("decode", 2, 8))
    assert answer.ms == pytest.approx(2.0) and answer.remarks == "slowly"
    assert len(engine.rows) == (1 if tells else 2)
    assert process.call(engine, Row("generate", 2, 8)).ms == pytest.approx(10.0 + 2.0 * 31)


def test_an_engine_that_makes_fewer_tokens_is_refused() -> None:
    engine = FakeEngine(True)
    short = SimpleNamespace(run=lambda row: replace(engine.run(row), tokens=[[0] * (row.new - 1)]))
    with pytest.raises(EngineFailed, match=r"made \[31\] tokens instead of 32 for each of 1"):
        process.call(short, Row("generate", 1, 8))


@pytest.mark.parametrize(("shares", "expected"), [([0.0], 1.0), ([0.4, 0.2, 0.01], 3.0), ([0.4, 0.2, 0.3], 2.0)])
def test_a_disturbed_turn_is_made_again(shares: list[float], expected: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls take 1, 2, 3 ms; without a quiet one the least disturbed counts."""
    taken = iter(shares)

    class FakeWatch:
        def __enter__(self) -> FakeWatch:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def others(self, processor_s: float) -> float:
            return next(taken)

    times = iter([1.0, 2.0, 3.0])
    fake: Any = SimpleNamespace(call=lambda row: process.Answer([], next(times), 0.0, ""))
    clock = iter(range(10))
    monkeypatch.setattr(processor, "Watch", FakeWatch)
    monkeypatch.setattr(measure.time, "monotonic", lambda: float(next(clock)))
    calls = measure.Calls("fake", fake, Row("decode", 1, 8), patience=2.5)
    assert calls.turn() == expected
    assert calls.disturbed == [min(shares)]


def test_processor_time_of_others_is_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter([100.0, 103.0, 200.0, 201.0])
    monkeypatch.setattr(processor, "busy_seconds", lambda: next(used))
    clock = iter([0.0, 2.0, 10.0, 12.0])
    monkeypatch.setattr(processor.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(processor.os, "cpu_count", lambda: 2)
    with processor.Watch() as watch:
        pass
    assert watch.others(1.0) == pytest.approx(0.5, abs=0.02)  # 3 s of 4 were used, one of them by ours
    with processor.Watch() as watch:
        pass
    assert watch.others(1.0) == 0.0


def test_where_the_system_does_not_tell_nothing_is_disturbed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processor, "_SOURCE", tmp_path / "absent")
    assert processor.busy_seconds() is None
    with processor.Watch() as watch:
        pass
    assert watch.others(0.0) == 0.0
    monkeypatch.setattr(processor, "_SOURCE", tmp_path / "stat")
    (tmp_path / "stat").write_text("cpu  100 200 300 9999 9999 10 20 0 0 0\ncpu0 1 1 1 1 1 1 1\n")
    assert processor.busy_seconds() == pytest.approx(630 / processor.os.sysconf("SC_CLK_TCK"))


@pytest.mark.parametrize("name", ["tiny", "tiny-llama"])
def test_tokens_of_the_model_agree_and_others_do_not(name: str) -> None:
    model = make(name)
    row = agreement.CHECK
    ids = make_inputs(model.config, row.batch, row.context)["input_ids"]
    for _ in range(row.new):
        ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(2)], 1)
    chosen = ids[:, -row.new :].tolist()
    assert agreement.largest_gap(model, chosen) == 0.0
    chosen[1][3] = (chosen[1][3] + 1) % model.config.vocab_size
    assert agreement.largest_gap(model, chosen) > agreement.LIMIT


def test_weights_of_a_step_are_those_of_decoder_and_head() -> None:
    attention = 2 * 64 * 64 + 2 * 64 * 32  # two heads of keys and values for four of queries
    assert step_weights(make("tiny-llama")) == 2 * (attention + 3 * 64 * 128) + 500 * 64
    assert step_weights(make("tiny")) == 64 * 3 * 64 + 64 * 64 + 2 * 64 * 256 + 500 * 64


@pytest.mark.parametrize("name", MODELS)
def test_contexts_and_new_tokens_are_within_the_positions_of_the_model(name: str) -> None:
    config = Job(name, Path(), 1).config()
    limit = getattr(config, "max_target_positions", None) or getattr(config, "max_position_embeddings", None)
    for row in MODELS[name]:
        longest = max(row.context, row.new) if config.is_encoder_decoder else row.context + row.new
        assert limit is None or longest <= limit  # T5 has no limit


def test_whisper_begins_with_the_prompt_that_its_tokens_are_judged_after() -> None:
    with torch.device("meta"):
        settings = make("whisper-tiny").generation_config
    start = [settings.decoder_start_token_id, settings.lang_to_id[f"<|{settings.language}|>"]]
    assert (*start, settings.task_to_id[settings.task], settings.no_timestamps_token_id) == WHISPER_PROMPT


def test_words_are_as_many_as_tokens_and_special_ones_have_their_names() -> None:
    from benchmarks.generation.engines.ctranslate2_int8 import name_words

    words = name_words(make("tiny").config)
    assert len(words) == len(set(words)) == 500 and words[1] == "</s>"


@pytest.fixture
def generated(result: dict[str, Any]) -> dict[str, Any]:
    """A result with a row of each kind."""
    pair = {"first_ms": 4.0, "ms": 8.0, "ratio": 2.0, "ratio_quartiles": [1.9, 2.1], "rounds": 5, "best_ms": 7.0}
    row = {"shape": "decode:1x1024", "kind": "decode", "tokens": 1, "baseline_ms": 4.0, "disturbed": 0.25}
    told = {"openvino_int8": "nncf not installed"}
    rows = [
        row | {"engines": {"eager_fp32": pair | {"remarks": "without flash attention"}}, "left_out": told},
        row | {"shape": "generate:8x32b4n64", "kind": "generate", "tokens": 512, "left_out": {"eager_fp32": "has no beams"},
               "engines": {}},
    ]  # fmt: skip
    notes = copy.deepcopy(result["engines"])
    for note, width in zip(notes.values(), (1.0, 4.0, 1.0), strict=True):
        note["bytes_per_weight"] = width
    limits = {"step_weights": 40_000_000, "read_bytes": 20e9}
    settings = result["settings"] | {"disturbed": 0.25}
    return result | {"kind": "generation", "rows": rows, "engines": notes, "limits": limits, "settings": settings}


def test_the_table_has_rates_ratios_shares_and_remarks(generated: dict[str, Any], tmp_path: Path) -> None:
    text = make_table(results.load(results.save(generated, tmp_path / "one.json"))).markdown()
    # 40 MB in 4 ms are 10 of 20 GB/s; FP32 reads four times that in twice the time
    assert "| decode, batch 1, context 1024 | 250.0/s, 50% | 125.0/s (2.00x), 100% (a) |" in text
    assert "| generate, batch 8, context 32, 4 beams, 64 new tokens | 128000.0/s | - (b) |" in text
    assert "(a) without flash attention. (b) has no beams." in text
    assert "20.0 GB/s" in text and "up to 25% of the cores" in text
    assert "Left out: OpenVINO INT8 (nncf not installed)." in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["tiny", "tiny-llama"])
def test_a_result_with_every_engine(name: str, tmp_path: Path) -> None:
    options = measure.Options(1, 0.1, 0.0, cache=tmp_path)
    rows = [Row("prefill", 1, 8), Row("decode", 2, 8, longer=3), Row("generate", 1, 8, 2, 3)]
    result = measure.measure(name, options, rows)
    path = results.save(result, tmp_path / "generation.json")
    assert json.loads(path.read_text())["kind"] == "generation"
    assert [row["tokens"] for row in result["rows"]] == [8, 2, 3]
    assert result["limits"]["read_bytes"] > 1e8
    assert list(result["engines"]) == list(NAMES)
    for engine, note in result["engines"].items():
        if reason := missing(find_engine(engine)):
            assert note["status"] == "skipped" and note["reason"] == reason
    for row in result["rows"]:
        assert {"int8_static", "eager_fp32"} <= set(row["engines"])
    assert len(make_table(results.load(path)).rows) == 3


@pytest.mark.slow
def test_an_engine_that_cannot_do_it_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="KeyError: 'no-such-model'"):
        process.start("eager_fp32", "no-such-model", 1, None, tmp_path, [])
