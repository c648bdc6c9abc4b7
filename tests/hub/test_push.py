"""Publishing to the local Hub with the real client: what arrives, who may, and what a bad network leaves behind."""

from __future__ import annotations

import io
import logging
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HOME
from huggingface_hub.errors import GatedRepoError
from transformers import AutoModelForSequenceClassification, PreTrainedModel, pipeline

from optimum_int8.errors import CheckpointError, ConfigError
from optimum_int8.hub import CardInfo, OptimizedModel, failures, push_folder
from tests.hub.corpus import split
from tests.hub.helpers import logits_of, tiny_tokenizer
from tests.hub.server import Fault, Hub
from tests.hub.test_save import full_disk

APPROACHES = ("static",)

COMMIT, LARGE = r"POST .*/commit/", r"PUT /[0-9a-f]{64}"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "RETRY_DELAYS_S", (0.01, 0.01, 0.01))


def commits(hub: Hub, name: str = "alice/int8") -> list[str]:
    """Titles of the commits after the initial one."""
    return list(hub.store.repositories[name].titles.values())[1:]


def test_round_trip(hub: Hub, int8_model: PreTrainedModel, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    pushed = OptimizedModel.push_to_hub(int8_model, "alice/int8", tokenizer=tiny_tokenizer())
    assert len(commits(hub)) == 1 and len(hub.requests(LARGE)) == 1 and pushed.pull_request is None
    assert hub.store.repositories["alice/int8"].refs["refs/heads/main"] == pushed.commit
    files = set(hub.store.repositories["alice/int8"].files())
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= files
    for loader in (OptimizedModel, AutoModelForSequenceClassification):
        model = loader.from_pretrained("alice/int8")
        assert torch.equal(logits_of(model, input_ids), logits)
        assert model.name_or_path == "alice/int8"
    assert pipeline("text-classification", "alice/int8")("good film")[0]["label"].startswith("LABEL_")


@pytest.fixture(params=["whole", "sharded"])
def folder(request: pytest.FixtureRequest, saved: Path, tmp_path: Path) -> Path:
    """The checkpoint in one file or in several shards."""
    if request.param == "whole":
        return saved
    copy = Path(shutil.copytree(saved, tmp_path / "sharded"))
    split(copy)
    return copy


def test_sharded_over_whole_and_back(
    hub: Hub, int8_model: PreTrainedModel, input_ids: torch.Tensor, logits: torch.Tensor
) -> None:
    for size, count in (("5GB", 1), ("40KB", 2), ("5GB", 1)):
        OptimizedModel.push_to_hub(int8_model, "alice/int8", max_shard_size=size)
        weights = [name for name in hub.store.repositories["alice/int8"].files() if name.endswith(".safetensors")]
        assert len(weights) >= count and ("model.safetensors" in weights) == (count == 1)
        for loader in (OptimizedModel, AutoModelForSequenceClassification):
            assert torch.equal(logits_of(loader.from_pretrained("alice/int8"), input_ids), logits)
    assert len(commits(hub)) == 3 and len(hub.requests(LARGE)) <= 5


def test_again_changes_and_sends_nothing(hub: Hub, saved: Path) -> None:
    first = push_folder(saved, "alice/int8")
    second = push_folder(saved, "alice/int8")
    assert first.commit == second.commit and first.changed and not second.changed
    assert len(commits(hub)) == 1 and len(hub.requests(LARGE)) == 1


def test_to_a_branch(hub: Hub, folder: Path, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    for _ in range(2):
        push_folder(folder, "alice/int8", revision="v1/int8", private=True)
    assert len(commits(hub)) == 1 and len(hub.requests(LARGE)) == len(list(folder.glob("*.safetensors")))
    assert "config.json" not in hub.store.repositories["alice/int8"].files("main")
    assert hub.store.repositories["alice/int8"].private
    model = OptimizedModel.from_pretrained("alice/int8", revision="v1/int8")
    assert torch.equal(logits_of(model, input_ids), logits)


def test_pull_request_from_another_user(hub: Hub, folder: Path, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    HfApi().create_repo("alice/int8")
    pushed = push_folder(folder, "alice/int8", create_pr=True, token="hf_bob")
    again = push_folder(folder, "alice/int8", create_pr=True, token="hf_bob")
    assert len(hub.requests(LARGE)) == len(list(folder.glob("*.safetensors")))
    assert pushed.changed and not again.changed
    assert pushed.pull_request == again.pull_request == f"{hub.url}/alice/int8/discussions/1"
    assert pushed.commit == again.commit
    assert hub.store.repositories["alice/int8"].pull_requests[0]["author"] == "bob"
    model = OptimizedModel.from_pretrained("alice/int8", revision="refs/pr/1")
    assert torch.equal(logits_of(model, input_ids), logits)
    with pytest.raises(ConfigError, match="create_pr"):
        push_folder(folder, "alice/int8", create_pr=True, revision="other")


@pytest.mark.parametrize(
    ("token", "name", "message"),
    [
        ("hf_wrong", "alice/int8", "refused the token"),
        ("hf_alice_read", "alice/int8", "no right"),
        ("hf_bob", "alice/int8", "no right"),
        ("hf_bob", "alice/other", "no right"),
        (False, "alice/int8", "refused the token"),
        ("hf_bob", "alice/private", "no right"),
    ],
)
@pytest.mark.parametrize("create_pr", [False, True])
def test_who_may_not(token: str | bool, name: str, message: str, create_pr: bool, hub: Hub, saved: Path) -> None:
    HfApi().create_repo("alice/int8")
    HfApi().create_repo("alice/private", private=True)
    if create_pr and token in ("hf_bob", "hf_alice_read") and name == "alice/int8":
        assert push_folder(saved, name, token=token, create_pr=True).pull_request  # who may read may propose
        return
    with pytest.raises(CheckpointError, match=message) as caught:
        push_folder(saved, name, token=token, create_pr=create_pr)
    assert caught.value.__cause__ is not None
    assert commits(hub) == [] and hub.store.large == {}


def test_what_is_not_there(hub: Hub, saved: Path) -> None:
    HfApi().create_repo("alice/int8")
    with pytest.raises(CheckpointError, match="no such revision"):
        push_folder(saved, "alice/int8", revision="refs/pr/9")
    hub.faults.append(Fault(r"GET .*/tree/", status=404, times=9))
    with pytest.raises(CheckpointError, match="404"):
        push_folder(saved, "alice/int8")
    assert commits(hub) == [] and hub.store.large == {}


def test_to_a_gated_repository(hub: Hub, saved: Path) -> None:
    """Its owner writes, and others, who may not read it, are told why they cannot propose."""
    push_folder(saved, "alice/int8")
    hub.store.repositories["alice/int8"].gated = True
    assert not push_folder(saved, "alice/int8").changed
    hub.faults.append(Fault(r"POST .*/preupload/", status=403, headers=(("X-Error-Code", "GatedRepo"),), times=9))
    with pytest.raises(CheckpointError, match="gated") as caught:
        push_folder(saved, "alice/int8", token="hf_bob", create_pr=True)
    assert isinstance(caught.value.__cause__, GatedRepoError)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST /api/repos/create", status=503),
        Fault("POST /api/validate-yaml", status=503),
        Fault("POST .*/preupload/", status=503),
        Fault("POST .*/objects/batch", status=503),
        Fault(LARGE, status=503),
        Fault(LARGE, cut="before"),
        Fault(LARGE, cut="upload"),
        Fault("GET /api/models/", status=503),
        Fault("GET .*/tree/", cut="before"),
        Fault(COMMIT, status=503),
        Fault(COMMIT, status=429),
        Fault(COMMIT, status=412),
        Fault(COMMIT, cut="before"),
        Fault(COMMIT, cut="upload"),
        Fault(COMMIT, cut="after"),
    ],
    ids=lambda fault: f"{fault.pattern} {fault.status or fault.cut}",
)
@pytest.mark.parametrize("create_pr", [False, True])
def test_one_failure_is_survived(fault: Fault, create_pr: bool, hub: Hub, saved: Path) -> None:
    HfApi().create_repo("alice/int8")
    fault.times = 1
    hub.faults.append(fault)
    pushed = push_folder(saved, "alice/int8", create_pr=create_pr)
    repository = hub.store.repositories["alice/int8"]
    assert fault.times == 0
    assert len(commits(hub)) == 1 and len(repository.pull_requests) == create_pr
    assert "model.safetensors" in repository.files("refs/pr/1" if create_pr else "main")
    assert (pushed.pull_request is not None) == create_pr
    assert len([request for request in hub.requests(LARGE) if request.status == 200]) == 1


@pytest.mark.parametrize(("status", "message"), [(503, "answered 503"), (500, "answered 500"), (413, "answered 413")])
def test_lasting_failure_is_an_error(status: int, message: str, hub: Hub, saved: Path) -> None:
    hub.faults.append(Fault(COMMIT, status=status, times=100))
    with pytest.raises(CheckpointError, match=message):
        push_folder(saved, "alice/int8")
    assert commits(hub) == []
    assert len(hub.requests(COMMIT)) <= 4 and len(hub.requests(LARGE)) == 1


def test_repeating_ends(hub: Hub, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client repeated for long itself is not repeated once more."""
    monkeypatch.setattr(failures, "RETRY_WINDOW_S", 0.0)
    hub.faults.append(Fault(COMMIT, cut="upload", times=100))
    with pytest.raises(CheckpointError, match="could not be reached"):
        push_folder(saved, "alice/int8")
    assert hub.faults[0].times == 99
    hub.faults[:] = [Fault(COMMIT, status=503, times=100)]
    with pytest.raises(CheckpointError, match="answered 503"):
        push_folder(saved, "alice/int8")
    assert len(hub.requests(COMMIT)) == 1


def test_full_disk_while_the_checkpoint_is_written(
    hub: Hub, int8_model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with full_disk(), pytest.raises(CheckpointError, match="cannot save"):
        OptimizedModel.push_to_hub(int8_model, "alice/int8")
    assert hub.log == [] and list(tmp_path.iterdir()) == []


AT_ONCE = """
import sys
from optimum_int8.hub import push_folder
input()
for name, create_pr in (("alice/direct", False), ("alice/proposal", True)):
    print(push_folder(sys.argv[1], name, create_pr=create_pr))
"""


@pytest.mark.slow
def test_two_processes_at_once(hub: Hub, saved: Path, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    HfApi().create_repo("alice/proposal")
    command = [sys.executable, "-c", AT_ONCE, str(saved)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    pull_requests = hub.store.repositories["alice/proposal"].pull_requests
    assert [pull_request["status"] for pull_request in pull_requests].count("open") == 1
    for name, revision in (("alice/direct", None), ("alice/proposal", "refs/pr/1")):
        model = OptimizedModel.from_pretrained(name, revision=revision)
        assert torch.equal(logits_of(model, input_ids), logits)


def test_another_commit_in_between(hub: Hub, saved: Path, copy: Path, input_ids, logits) -> None:
    """Another layout arrives after the look at the repository and before the commit: the two are never mixed."""
    split(copy)
    hub.faults.append(Fault(COMMIT, meanwhile=lambda: push_folder(copy, "alice/int8")))
    pushed = push_folder(saved, "alice/int8")
    files = hub.store.repositories["alice/int8"].files()
    assert [name for name in files if "safetensors" in name] == ["model.safetensors"] and pushed.changed
    assert len(commits(hub)) == 2 and [r.status for r in hub.requests(COMMIT)] == [200, 412, 200]
    assert torch.equal(logits_of(OptimizedModel.from_pretrained("alice/int8"), input_ids), logits)


def test_the_same_pull_request_in_between(hub: Hub, saved: Path) -> None:
    HfApi().create_repo("alice/int8")
    hub.faults.append(Fault(COMMIT, meanwhile=lambda: push_folder(saved, "alice/int8", create_pr=True)))
    pushed = push_folder(saved, "alice/int8", create_pr=True)
    pull_requests = hub.store.repositories["alice/int8"].pull_requests
    assert [pull_request["status"] for pull_request in pull_requests] == ["open", "closed"]
    assert pushed.pull_request == f"{hub.url}/alice/int8/discussions/1"


def test_pickles_and_strangers_stay_here(hub: Hub, copy: Path) -> None:
    for name in ("training_args.bin", "pytorch_model.bin", "optimizer.pt", "rng.pth", "x.pkl", "run.py", ".env"):
        (copy / name).write_bytes(b"secret")
    (copy / "checkpoint-5").mkdir()
    (copy / "checkpoint-5" / "model.safetensors").write_bytes(b"")
    push_folder(copy, "alice/int8")
    assert set(hub.store.repositories["alice/int8"].files()) == {
        ".gitattributes", "README.md", "config.json", "model.safetensors"
    }  # fmt: skip


@pytest.mark.parametrize("text", ["hf_alice", "hf_" + "a" * 34])
def test_token_in_a_file_is_refused(text: str, hub: Hub, copy: Path) -> None:
    (copy / "trainer_state.json").write_text(f'{{"hub_token": "{text}"}}')
    with pytest.raises(CheckpointError, match=r"trainer_state\.json holds an access token") as caught:
        push_folder(copy, "alice/int8")
    assert text not in str(caught.value)
    assert hub.log == []


def test_token_is_in_no_file_no_log_and_not_at_the_storage(
    hub: Hub, int8_model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    """Pushed and loaded with every logger at DEBUG; then all that was written is searched."""
    secret, lines = "hf_alice", io.StringIO()
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    handler = logging.StreamHandler(lines)
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        OptimizedModel.push_to_hub(int8_model, "alice/int8", token=secret, tokenizer=tiny_tokenizer())
        OptimizedModel.from_pretrained("alice/int8", token=secret, cache_dir=tmp_path / "cache")
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
    assert all(request.token is None for request in hub.log if request.storage)
    assert any(request.token == secret for request in hub.log)
    assert secret.encode() not in b"".join(request.body for request in hub.log)
    assert lines.getvalue() and secret not in lines.getvalue() + "".join(capfd.readouterr())
    written = [path for folder in (tmp_path, Path(HF_HOME)) for path in folder.rglob("*") if path.is_file()]
    assert written and not [path for path in written if secret.encode() in path.read_bytes()]


def test_only_int8_checkpoints_are_pushed(hub: Hub, copy: Path, fp32_model: PreTrainedModel, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not an INT8 model"):
        OptimizedModel.push_to_hub(fp32_model, "alice/int8")
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="damaged"):
        push_folder(copy, "alice/int8")
    with pytest.raises(CheckpointError, match="missing"):
        push_folder(tmp_path / "nothing", "alice/int8")
    with pytest.raises(CheckpointError, match="neither a folder"):
        push_folder(copy, "a/b/c")
    with pytest.raises(CheckpointError, match="no revision"):
        push_folder(copy, "alice/int8", revision="../../x")
    assert hub.log == []


def test_card_tells_base_model_and_licence(hub: Hub, int8_model: PreTrainedModel) -> None:
    api = HfApi()
    api.create_repo("alice/base")
    card = b"---\nlicense: mit\n---\n# base\n"
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="alice/base")
    OptimizedModel.push_to_hub(int8_model, "alice/int8", card_info=CardInfo(base_model="alice/base"))
    text = hub.store.repositories["alice/int8"].files()["README.md"].data.decode()
    assert re.search(r"^license: mit$", text, re.M) and re.search(r"^base_model_relation: quantized$", text, re.M)
