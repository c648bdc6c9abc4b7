"""The sensitivity report: a picture, and a page that is complete in itself and safe to open."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from optimum_int8 import ConfigError, Int8Config
from optimum_int8.quantization import prepare_copy
from optimum_int8.tuning import Sensitivity, measure_sensitivity, tune
from optimum_int8.tuning.page import render_page, save_report
from tests.tuning.helpers import DATA, OUTPUT, fidelity, hostile


def measured(**settings: Any) -> list[Sensitivity]:
    prepared = prepare_copy(hostile(), Int8Config(approach="static", **settings), DATA, progress=False)
    return measure_sensitivity(prepared, DATA, distributions=True, progress=False)


@pytest.mark.slow
def test_page_and_picture(tmp_path: Path) -> None:
    rows = measured(observer="percentile", percentile=99.0)
    files = save_report(rows, tmp_path / "report", "What <b>costs</b>")
    assert [file.name for file in files] == ["sensitivity.html", "sensitivity.png"]
    image = Image.open(io.BytesIO(files[1].read_bytes()))
    assert image.format == "PNG" and image.width > 1000 and image.height > 800
    page = files[0].read_text()
    assert "What &lt;b&gt;costs&lt;/b&gt;" in page and "<b>" not in page
    assert "data:image/png;base64," in page and "http" not in page
    assert all(row.name in page for row in rows)
    assert "clipped" in page and any(d.clipped() > 0 for row in rows for d in (row.distributions or {}).values())


@pytest.mark.slow
def test_tells_what_stayed_fp32() -> None:
    model = hostile()
    config = Int8Config(approach="static", accuracy_budget=0.04, fuse=False)
    result = tune(model, config, DATA, fidelity(model), remedies=(), progress=False)
    page, _ = render_page(result.sensitivity, "Budget", result.report)
    assert "left in FP32" in page and "is kept" in page and OUTPUT in page


@pytest.mark.slow
def test_dynamic_sites_have_no_range() -> None:
    prepared = prepare_copy(hostile(), Int8Config(), None, progress=False)
    page, _ = render_page(measure_sensitivity(prepared, DATA, distributions=True, progress=False), "Dynamic")
    assert "per row" in page


def test_without_matplotlib_or_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no site"):
        render_page([], "Empty")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"optimum-int8\[report\]"):
        render_page([Sensitivity("a", "linear", 0.1, 0.1, 1.0)], "None")
