"""Every recipe of tasks/ runs by the command, on a small model of its architecture and local data in its dataset's columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optimum_int8 import OptimizedModel, restore
from optimum_int8.cli import main
from optimum_int8.cli.recipe import load_recipe

from .reference import MODELS, save_data, save_model

RECIPES = sorted((Path(__file__).resolve().parents[2] / "tasks").rglob("*.toml"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Capturing a block takes seconds and belongs to other tests; without it the results are the same.
    monkeypatch.setattr(restore, "install", lambda model, residuals: model)
    recipe = load_recipe(path)
    save_model(path.stem, tmp_path / "model")
    save_data(recipe["dataset"], recipe.get("dataset_config"), tmp_path / "data")
    places = {"--model": "model", "--dataset": "data", "--output": "int8", "--json": "result.json"}
    local = [part for option, name in places.items() for part in (option, str(tmp_path / name))]
    assert main(["quantize", str(path), *local]) == 0, capsys.readouterr().err

    result = json.loads((tmp_path / "result.json").read_text())
    assert result["config"]["approach"] == recipe["recipe_config"].approach
    assert result["modules"]["linear"] >= 2 and result["compression_ratio"] > 1.2
    found = result["evaluation"]
    assert found["fp32"]["value"] is not None and found["int8"]["value"] is not None
    assert recipe.get("metric") in (None, found["metric"])
    assert result["within_budget"] in (None, True, False)
    assert type(OptimizedModel.from_pretrained(tmp_path / "int8")).__name__.endswith(MODELS[path.stem][1])


def test_every_recipe_has_its_model() -> None:
    assert {path.stem for path in RECIPES} == set(MODELS)
