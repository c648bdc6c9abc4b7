"""The quickstart's sentences, its classifier and its program."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from optimum_int8.errors import ConfigError
from optimum_int8.evaluation import EvaluationReport, Measurement
from optimum_int8.evaluation.benchmark import BenchmarkReport
from optimum_int8.evaluation.latency import Quartiles
from optimum_int8.evaluation.report import Spread

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "quickstart"
RESULT = json.loads((EXAMPLE / "model" / "result.json").read_text(encoding="utf-8"))


def load_module(path: Path) -> ModuleType:
    """A program outside the package as a module; its siblings can be imported by it."""
    spec = importlib.util.spec_from_file_location(f"quickstart_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    return load_module(EXAMPLE / "make_model.py")


@pytest.fixture(scope="module")
def quickstart() -> ModuleType:
    return load_module(ROOT / "scripts" / "quickstart.py")


def normal(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


@pytest.mark.parametrize(("split", "rows"), [("train", 368), ("validation", 272)])
def test_splits_are_balanced_and_of_the_promised_size(maker: ModuleType, split: str, rows: int) -> None:
    labels = [label for _, label in maker.read_rows(split)]
    assert len(labels) == rows
    assert labels.count(0) == labels.count(1) == rows // 2


def test_no_sentence_stands_twice_or_in_both_splits(maker: ModuleType) -> None:
    texts = [normal(text) for split in ("train", "validation") for text, _ in maker.read_rows(split)]
    assert all(texts)
    assert len(set(texts)) == len(texts)


@pytest.mark.slow
def test_training_text_holds_no_validation_sentence(maker: ModuleType) -> None:
    training = {normal(text) for lesson in maker.lessons() for text, _ in lesson}
    assert normal(maker.read_rows("train")[0][0]) in training  # the comparison can find something
    assert not training & {normal(text) for text, _ in maker.read_rows("validation")}


def test_the_grammar_is_reproducible_and_balanced(maker: ModuleType) -> None:
    pairs = maker.generate(200, 7)
    assert pairs == maker.generate(200, 7)
    assert pairs != maker.generate(200, 8)
    assert sum(label for _, label in pairs) == 100


def test_the_model_is_small_and_loads_as_fp32(maker: ModuleType) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(EXAMPLE / "model")
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLE / "model")
    assert model.dtype == torch.float32
    assert model.config.id2label == {0: "NEGATIVE", 1: "POSITIVE"}
    assert model.config.dim // model.config.n_heads == 32
    assert len(tokenizer) == model.config.vocab_size == RESULT["vocabulary"] <= 4000
    assert set(tokenizer("Good.")) == {"input_ids", "attention_mask"}
    assert (EXAMPLE / "model" / "model.safetensors").stat().st_size < 3_000_000


@pytest.mark.slow
def test_recorded_accuracy_is_that_of_the_saved_model(maker: ModuleType) -> None:
    found = maker.measure(EXAMPLE / "model")
    assert found["validation_rows"] == RESULT["validation_rows"] == 272
    # One sentence of leeway: another machine may add float32 numbers in another order.
    assert found["value"] == pytest.approx(RESULT["value"], abs=1 / 272 + 1e-6)
    assert RESULT["value"] > 0.7  # far from the 0.5 of guessing, or a comparison with INT8 would mean nothing


def test_readme_quotes_the_recorded_result() -> None:
    readme = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    assert f"{RESULT['value']:.2%}" in readme
    assert f"{RESULT['parameters']:,}" in readme


@pytest.mark.parametrize("arguments", [["--model", "x"], ["--dataset", "x"], ["--json", "no/such/folder/x.json"]])
def test_arguments_that_cannot_work_are_refused_at_once(quickstart: ModuleType, arguments: list[str]) -> None:
    with pytest.raises(ConfigError):
        quickstart.parse_arguments(arguments)


def test_errors_are_one_line_and_an_exit_code(quickstart: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert quickstart.main(["--model", "x"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


def test_one_table_shows_both_parts(quickstart: ModuleType) -> None:
    machine = {"cpu": "a cpu", "isa_used": "amx", "threads": 2}
    fp32, int8 = Measurement(0.9, 4.0, 6.0), Measurement(0.891, 1.0, 2.0)
    reports = {"static": EvaluationReport("accuracy", fp32, int8, 0.01, machine)}
    latency = {"fp32": 60.0, "int8_static": 10.0}
    speed = BenchmarkReport(
        {},
        [{"batch": 1, "sequence": 128, "latency_ms": latency, "speedup": {"fp32": 1.0, "int8_static": 6.0}}],
        machine,
    )
    console = quickstart.Console(width=140, record=True, file=io.StringIO())
    console.print(quickstart.summary_table(reports, speed))
    text = console.export_text()
    for cell in ("accuracy", "0.8910", "-1.00%", "1/4.00", "3.00x", "bert-base, 1 x 128", "10.00 ms", "6.00x"):
        assert cell in text


def test_what_was_not_measurable_is_not_in_the_table(quickstart: ModuleType) -> None:
    machine = {"cpu": "a cpu", "isa_used": "amx", "threads": 2}
    spread = Spread(Quartiles(6, 6), Quartiles(0.2, 2), Quartiles(3, 30))
    report = EvaluationReport("accuracy", Measurement(0.9, 4.0, 6.0), Measurement(0.9, 1.0, 0.25), 0.0, machine, spread)
    latency = {"fp32": 60.0, "int8_static": 2.5}
    row = {"batch": 1, "sequence": 128, "latency_ms": latency, "speedup": {"fp32": 1.0, "int8_static": None}}
    console = quickstart.Console(width=140, record=True, file=io.StringIO())
    console.print(quickstart.summary_table({"static": report}, BenchmarkReport({}, [row], machine)))
    text = console.export_text()
    assert text.count("not measurable") == 2 and "24.00x" not in text


@pytest.mark.slow
def test_both_approaches_keep_the_accuracy(quickstart: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("optimum_int8.quantization")
    result_file = tmp_path / "result.json"
    assert quickstart.main(["--no-speed", "--rounds", "3", "--output", str(tmp_path), "--json", str(result_file)]) == 0
    result = json.loads(result_file.read_text(encoding="utf-8"))
    assert set(result["classifier"]) == {"static", "dynamic"}
    assert result["speed"] is None
    for approach, report in result["classifier"].items():
        assert report["relative_loss"] <= 0.01, approach
        assert report["compression_ratio"] > 3, approach
        assert (tmp_path / f"int8-{approach}" / "model.safetensors").exists()
