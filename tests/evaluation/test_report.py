"""The report: its exact JSON, its ratios, its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from optimum_int8.errors import DataError
from optimum_int8.evaluation import EvaluationReport, PairedLatency
from optimum_int8.evaluation.report import relative_loss


def report(**changes: Any) -> EvaluationReport:
    values: dict[str, Any] = {
        "metric": "accuracy",
        "values": {"fp32": 0.8, "int8": 0.78},
        "sizes": {"fp32": 400_000_000, "int8": 100_000_000},
        "latencies": {"fp32": 50.0, "int8": 8.0},
        "machine": {"cpu": "Some CPU", "isa_used": "avx2", "threads": 2},
    }
    return EvaluationReport.build(**{**values, **changes})


def test_dict_is_exact() -> None:
    assert report().to_dict() == {
        "metric": "accuracy",
        "fp32": {"value": 0.8, "size_mb": 400.0, "latency_ms": 50.0},
        "int8": {"value": 0.78, "size_mb": 100.0, "latency_ms": 8.0},
        "relative_loss": pytest.approx(0.025),
        "compression_ratio": 4.0,
        "speedup": 6.25,
        "machine": {"cpu": "Some CPU", "isa_used": "avx2", "threads": 2},
    }


def test_round_trip(tmp_path: Path) -> None:
    original = report()
    assert EvaluationReport.from_dict(json.loads(json.dumps(original.to_dict()))) == original
    original.save(tmp_path / "report.json")
    assert EvaluationReport.load(tmp_path / "report.json") == original


@pytest.mark.parametrize("key", ["metric", "fp32", "int8", "relative_loss", "machine"])
def test_a_missing_key_is_an_error(key: str) -> None:
    values = report().to_dict()
    del values[key]
    with pytest.raises(DataError, match=key):
        EvaluationReport.from_dict(values)


def test_no_report_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the report"):
        EvaluationReport.load(tmp_path / "absent.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match="not an evaluation report"):
        EvaluationReport.load(tmp_path / "list.json")


@pytest.mark.parametrize(
    ("fp32", "int8", "greater_is_better", "loss"),
    [
        (0.8, 0.6, True, 0.25),
        (0.8, 1.0, True, -0.25),
        (-0.5, -0.6, True, 0.2),  # a correlation can be negative; lower is still a loss
        (20.0, 25.0, False, 0.25),  # perplexity
        (0.0, 0.0, True, 0.0),
        (0.0, 0.1, True, None),
    ],
)
def test_relative_loss(fp32: float, int8: float, greater_is_better: bool, loss: float | None) -> None:
    found = relative_loss(fp32, int8, greater_is_better)
    assert found == (None if loss is None else pytest.approx(loss))


def shown(table: Any) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_table_says_what_was_measured() -> None:
    text = shown(report().table())
    for part in ("accuracy", "0.8000", "0.7800", "2.50% worse", "400.00 MB", "4.00x smaller", "6.25x faster"):
        assert part in text
    assert "Some CPU, avx2, 2 threads" in text


def test_table_of_a_slower_better_model() -> None:
    text = shown(report(values={"fp32": 0.8, "int8": 0.9}, latencies={"fp32": 10.0, "int8": 20.0}).table())
    assert "12.50% better" in text
    assert "2.00x slower" in text
    assert "undefined" in shown(report(values={"fp32": 0.0, "int8": 0.9}).table())


STEADY = PairedLatency({"fp32": [48.0, 50.0, 52.0], "int8": [8.0, 8.0, 8.0]}, load=0.4)
BUSY = PairedLatency({"fp32": [23.0, 202.0, 330.0], "int8": [8.0, 8.0, 8.0]}, load=6.2)


def test_the_spread_is_shown_and_kept(tmp_path: Path) -> None:
    made = report(latencies=STEADY)
    assert made.speedup == 6.25
    text = shown(made.table())
    for part in ("6.25x faster", "49.00 to 51.00 ms", "8.00 to 8.00 ms", "6.12 to 6.38", "load average 0.4"):
        assert part in text
    assert "not measurable" not in text
    assert made.to_dict()["spread"] == {
        "fp32_ms": [49.0, 51.0], "int8_ms": [8.0, 8.0], "speedup": [6.125, 6.375], "load": 0.4
    }  # fmt: skip
    made.save(tmp_path / "report.json")
    assert EvaluationReport.load(tmp_path / "report.json") == made


def test_a_speedup_that_was_not_measurable_is_not_printed(tmp_path: Path) -> None:
    made = report(latencies=BUSY, machine={"cpu": "Some CPU", "cores": 2})
    assert made.speedup is None and made.to_dict()["speedup"] is None
    text = " ".join(shown(made.table()).split())
    assert "25.25x" not in text and "x faster" not in text
    for part in (
        "not measurable",
        "14.06x to 33.25x",
        "stop other programs (load average 6.2 on 2 cores) or time more rounds",
    ):
        assert part in text
    made.save(tmp_path / "report.json")
    assert EvaluationReport.load(tmp_path / "report.json").speedup is None


@pytest.mark.parametrize("spread", [{}, {"fp32_ms": [1, 2]}, {"fp32_ms": 1, "int8_ms": 1, "speedup": 1, "load": None}])
def test_a_damaged_spread_is_an_error(spread: dict[str, Any]) -> None:
    values = {**report().to_dict(), "spread": {"speedup": [1.0], **spread}}
    with pytest.raises(DataError, match="not an evaluation report"):
        EvaluationReport.from_dict(values)
