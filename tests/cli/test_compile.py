"""`optimum-int8 compile`: an older folder gets captured graphs, and a loaded model then captures nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from optimum_int8 import Int8Config, OptimizedModel, quantize
from optimum_int8.cli import main
from optimum_int8.hub.programs import PROGRAMS_NAME
from tests.hub.test_programs import MODELS, results, same


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_compile(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data, run = MODELS[name]()
    folder = tmp_path / "model"
    OptimizedModel.save_pretrained(quantize(model, Int8Config(approach="static"), data, progress=False), folder)
    expected = results(run, OptimizedModel.from_pretrained(folder))
    assert not (folder / PROGRAMS_NAME).exists()
    assert main(["compile", str(folder), "--length", "8", "--json", str(tmp_path / "result.json")]) == 0
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["bytes"] == (folder / PROGRAMS_NAME).stat().st_size > 1000
    exports: list[Any] = []
    monkeypatch.setattr(torch.export, "export", lambda *args, **kwargs: exports.append(args))
    assert same(results(run, OptimizedModel.from_pretrained(folder)), expected)
    assert not exports


def test_what_cannot_be_compiled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(tmp_path / "missing")]) == 2
    assert "is no folder" in capsys.readouterr().err
    model, _, _ = MODELS["bert"]()
    model.save_pretrained(tmp_path / "float")
    assert main(["compile", str(tmp_path / "float")]) == 2
    assert "quantize it first" in capsys.readouterr().err
