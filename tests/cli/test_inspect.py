"""`optimum-int8 inspect`, on an FP32 and on an INT8 folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from optimum_int8.cli import main
from tests.quantizers.tiny import make_folder


@pytest.mark.slow
def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, output, result = make_folder(tmp_path / "model"), tmp_path / "int8", tmp_path / "inspect.json"
    assert main(["inspect", str(model), "--json", str(result)]) == 0
    assert "This is an FP32 model" in capsys.readouterr().out
    before = json.loads(result.read_text())
    assert (before["model"], before["int8"]) == (str(model), False)

    assert main(["quantize", str(model), "--output", str(output)]) == 0
    capsys.readouterr()
    assert main(["inspect", str(output), "--json", str(result)]) == 0
    text = capsys.readouterr().out
    after = json.loads(result.read_text())
    assert after["int8"] is True
    assert "FP32 model" not in text
    assert {k: v for k, v in before.items() if k not in ("model", "int8")} == {
        k: v for k, v in after.items() if k not in ("model", "int8")
    }


@pytest.mark.slow
def test_every_linear_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "inspect.json"
    assert main(["inspect", str(make_folder(tmp_path / "model")), "--json", str(result)]) == 0
    text = capsys.readouterr().out
    for name in ("bert.embeddings", "bert.encoder", "bert.pooler", "classifier"):
        assert name in text
    report = json.loads(result.read_text())
    blocks = {block["path"]: block["gemms"] for block in report["blocks"]}
    assert blocks == {"bert.embeddings": 0, "bert.encoder": 2 * 6, "bert.pooler": 1}
    assert report["single"] == {"classifier": "Int8Linear"}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_folder_in_16_bits_shows_what_its_quantization_makes(tmp_path: Path, dtype: torch.dtype) -> None:
    folder, half, output = make_folder(tmp_path / "model"), tmp_path / "half", tmp_path / "int8"
    shutil.copytree(folder, half)
    AutoModelForSequenceClassification.from_pretrained(half).to(dtype).save_pretrained(half)
    assert main(["quantize", str(half), "--output", str(output)]) == 0
    shown = []
    for path in (half, output):
        assert main(["inspect", str(path), "--json", str(tmp_path / "inspect.json")]) == 0
        shown.append(json.loads((tmp_path / "inspect.json").read_text()))
    assert {**shown[0], "model": "", "int8": True} == {**shown[1], "model": ""}


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "absent")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
