"""The suite as a whole, in processes, on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import pool
from benchmarks.__main__ import main
from benchmarks.engines import cache_folder, find_engine
from benchmarks.models import CHECK, find_model, reference
from benchmarks.results import load
from benchmarks.roofline import floor, measure_ceilings
from benchmarks.shapes import Shape
from benchmarks.tables import make_table
from benchmarks.worker import Server, WorkerSpec
from optimum_int8 import kernels
from optimum_int8.evaluation.architectures import random_model


class Here(pool.Worker):
    """An engine in this process, for tests of what is done with its answers: another process takes seconds to import all it needs."""

    def __init__(self, engine: str, model: str, threads: int, *, cache: Path, **options: Any) -> None:
        self.engine, self.model, self.threads = engine, model, threads
        folder = str(cache_folder(cache, find_engine(engine), model))
        self.server = Server(WorkerSpec(engine, model, folder, threads))

    def send(self, name: str, *arguments: Any) -> None:
        self.answer = getattr(self.server, name)(*arguments)

    def receive(self, seconds: float = 0.0) -> Any:
        return self.answer

    def stop(self) -> None:
        pass

    def close(self, patience: float = 0.0) -> None:
        pass


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.setattr(pool, "Worker", Here)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))


@pytest.mark.slow
def test_a_run_writes_a_valid_result_and_skips_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(find_engine("openvino_int8"), "REQUIRES", ("no-such-distribution",))
    arguments = [
        "latency",
        "--models",
        "tiny",
        "--shapes",
        "1x8,4x9-32",
        "--engines",
        "eager_fp32,openvino_int8",
        "--threads",
        "1",
    ]
    assert main([*arguments, "--seconds", "0.1", "--output", str(tmp_path), "--json", str(tmp_path / "all.json")]) == 0
    isa = kernels.info()["isa_used"]
    result = load(tmp_path / f"latency-tiny-1t-{isa}.json")
    assert [row["shape"] for row in result["rows"]] == ["1x8", "4x9-32"]
    for row in result["rows"]:
        assert row["baseline_ms"] > 0 and row["engines"]["eager_fp32"]["rounds"] >= 3
        assert list(row["engines"]) == ["eager_fp32"]
    assert result["engines"]["int8_static"]["relative_error"] > 0
    assert "no-such-distribution not installed" in result["engines"]["openvino_int8"]["reason"]
    assert result["machine"]["threads"] == 1
    assert json.loads((tmp_path / "all.json").read_text())[0]["kind"] == "latency"
    assert "Left out: OpenVINO INT8" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_cost_per_token_by_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.commands.latency.LENGTHS", (1, 2, 7, 16, 17, 64, 512))
    arguments = ["--lengths", "--models", "tiny", "--engines", "eager_fp32", "--threads", "1", "--seconds", "0.1"]
    assert main(["latency", *arguments, "--output", str(tmp_path)]) == 0
    result = load(tmp_path / f"lengths-tiny-1t-{kernels.info()['isa_used']}.json")
    assert [row["tokens"] for row in result["rows"]] == [1, 2, 7, 16, 17, 64]  # the model's positions end at 64
    assert set(result["cliffs"]) == {"int8_static", "eager_fp32"}
    table = make_table(result)
    assert table.columns == ["tokens", "optimum_int8 static", "per token", "eager FP32", "per token"]
    row = result["rows"][-1]
    assert table.rows[-1][2] == f"{row['baseline_ms'] / 64:.3f}"
    assert table.rows[-1][4] == f"{row['engines']['eager_fp32']['ms'] / 64:.3f}"


@pytest.mark.usefixtures("in_this_process")
def test_an_engine_that_computes_something_else_is_skipped(tmp_path: Path) -> None:
    output, mask = reference(random_model(find_model("tiny")), CHECK)
    workers, notes = pool.start_engines(["eager_fp32"], "tiny", 1, (output, mask), cache=tmp_path)
    assert list(workers) == ["eager_fp32"] and notes["eager_fp32"]["status"] == "ok"
    workers, notes = pool.start_engines(["eager_fp32"], "tiny", 1, (output * 2, mask), cache=tmp_path)
    assert not workers and "output is off: relative error 0.5" in notes["eager_fp32"]["reason"]


@pytest.mark.slow
def test_an_engine_that_fails_is_skipped(tmp_path: Path) -> None:
    """The reason comes from its process."""
    expected = reference(random_model(find_model("tiny")), CHECK)
    workers, notes = pool.start_engines(["eager_fp32"], "no-such/model", 1, expected, cache=tmp_path)
    assert not workers and "no-such/model" in notes["eager_fp32"]["reason"]


@pytest.mark.slow
def test_a_process_that_dies_is_a_failed_engine(tmp_path: Path) -> None:
    worker = pool.Worker("eager_fp32", "tiny", 1, cache=tmp_path)
    worker._process.kill()
    with pytest.raises(pool.EngineFailed, match="ended|gone"):
        worker.ask("load")
    worker.close()


def test_ceilings_make_a_floor(tmp_path: Path) -> None:
    assert measure_ceilings("portable", 1, 1 << 20, tmp_path)["reason"]
    work = pool_work()
    ceilings = {"int8_ops": 1e9, "read_bytes": 1e9}
    short, long = floor(work, Shape(1, 1), ceilings), floor(work, Shape(8, 64), ceilings)
    assert short and long
    assert short["floor_ms"] == max(short["compute_ms"], short["memory_ms"]) < long["floor_ms"] == long["compute_ms"]
    assert floor(work, Shape(1, 1), {"reason": "none"}) is None


def pool_work():  # type: ignore[no-untyped-def]
    from benchmarks.models import Work

    return Work.of(random_model(find_model("tiny")))


@pytest.mark.slow
def test_ceilings_are_measured(tmp_path: Path) -> None:
    isa = str(kernels.info()["isa_used"])
    found = measure_ceilings(isa, 1, 1 << 20, tmp_path)
    if "reason" in found:
        pytest.skip(found["reason"])
    assert 1e9 < found["int8_ops"] < 1e14 and 1e8 < found["read_bytes"] < 1e13


@pytest.mark.parametrize("arguments", [["--engines", "none"], ["--shapes", "1"], ["--ragged", "--lengths"]])
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["latency", *arguments])
    assert stop.value.code == 2


def test_an_unknown_model_is_an_error_without_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["latency", "--models", "no-such/model"]) == 2
    assert "no-such/model" in capsys.readouterr().err
