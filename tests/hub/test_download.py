"""Loading from the local Hub with the real client: causes told apart, damage found, no broken cache left."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from transformers import AutoModelForSequenceClassification, pipeline

from optimum_int8.errors import CheckpointError
from optimum_int8.hub import OptimizedModel, failures, push_folder
from optimum_int8.hub.download import fetch
from tests.hub.corpus import split
from tests.hub.helpers import edit_tensors, logits_of, tiny_tokenizer
from tests.hub.server import Fault, Hub

APPROACHES = ("static",)

NAME = "alice/int8"
LARGE = r"GET /[0-9a-f]{64}"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "RETRY_DELAYS_S", (0.01, 0.01, 0.01))


@pytest.fixture
def published(hub: Hub, saved: Path) -> Hub:
    push_folder(saved, NAME)
    hub.log.clear()
    return hub


def cached_files() -> list[Path]:
    return [path for path in Path(constants.HF_HUB_CACHE).rglob("*") if path.is_file()]


def assert_whole(input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    """The model loads equal to the bit, and nothing unfinished lies in the cache."""
    assert torch.equal(logits_of(OptimizedModel.from_pretrained(NAME), input_ids), logits)
    assert not [path for path in cached_files() if path.name.endswith(".incomplete")]


def test_only_what_is_needed_is_fetched_once(published: Hub, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    assert_whole(input_ids, logits)
    assert len(published.requests(LARGE)) == 1 and not published.requests("README|tokenizer")
    published.log.clear()
    assert_whole(input_ids, logits)
    assert len(published.log) == 1


def test_offline_from_the_cache(published: Hub, input_ids: torch.Tensor, logits: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="local_files_only"):
        OptimizedModel.from_pretrained(NAME, local_files_only=True)
    OptimizedModel.from_pretrained(NAME)
    published.log.clear()
    model = OptimizedModel.from_pretrained(NAME, local_files_only=True)
    assert torch.equal(logits_of(model, input_ids), logits)
    assert published.log == []
    published.faults.append(Fault("", cut="before", times=1000))  # the network fails
    assert torch.equal(logits_of(OptimizedModel.from_pretrained(NAME), input_ids), logits)


@pytest.mark.parametrize("subfolder", ["", "static/int8"])
def test_sharded_and_offline(hub: Hub, copy: Path, subfolder: str, input_ids, logits, tmp_path: Path) -> None:
    split(copy)
    HfApi().create_repo(NAME)
    HfApi().upload_folder(folder_path=copy, path_in_repo=subfolder or ".", repo_id=NAME, revision="main")
    options = {"subfolder": subfolder, "cache_dir": tmp_path / "cache"}
    OptimizedModel.from_pretrained(NAME, **options)
    hub.log.clear()
    model = OptimizedModel.from_pretrained(NAME, local_files_only=True, **options)
    assert torch.equal(logits_of(model, input_ids), logits) and hub.log == []


def test_transformers_offline(hub: Hub, int8_model, input_ids, logits) -> None:
    OptimizedModel.push_to_hub(int8_model, NAME, tokenizer=tiny_tokenizer())
    answer = pipeline("text-classification", NAME)("good film")
    hub.faults.append(Fault("", cut="before", times=1000))
    model = AutoModelForSequenceClassification.from_pretrained(NAME, local_files_only=True)
    assert torch.equal(logits_of(model, input_ids), logits)
    assert pipeline("text-classification", model=model, tokenizer=tiny_tokenizer())("good film") == answer


def test_no_network_and_nothing_cached(published: Hub) -> None:
    published.faults.append(Fault("", cut="before", times=1000))
    with pytest.raises(CheckpointError, match="could not be reached"):
        OptimizedModel.from_pretrained(NAME)
    assert cached_files() == []


@pytest.mark.parametrize(
    ("name", "token", "message", "cause"),
    [
        ("alice/nothing", "hf_alice", "no repository", RepositoryNotFoundError),
        ("alice/nothing", False, "no repository", RepositoryNotFoundError),
        ("alice/private", "hf_bob", "private", RepositoryNotFoundError),
        ("alice/gated", "hf_bob", "gated", GatedRepoError),
        ("alice/gated", False, "gated", GatedRepoError),
        ("alice/int8", "hf_wrong", "refused the token", None),
    ],
)
def test_causes_are_told_apart(name: str, token: str | bool, message: str, cause: type | None, published: Hub) -> None:
    api = HfApi()
    api.create_repo("alice/private", private=True)
    api.create_repo("alice/gated")
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="alice/gated")
    published.store.repositories["alice/gated"].gated = True
    with pytest.raises(CheckpointError, match=message) as caught:
        OptimizedModel.from_pretrained(name, token=token)
    assert caught.value.__cause__ is not None
    assert cause is None or isinstance(caught.value.__cause__, cause)


def test_revisions(published: Hub, copy: Path, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    commit = published.store.repositories[NAME].refs["refs/heads/main"]
    (copy / "README.md").write_text("---\nlicense: mit\n---\n")
    push_folder(copy, NAME)
    for revision in (None, "main", commit):
        model = OptimizedModel.from_pretrained(NAME, revision=revision)
        assert torch.equal(logits_of(model, input_ids), logits)
    with pytest.raises(CheckpointError, match="no such revision") as caught:
        OptimizedModel.from_pretrained(NAME, revision="nowhere")
    assert isinstance(caught.value.__cause__, RevisionNotFoundError)


@pytest.mark.parametrize(
    "revision", ["../../x", "a/../b", "/etc", "a//b", "a b", "", ".git", "x" * 300, "a\n", "refs/", 3]
)
def test_revisions_that_could_write_elsewhere(revision: object, published: Hub) -> None:
    with pytest.raises(CheckpointError, match="no revision"):
        OptimizedModel.from_pretrained(NAME, revision=revision)  # type: ignore[arg-type]
    assert published.log == []


@pytest.mark.parametrize(
    "name", ["../x", "/no/such/folder", "a/b/c", "a b/c", "a//b", "x" * 200, "./missing", "http://x/y"]
)
def test_names_that_are_neither(name: str, published: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # whatever lies next to the checkout
    with pytest.raises(CheckpointError, match="neither a folder"):
        OptimizedModel.from_pretrained(name)
    assert published.log == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET /api/models/", status=503),
        Fault("HEAD .*/resolve/.*/config.json", status=503),
        Fault("GET .*/resolve/.*/config.json", status=503),
        Fault("GET .*/resolve/.*/config.json", cut="middle"),
        Fault(LARGE, status=503),
        Fault(LARGE, cut="before"),
        Fault(LARGE, cut="middle"),
    ],
    ids=lambda fault: f"{fault.pattern} {fault.status or fault.cut}",
)
def test_one_failure_ends_in_success_or_a_clear_error(
    fault: Fault, published: Hub, input_ids: torch.Tensor, logits: torch.Tensor
) -> None:
    fault.times = 1
    published.faults.append(fault)
    try:
        OptimizedModel.from_pretrained(NAME)
    except CheckpointError as error:
        assert "503" in str(error)
    assert fault.times == 0
    assert_whole(input_ids, logits)


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_without_a_code_keeps_its_status(status: int, path: str, published: Hub) -> None:
    """The client hides these behind "check your connection"."""
    published.faults.append(Fault(f"HEAD .*/resolve/.*/{path}", status=status, times=9))
    with pytest.raises(CheckpointError, match=str(status)):
        OptimizedModel.from_pretrained(NAME)


@pytest.mark.parametrize("loader", [OptimizedModel, AutoModelForSequenceClassification])
def test_tampered_weights_of_the_same_size(loader, published: Hub, copy: Path, input_ids, logits) -> None:
    edit_tensors(copy / "model.safetensors", lambda tensors: tensors["classifier.weight_scale"].mul_(2))  # its sums fit
    published.faults.append(Fault(LARGE, replace=(copy / "model.safetensors").read_bytes()))
    with pytest.raises(CheckpointError, match="not what the Hub announced"):
        loader.from_pretrained(NAME)
    OptimizedModel.from_pretrained(NAME, force_download=True)
    assert_whole(input_ids, logits)


def test_tampered_config_of_the_same_size(published: Hub) -> None:
    content = published.store.repositories[NAME].files()["config.json"].data
    published.faults.append(
        Fault(r"GET .*/resolve/.*/config.json", replace=content.replace(b'"dropout": 0.1', b'"dropout": 0.9'))
    )
    with pytest.raises(CheckpointError, match="not what the Hub announced"):
        OptimizedModel.from_pretrained(NAME)


def test_weights_of_another_size(published: Hub, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    published.faults.append(Fault(LARGE, replace=b"short", times=9))
    with pytest.raises(CheckpointError):
        OptimizedModel.from_pretrained(NAME)
    published.faults.clear()
    assert_whole(input_ids, logits)


def test_only_pickles(hub: Hub) -> None:
    api = HfApi()
    api.create_repo(NAME)
    for name, content in (
        ("config.json", b'{"model_type": "bert"}'),
        ("pytorch_model.bin", b"cos\nsystem\n(S'touch pwned'\ntR."),
    ):
        api.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=NAME)
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors"):
        OptimizedModel.from_pretrained(NAME)
    assert not hub.requests("GET .*pytorch_model.bin")


def test_hostile_index(hub: Hub, saved: Path) -> None:
    api = HfApi()
    api.create_repo(NAME)
    index = b'{"metadata": {}, "weight_map": {"a": "../../../outside.safetensors"}}'
    for name, content in (
        ("config.json", (saved / "config.json").read_bytes()),
        ("model.safetensors.index.json", index),
    ):
        api.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=NAME)
    with pytest.raises(CheckpointError, match="names the shard"):
        OptimizedModel.from_pretrained(NAME)


def test_subfolder_on_the_hub(hub: Hub, saved: Path, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    api = HfApi()
    api.create_repo(NAME)
    api.upload_folder(folder_path=saved, path_in_repo="static/int8", repo_id=NAME)
    model = OptimizedModel.from_pretrained(NAME, subfolder="static/int8")
    assert torch.equal(logits_of(model, input_ids), logits)
    with pytest.raises(CheckpointError, match="missing"):
        OptimizedModel.from_pretrained(NAME, subfolder="other")


def test_full_disk(published: Hub, tmp_path: Path, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    from tests.hub.test_save import full_disk

    with full_disk(), pytest.raises(CheckpointError, match="File too large"):
        OptimizedModel.from_pretrained(NAME)
    assert_whole(input_ids, logits)


def test_cache_dir(published: Hub, tmp_path: Path) -> None:
    folder = fetch(NAME, cache_dir=tmp_path)
    assert folder.is_relative_to(tmp_path) and {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
    }
