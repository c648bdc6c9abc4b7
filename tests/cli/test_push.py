"""`optimum-int8 push` and `convert-legacy`, against the local Hub."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from torch.ao.quantization import default_dynamic_qconfig, quantize_dynamic

from optimum_int8 import Int8Config, OptimizedModel, quantize
from optimum_int8.cli import main
from tests.hub.server import Hub
from tests.quantizers.tiny import make_config, make_model, make_tokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = quantize(make_model(), Int8Config(fuse=False), progress=False)
    return OptimizedModel.save_pretrained(model, tmp_path_factory.mktemp("push") / "int8", tokenizer=make_tokenizer())


@pytest.fixture(scope="module")
def legacy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dynamic model as Neural Compressor published them."""
    folder = tmp_path_factory.mktemp("legacy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = quantize_dynamic(make_model(), dict.fromkeys(["bert.pooler.dense"], default_dynamic_qconfig))
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    values = {**make_config().to_dict(), "architectures": ["BertForSequenceClassification"], "torch_dtype": "int8"}
    values.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def test_push(hub: Hub, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "push.json"
    arguments = ["--private", "--commit-message", "First", "--json", str(output)]
    assert main(["push", str(saved), "alice/int8", *arguments]) == 0
    repository = hub.store.repositories["alice/int8"]
    commit = repository.refs["refs/heads/main"]
    assert repository.private and repository.titles[commit] == "First"
    assert json.loads(output.read_text()) == {
        "folder": str(saved),
        "repo_id": "alice/int8",
        "commit": commit,
        "url": f"{hub.url}/alice/int8/commit/{commit}",
        "pull_request": None,
        "changed": True,
    }
    assert f"The commit is {hub.url}/alice/int8/commit/" in capsys.readouterr().out.replace("\n", "")
    assert main(["push", str(saved), "alice/int8"]) == 0
    assert "Nothing to change: alice/int8 holds this checkpoint already" in capsys.readouterr().out.replace("\n", " ")
    assert main(["push", str(saved), "alice/int8", "--revision", "v1"]) == 0
    assert "refs/heads/v1" in repository.refs


def test_push_a_pull_request_with_a_token(
    hub: Hub, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(saved), "alice/int8"]) == 0
    output = tmp_path / "push.json"
    changed = shutil.copytree(saved, tmp_path / "changed")
    (changed / "README.md").write_text("---\nlicense: mit\n---\n")  # without a change there is no pull request
    arguments = ["--create-pr", "--token", "hf_bob", "--json", str(output)]
    assert main(["push", str(changed), "alice/int8", *arguments]) == 0
    assert json.loads(output.read_text())["pull_request"] == f"{hub.url}/alice/int8/discussions/1"
    assert hub.store.repositories["alice/int8"].pull_requests[0]["author"] == "bob"
    captured = capsys.readouterr()
    assert "The pull request is" in captured.out
    assert "hf_bob" not in captured.out + captured.err + output.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["alice/int8", "--token", "hf_wrong"], "refused the token"),
        (["alice/int8", "--create-pr", "--revision", "other"], "drop one of them"),
        (["a/b/c"], "neither a folder"),
    ],
)
def test_push_that_fails(
    arguments: list[str], message: str, hub: Hub, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(saved), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "hf_wrong" not in error
    assert "alice/int8" not in hub.store.repositories


@pytest.mark.parametrize("place", ["absolute", "relative", "deep", "home", "file"])
def test_push_to_a_folder_that_exists(
    place: str, hub: Hub, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "file").touch()
    places = {"absolute": str(tmp_path / "a"), "relative": "./a", "deep": "a/b/c", "home": "~/a", "file": "./a/file"}
    assert main(["push", str(saved), places[place]]) == 2
    kind = "file" if place == "file" else "folder"
    assert f"is a {kind} on this machine; expected the name of a repository" in capsys.readouterr().err
    assert hub.log == []


def test_push_what_is_no_checkpoint(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(tmp_path / "absent"), "alice/int8"]) == 2
    assert "missing" in capsys.readouterr().err
    assert hub.log == []


def test_convert_legacy(legacy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, output = tmp_path / "out", tmp_path / "convert.json"
    assert main(["convert-legacy", str(legacy), str(out), "--json", str(output)]) == 0
    values = json.loads(output.read_text())
    assert values["modules"] == {"linear": 1} and values["approach"] == "dynamic"
    assert "The INT8 model (dynamic; 1 linear) is in" in capsys.readouterr().out
    inputs = make_tokenizer()("word1 word2", return_tensors="pt")
    model = OptimizedModel.from_pretrained(out)
    assert list(model.config.quantization_config.modules) == ["bert.pooler.dense"]
    with torch.no_grad():
        expected, found = make_model()(**inputs).logits, model(**inputs).logits
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_convert_legacy_from_the_hub(hub: Hub, legacy: Path, tmp_path: Path) -> None:
    from huggingface_hub import HfApi

    HfApi().create_repo("alice/legacy")
    HfApi().upload_folder(repo_id="alice/legacy", folder_path=legacy)
    assert main(["convert-legacy", "alice/legacy", str(tmp_path / "out"), "--revision", "main"]) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_convert_legacy_that_fails(
    legacy: Path, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["convert-legacy", str(legacy), str(tmp_path / "file")]) == 2
    assert "OUT" in capsys.readouterr().err
    assert main(["convert-legacy", str(saved), str(tmp_path / "out")]) == 2
    assert "Neural Compressor" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
