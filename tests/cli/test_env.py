"""`optimum-int8 env`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from optimum_int8 import kernels
from optimum_int8.cli import main
from optimum_int8.errors import ConfigError


def test_env(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--json", str(tmp_path / "env.json")]) == 0
    values = json.loads((tmp_path / "env.json").read_text())
    text = capsys.readouterr().out
    assert values["machine"]["torch"] == torch.__version__
    assert values["library"] == kernels.info()["library"]
    for part in ("ISA found", "ISA used", values["machine"]["isa_used"], "threads", torch.__version__, "safetensors"):
        assert part in text


def test_says_why_something_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    info = {"isa_found": [], "isa_used": "python", "library": False, "reason": "no C++ compiler at installation"}
    monkeypatch.setattr(kernels, "info", lambda: info)
    monkeypatch.setenv("OPTIMUM_INT8_ISA", "portable")
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    assert "missing; computing with the PyTorch definition" in text
    assert "no C++ compiler at installation" in text
    assert "OPTIMUM_INT8_ISA" in text


def test_an_unknown_isa(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> Any:
        raise ConfigError("OPTIMUM_INT8_ISA is 'neon'; expected one of amx, avx512_vnni, avx2, portable")

    monkeypatch.setattr(kernels, "info", refuse)
    assert main(["env"]) == 2
    assert capsys.readouterr().err.startswith("error: OPTIMUM_INT8_ISA is 'neon'; expected")


def test_threads(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        assert main(["env", "--threads", "1", "--json", str(tmp_path / "env.json")]) == 0
    finally:
        torch.set_num_threads(before)
    assert json.loads((tmp_path / "env.json").read_text())["machine"]["threads"] == 1
