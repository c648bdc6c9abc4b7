"""The progress bar: silent on short work, all items handed on."""

from __future__ import annotations

import pytest

from optimum_int8.evaluation import progress
from optimum_int8.evaluation.progress import progress_bar


def test_short_work_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress_bar(range(5), "short")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == ""


def test_long_work_shows_a_bar_on_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0.0)
    assert list(progress_bar(range(3), "long work")) == [0, 1, 2]
    captured = capsys.readouterr()
    assert "long work" in captured.err
    assert captured.out == ""
