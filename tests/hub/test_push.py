"""Publishing to the local Hub with the real client: what arrives, who may, and what a bad network leaves behind."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from transformers import AutoModelForSequenceClassification, PreTrainedModel, pipeline

from optimum_int8.errors import CheckpointError, ConfigError
from optimum_int8.hub import CardInfo, OptimizedModel, failures, push_folder
from tests.hub.helpers import logits_of, tiny_tokenizer
from tests.hub.server import Fault, Hub

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
    assert first.commit == second.commit
    assert len(commits(hub)) == 1 and len(hub.requests(LARGE)) == 1


def test_to_a_branch(hub: Hub, saved: Path, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    for _ in range(2):
        push_folder(saved, "alice/int8", revision="v1/int8", private=True)
    assert "config.json" not in hub.store.repositories["alice/int8"].files("main")
    assert hub.store.repositories["alice/int8"].private
    model = OptimizedModel.from_pretrained("alice/int8", revision="v1/int8")
    assert torch.equal(logits_of(model, input_ids), logits)


def test_pull_request_from_another_user(hub: Hub, saved: Path, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    HfApi().create_repo("alice/int8")
    pushed = push_folder(saved, "alice/int8", create_pr=True, token="hf_bob")
    again = push_folder(saved, "alice/int8", create_pr=True, token="hf_bob")
    assert pushed.pull_request == again.pull_request == f"{hub.url}/alice/int8/discussions/1"
    assert pushed.commit == again.commit
    assert hub.store.repositories["alice/int8"].pull_requests[0]["author"] == "bob"
    model = OptimizedModel.from_pretrained("alice/int8", revision="refs/pr/1")
    assert torch.equal(logits_of(model, input_ids), logits)
    with pytest.raises(ConfigError, match="create_pr"):
        push_folder(saved, "alice/int8", create_pr=True, revision="other")


@pytest.mark.parametrize(
    ("token", "name", "message"),
    [
        ("hf_wrong", "alice/int8", "refused the token"),
        ("hf_alice_read", "alice/int8", "no right"),
        ("hf_bob", "alice/int8", "no right"),
        ("hf_bob", "alice/other", "no right"),
        (False, "alice/int8", "refused the token"),
    ],
)
def test_who_may_not(token: str | bool, name: str, message: str, hub: Hub, saved: Path) -> None:
    HfApi().create_repo("alice/int8")
    with pytest.raises(CheckpointError, match=message) as caught:
        push_folder(saved, name, token=token)
    assert caught.value.__cause__ is not None
    assert commits(hub) == [] and hub.store.large == {}


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST /api/repos/create", status=503),
        Fault("POST /api/validate-yaml", status=503),
        Fault("POST .*/preupload/", status=503),
        Fault("POST .*/objects/batch", status=503),
        Fault(LARGE, status=503),
        Fault(LARGE, cut="before"),
        Fault(COMMIT, status=503),
        Fault(COMMIT, status=429),
        Fault(COMMIT, cut="before"),
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


@pytest.mark.slow
def test_two_processes_at_once(hub: Hub, saved: Path, input_ids: torch.Tensor, logits: torch.Tensor) -> None:
    script = "import sys; from optimum_int8.hub import push_folder; print(push_folder(*sys.argv[1:]))"
    command = [sys.executable, "-c", script, str(saved), "alice/int8"]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.wait(timeout=120) == 0, process.stderr and process.stderr.read()
    assert torch.equal(logits_of(OptimizedModel.from_pretrained("alice/int8"), input_ids), logits)


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
    hub: Hub, int8_model: PreTrainedModel, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    OptimizedModel.push_to_hub(int8_model, "alice/int8", token="hf_alice", tokenizer=tiny_tokenizer())
    assert all(request.token is None for request in hub.log if request.storage)
    assert any(request.token == "hf_alice" for request in hub.log)
    assert b"hf_alice" not in b"".join(request.body for request in hub.log)
    assert "hf_alice" not in caplog.text + "".join(capfd.readouterr())


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
