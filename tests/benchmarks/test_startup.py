"""Cold processes: their stages, their sums, and texts finished by processor time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import startup
from benchmarks.__main__ import main
from benchmarks.encode_process import BATCH, LONGEST, SHORTEST, batches

TINY = startup.Case(
    "BertModel",
    {
        "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 64, "vocab_size": 1000,
    },
    "vector",
)  # fmt: skip


def test_texts_finished_at_a_moment() -> None:
    run = [(0.5, 32), (1.5, 64), (2.0, 96)]
    assert [startup.done(run, moment) for moment in (0.4, 0.5, 1.9, 2.0, 9.0)] == [0, 32, 64, 96, 96]


def test_batches_are_sorted_the_longest_first_and_padded_within() -> None:
    made = list(batches(70))
    assert [len(batch["input_ids"]) for batch in made] == [BATCH, BATCH, 70 - 2 * BATCH]
    lengths = [int(n) for batch in made for n in batch["attention_mask"].sum(1)]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] == LONGEST and lengths[-1] >= SHORTEST
    assert all(batch["input_ids"].shape == batch["attention_mask"].shape for batch in made)
    assert all(not (batch["input_ids"] * (1 - batch["attention_mask"])).any() for batch in made)


def test_sums_are_of_the_stages_before_the_second_call() -> None:
    stage = {"wall_s": 1.0, "processor_s": 2.0, "memory_mb": 3.0}
    runs = [
        {
            "stages": {
                "classes": dict.fromkeys(stage, 50.0),
                "import": stage,
                "load": stage,
                "first": stage,
                "second": dict.fromkeys(stage, 100.0),
            }
        }
    ] * 3
    row = startup.summarize(runs)
    assert row["wall_s"] == {"median": 3.0, "least": 3.0, "most": 3.0}
    assert row["memory_mb"]["median"] == 9.0 and row["second"]["wall_s"] == 100.0


@pytest.mark.slow
def test_stored_and_captured_agree_and_the_result_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(startup.CASES, "tiny", TINY)
    target = tmp_path / "result.json"
    arguments = ["startup", "--models", "tiny", "--rounds", "1", "--cache", str(tmp_path), "--json", str(target)]
    assert main(arguments) == 0
    rows = json.loads(target.read_text())["rows"]
    assert [row["engine"] for row in rows] == list(startup.ENGINES)
    assert all(row["processor_s"]["median"] > 0 for row in rows)
    assert (tmp_path / "tiny-static" / startup.STORED / startup.PROGRAMS).exists()
    assert not (tmp_path / "tiny-static" / startup.CAPTURED / startup.PROGRAMS).exists()
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


def test_an_unknown_model_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["startup", "--models", "nosuch"]) == 2
    assert "unknown model nosuch" in capsys.readouterr().err
