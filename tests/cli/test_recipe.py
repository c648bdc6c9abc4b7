"""Recipes: every file under tasks/ names what exists, one runs on a tiny model, bad ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optimum_int8 import Int8Config
from optimum_int8.cli import main
from optimum_int8.cli.recipe import load_recipe
from optimum_int8.errors import ConfigError
from optimum_int8.evaluation.metrics import METRICS
from optimum_int8.quantizers import QUANTIZERS
from tests.quantizers.tiny import make_dataset, make_folder, make_model

RECIPES = sorted((Path(__file__).resolve().parents[2] / "tasks").rglob("*.toml"))

REFERENCE_TABLE = {
    ("text-classification", "albert-base-v2-sst2-static"),
    ("text-classification", "bart-large-mrpc-dynamic"),
    ("multiple-choice", "bert-base-swag-static"),
    ("text-classification", "bert-base-mrpc-dynamic"),
    ("text-classification", "bert-base-mrpc-qat"),
    ("text-classification", "bert-base-mrpc-static"),
    ("text-classification", "camembert-base-mrpc-dynamic"),
    ("token-classification", "distilbert-conll03-static"),
    ("text-classification", "distilbert-sst2-static"),
    ("text-classification", "electra-small-mrpc-static"),
    ("text-classification", "roberta-base-mrpc-static"),
    ("text-classification", "xlnet-base-mrpc-static"),
}

WAITING = {"summarization", "translation"}
"""Tasks that have recipes and may not have their quantizer yet."""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_names_what_exists(path: Path) -> None:
    values = load_recipe(path)
    assert values["task"] == path.parent.name
    assert values["task"] in {quantizer.task for quantizer in QUANTIZERS} | WAITING
    assert path.stem.endswith(values["recipe_config"].approach)
    assert values.get("metric", "accuracy") in METRICS
    assert 0 < values["max_relative_loss"] <= 0.01
    assert values["recipe_config"].approach == "dynamic" or values["calibration_samples"] >= 100


def test_every_row_of_the_reference_table_has_a_recipe() -> None:
    assert {(path.parent.name, path.stem) for path in RECIPES} >= REFERENCE_TABLE
    assert {path.parent.name for path in RECIPES} >= {
        quantizer.task for quantizer in QUANTIZERS if "image" not in quantizer.task and "object" not in quantizer.task
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    make_folder(folder / "model")
    (folder / "data").mkdir()
    for name, seed in (("train", 1), ("dev", 2)):
        rows = make_dataset(make_model(), 12, seed)
        lines = [f"{sentence}\t{label}\n" for sentence, label in zip(rows["sentence"], rows["label"], strict=True)]
        (folder / "data" / f"{name}.tsv").write_text("sentence\tlabel\n" + "".join(lines))
    return folder


@pytest.mark.slow
def test_run_one_on_local_folders(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = next(path for path in RECIPES if path.stem == "distilbert-sst2-static")
    result = tmp_path / "result.json"
    local = ["--model", str(inputs / "model"), "--dataset", str(inputs / "data"), "--output", str(tmp_path / "int8")]
    assert main(["quantize", str(recipe), *local, "--calibration-samples", "8", "--json", str(result)]) == 0
    values = json.loads(result.read_text())
    assert values["model"] == str(inputs / "model")
    assert values["config"] == Int8Config(approach="static").to_dict()
    assert values["evaluation"]["metric"] == "accuracy"
    assert values["within_budget"] is (values["evaluation"]["relative_loss"] <= 0.01)
    assert (tmp_path / "int8" / "model.safetensors").exists()
    assert "a relative loss of at most 1.0%" in capsys.readouterr().out


@pytest.mark.slow
def test_a_recipe_trains(inputs: Path, tmp_path: Path) -> None:
    """The recipe's pair of columns is overridden: the data here has single sentences."""
    recipe = next(path for path in RECIPES if path.stem == "bert-base-mrpc-qat")
    result = tmp_path / "result.json"
    local = ["--model", str(inputs / "model"), "--dataset", str(inputs / "data"), "--output", str(tmp_path / "int8")]
    training = ["--text-column", "sentence", "--train-samples", "8", "--train-batch-size", "4", "--epochs", "1"]
    assert main(["quantize", str(recipe), *local, *training, "--json", str(result)]) == 0
    values = json.loads(result.read_text())
    assert values["config"] == Int8Config(approach="qat").to_dict()
    assert values["evaluation"]["metric"] == "f1"
    assert (tmp_path / "int8" / "model.safetensors").exists()
    assert not list(tmp_path.rglob("training_args.bin"))


@pytest.mark.slow
def test_what_the_user_gives_wins(inputs: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        f'task = "text-classification"\nmodel = "{inputs / "model"}"\n[dataset]\nname = "{inputs / "data"}"\n'
        'batch_size = 3\nsplit = "train"\n[quantization]\napproach = "dynamic"\n[evaluation]\nmetric = "f1"\n'
    )
    result = tmp_path / "result.json"
    arguments = ["--metric", "accuracy", "--approach", "static", "--output", str(tmp_path / "int8")]
    assert main(["quantize", str(recipe), *arguments, "--json", str(result)]) == 0
    values = json.loads(result.read_text())
    assert (values["config"]["approach"], values["evaluation"]["metric"]) == ("static", "accuracy")
    assert values["within_budget"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task = ", "cannot read the recipe"),
        ('task = "x"', "has no 'model'"),
        ('task = "x"\nmodel = "y"\n[dataset]\nnam = "z"\n[quantization]', r"has 'nam' in \[dataset\]; known are name"),
        ('task = "x"\nmodel = "y"\n[dataset]\n[quantization]\nbits = 4', "unknown setting 'bits'"),
        ('task = "x"\nmodel = "y"\n[dataset]\n[quantization]\n[travel]', "has 'travel', which is no part"),
        ('task = "x"\nmodel = "y"\n[dataset]\n[quantization]\n[training]\nfast = 1', r"has 'fast' in \[training\]"),
    ],
)
def test_bad_recipes(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_recipe(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["some-model"], "--output is missing"),
        (["some-model", "--model", "other", "--output", "x"], "is no recipe"),
        (["absent.toml"], "cannot read the recipe 'absent.toml'"),
    ],
)
def test_arguments_that_do_not_fit(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", *arguments]) == 2
    assert message in capsys.readouterr().err
