"""The code of docs/decoding.md runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "decoding.md"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    exec(compile(code, str(PAGE), "exec"), {})
    length, size = map(int, capsys.readouterr().out.split())
    assert length == 23 and size > 0
