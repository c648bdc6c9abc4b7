"""What an import brings: the package costs nothing until it is used, and still does to Transformers what it promises."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import optimum_int8
from optimum_int8 import hub, lazy

EXTRA = ("datasets", "evaluate", "sklearn", "scipy", "seqeval", "pandas", "pyarrow", "matplotlib")
HEAVY = (*EXTRA, "rich", "accelerate")
"""Import names of what only evaluation, tables or training need; the first ones may be missing."""

HIDE = f"import sys; sys.modules.update(dict.fromkeys({EXTRA!r}))"
"""Makes importing any of them fail, as if it were not installed."""


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded(code: str, names: tuple[str, ...]) -> list[str]:
    """Which of the modules `names` a fresh interpreter has imported after `code`."""
    return run(f"import sys\n{code}\nprint(*[name for name in {names!r} if name in sys.modules])").split()


def test_importing_the_package_imports_no_other() -> None:
    assert (
        loaded("import optimum_int8", ("torch", "transformers", "numpy", "huggingface_hub", "safetensors", *HEAVY))
        == []
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["quantize", "--help"], ["benchmark", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"from optimum_int8.cli import main\ntry:\n    main({arguments!r})\nexcept SystemExit:\n    print()"
    names = ("torch", "transformers", "numpy", "huggingface_hub", *HEAVY)
    assert run(f"import sys\n{code}\nprint([name for name in {names!r} if name in sys.modules])").endswith("[]")


@pytest.mark.slow
def test_importing_it_after_transformers_adds_nothing_heavy() -> None:
    ours = tuple(f"optimum_int8.{name}" for name in ("nn", "fx", "lowering", "passes", "deploy"))
    assert loaded("import torch, transformers, optimum_int8", (*HEAVY, *ours)) == []


@pytest.mark.slow
def test_loading_a_model_and_quantizing_take_no_datasets() -> None:
    code = (
        "import optimum_int8 as o\n"
        "names = [o.OptimizedModel, o.OptimizedModelForCausalLM, o.quantize, o.inspect, o.load, o.save, o.tune, o.calibrate,\n"
        "         o.TextClassificationQuantizer, o.ObjectDetectionQuantizer, o.TranslationQuantizer]"
    )
    assert loaded(code, ("datasets", "evaluate", "seqeval", "pandas", "pyarrow", "matplotlib")) == []


@pytest.mark.slow
@pytest.mark.parametrize("code", ["import torch, optimum_int8", "import optimum_int8, torch"])
def test_the_operators_are_there(code: str) -> None:
    assert run(f"{code}\nprint(torch.ops.optimum_int8.linear.default.name())") == "optimum_int8::linear"


def test_every_name_is_there() -> None:
    for package in (optimum_int8, hub):
        assert set(package.__all__) <= set(dir(package))
        for name in package.__all__:
            assert getattr(package, name) is not None
    everything: dict[str, object] = {}
    exec("from optimum_int8 import *", everything)
    assert set(optimum_int8.__all__) - {"__version__"} <= set(everything)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "module"), [("quantize", "quantization"), ("calibrate", "calibration"), ("tune", "tuning")]
)
def test_functions_keep_their_names_whatever_is_imported(name: str, module: str) -> None:
    code = f"import optimum_int8.{module}\nimport optimum_int8\nprint(callable(optimum_int8.{name}))"
    assert run(code) == "True"
    assert importlib.import_module(f"optimum_int8.{module}").__name__ == f"optimum_int8.{module}"
    assert callable(getattr(optimum_int8, name))
    assert pickle.loads(pickle.dumps(getattr(optimum_int8, name))) is getattr(optimum_int8, name)


@pytest.mark.slow
def test_modules_are_attributes_as_before() -> None:
    assert run(
        "import optimum_int8\nprint(optimum_int8.kernels.PANEL, optimum_int8.hub.download.__name__)"
    ).split() == [
        "32",
        "optimum_int8.hub.download",
    ]


@pytest.mark.parametrize("package", ["optimum_int8", "optimum_int8.hub", "optimum_int8.evaluation"])
def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'unheard_of'"):
        importlib.import_module(package).unheard_of  # noqa: B018


LOAD = "transformers.AutoModel.from_pretrained({folder!r})"
ORDERS = {
    "before": f"import optimum_int8, transformers\nmodel = {LOAD}",
    "after": f"import transformers, optimum_int8\nmodel = {LOAD}",
    "after the models": f"import transformers.modeling_utils, optimum_int8\nmodel = {LOAD}",
    "from inside": f"import optimum_int8.errors, transformers\nmodel = {LOAD}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.quantizers.tiny import make_model

    folder = tmp_path_factory.mktemp("model") / "int8"
    optimum_int8.OptimizedModel.save_pretrained(optimum_int8.quantize(make_model()), folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_auto_classes_load_int8_folders_in_any_order_of_imports(order: str, folder: Path) -> None:
    code = ORDERS[order].format(folder=str(folder))
    check = "print(type(model.encoder.layer[0].attention.self.query).__name__, len(model.resize_token_embeddings(200).weight))"
    assert run(f"{code}\n{check}") == "Int8Linear 200"


@pytest.mark.slow
def test_a_pickled_model_needs_no_other_import(folder: Path, tmp_path: Path) -> None:
    model = optimum_int8.OptimizedModel.from_pretrained(folder)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    code = f"import pickle\nmodel = pickle.load(open({str(tmp_path / 'model.pickle')!r}, 'rb'))\n"
    check = "print(len(model.resize_token_embeddings(200).weight), type(model.hf_quantizer).__name__)"
    assert run(code + check) == "200 Int8HfQuantizer"


@pytest.mark.slow
def test_without_the_extra_everything_but_evaluation_runs(folder: Path, tmp_path: Path) -> None:
    code = (
        f"{HIDE}\n"
        "import torch\n"
        "from optimum_int8 import *\n"
        f"model = OptimizedModel.from_pretrained({str(folder)!r})\n"
        "ids = torch.tensor([[5, 6, 7]])\n"
        "model(input_ids=ids)\n"
        "from transformers import BertConfig, BertForSequenceClassification as B\n"
        "quantizer = TextClassificationQuantizer(B(BertConfig(vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)))\n"
        f"quantizer.quantize(Int8Config(approach='static'), [dict(input_ids=ids)], save_directory={str(tmp_path / 'made')!r})\n"
        "quantizer.int8_model(input_ids=ids)\n"
        "for wrong in (lambda: quantizer.evaluate([dict(text='a', label=0)]),\n"
        "              lambda: quantizer.quantize(Int8Config(approach='static'), [dict(text='a')])):\n"
        "    try:\n"
        "        wrong()\n"
        "    except ConfigError as error:\n"
        "        print(error)\n"
    )
    told = run(code).splitlines()
    assert len(told) == 2
    for said in told:
        assert "need the package datasets, which is not installed: pip install 'optimum-int8[evaluate]'" in said


def test_when_imported_runs_once_and_after_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lazy_toy.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    said: list[object] = []
    lazy.when_imported("lazy_toy", lambda: said.append(sys.modules["lazy_toy"].value))
    assert said == []
    module = importlib.import_module("lazy_toy")
    assert said == [1]
    assert module.__spec__.loader is module.__loader__ and module.__loader__.get_source("lazy_toy") == "value = 1\n"
    lazy.when_imported("lazy_toy", lambda: said.append("at once"))
    importlib.reload(module)
    assert said == [1, "at once"]
    monkeypatch.delitem(sys.modules, "lazy_toy")


def test_a_module_that_fails_is_waited_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "lazy_broken.py"
    broken.write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    said: list[str] = []
    lazy.when_imported("lazy_broken", lambda: said.append("there"))
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("lazy_broken")
    assert said == []
    broken.write_text("value = 12345\n")
    importlib.invalidate_caches()
    assert importlib.import_module("lazy_broken").value == 12345
    assert said == ["there"]
    monkeypatch.delitem(sys.modules, "lazy_broken")
