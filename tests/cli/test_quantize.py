"""`optimum-int8 quantize` and `evaluate`, from files to a checkpoint and a report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optimum_int8 import Int8Config
from optimum_int8.cli import main
from optimum_int8.hub import OptimizedModel
from tests.quantizers.tiny import make_dataset, make_folder, make_model, make_sentences


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model`, and `data` with a train and a dev file."""
    folder = tmp_path_factory.mktemp("inputs")
    make_folder(folder / "model")
    (folder / "data").mkdir()
    for name, number, seed in (("train", 30, 1), ("dev", 20, 2)):
        rows = make_dataset(make_model(), number, seed)
        text = "".join(
            f"{sentence}\t{label}\n" for sentence, label in zip(rows["sentence"], rows["label"], strict=True)
        )
        (folder / "data" / f"{name}.tsv").write_text("sentence\tlabel\n" + text)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_quantize_then_evaluate(
    approach: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, first, second = tmp_path / "int8", tmp_path / "quantize.json", tmp_path / "evaluate.json"
    data = str(inputs / "data")
    arguments = ["--approach", approach, "--dataset", data, "--calibration-samples", "16", "--output", str(output)]
    assert main(["quantize", str(inputs / "model"), *arguments, "--evaluate", "--json", str(first)]) == 0
    text = capsys.readouterr().out
    for part in (f"INT8, {approach}", "in INT8", "smaller", "FP32 versus INT8", "accuracy", "The INT8 model is in"):
        assert part in text
    values = json.loads(first.read_text())
    assert values["config"]["approach"] == approach
    assert values["modules"]["linear"] > 0
    assert values["evaluation"]["fp32"]["value"] == 1.0
    assert values["evaluation"]["compression_ratio"] == values["compression_ratio"] > 1

    arguments = ["--baseline", str(inputs / "model"), "--dataset", data]
    assert main(["evaluate", str(output), *arguments, "--json", str(second)]) == 0
    report = json.loads(second.read_text())
    assert set(report) == {
        "metric", "fp32", "int8", "relative_loss", "compression_ratio", "speedup", "machine", "spread"
    }  # fmt: skip
    assert report["int8"]["value"] == values["evaluation"]["int8"]["value"]
    assert report["int8"]["size_mb"] == values["evaluation"]["int8"]["size_mb"]
    assert "FP32 versus INT8" in capsys.readouterr().out


@pytest.mark.slow
def test_config_file_and_fewer_samples(inputs: Path, tmp_path: Path) -> None:
    Int8Config(approach="static", exclude=("classifier",)).save(tmp_path / "config.json")
    arguments = ["--config", str(tmp_path / "config.json"), "--dataset", str(inputs / "data" / "train.tsv")]
    output = tmp_path / "int8"
    assert main(["quantize", str(inputs / "model"), *arguments, "--output", str(output)]) == 0
    metadata = OptimizedModel.from_pretrained(output).config.quantization_config.to_dict()
    assert metadata["config"]["approach"] == "static"
    assert "classifier" in metadata["fp32"]
    # --approach wins over the file, and the rest of the file stays.
    assert main(["quantize", str(inputs / "model"), *arguments, "--approach", "dynamic", "--output", str(output)]) == 0
    metadata = OptimizedModel.from_pretrained(output).config.quantization_config.to_dict()
    assert metadata["config"]["approach"] == "dynamic"
    assert metadata["config"]["exclude"] == ["classifier"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--approach", "static"], "--approach static needs --dataset"),
        (["--approach", "qat"], "--approach qat needs --dataset to train on"),
        (["--approach", "qat", "--dataset", "DATA", "--distillation-weight", "2"], "distillation_weight is 2"),
        (["--evaluate"], "--evaluate needs --evaluation-dataset"),
        (["--approach", "static", "--dataset", "DATA", "--calibration-split", "test"], "no split 'test'"),
        (["--approach", "static", "--dataset", "DATA", "--text-column", "text"], "no text column 'text'"),
        (["--dataset", "DATA", "--evaluate", "--label-column", "mood"], "no label column 'mood'"),
        (["--dataset", "DATA", "--evaluate", "--metric", "beauty"], "unknown metric 'beauty'"),
        (["--approach", "static", "--dataset", "absent.tsv"], "no such file or folder: 'absent.tsv'"),
        (["--config", "absent.json"], "cannot read the INT8 configuration"),
        (["--task", "poetry"], "unknown task 'poetry'"),
    ],
)
def test_bad_input_leaves_nothing(
    arguments: list[str], message: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(inputs / "data") if word == "DATA" else word for word in arguments]
    assert main(["quantize", str(inputs / "model"), *arguments, "--output", str(tmp_path / "int8")]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert list(tmp_path.iterdir()) == []


def test_output_is_a_file(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("precious")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(["quantize", str(inputs / "model"), "--output", str(output)]) == 2
        assert "error: " in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "precious"


def test_evaluate_refuses_an_fp32_model(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = str(inputs / "model"), str(inputs / "data")
    assert main(["evaluate", model, "--baseline", model, "--dataset", data]) == 2
    assert "is not an INT8 model" in capsys.readouterr().err


@pytest.mark.slow
def test_samples(inputs: Path, tmp_path: Path) -> None:
    """Of three examples, two with a wrong label: accuracy says how many were used."""
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\n" + "".join(f"{s}\t0\n" for s in make_sentences(9)))
    values = []
    for samples in ("1", "9"):
        arguments = ["--evaluate", "--dataset", str(tmp_path / "dev.tsv"), "--samples", samples]
        arguments += ["--json", str(tmp_path / "q.json"), "--output", str(tmp_path / "int8")]
        assert main(["quantize", str(inputs / "model"), *arguments]) == 0
        values.append(json.loads((tmp_path / "q.json").read_text())["evaluation"]["fp32"]["value"])
    labels = make_dataset(make_model(), 9)["label"][:]
    assert values == [float(labels[0] == 0), pytest.approx(labels.count(0) / 9)]
