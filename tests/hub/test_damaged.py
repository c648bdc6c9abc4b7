"""Over 200 damaged and hostile checkpoints: every one is refused with our error; none crashes, hangs, fills the memory or runs code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from optimum_int8.errors import CheckpointError
from optimum_int8.hub import OptimizedModel
from tests.hub.corpus import corpus, split
from tests.hub.helpers import limits, logits_of


@pytest.mark.slow
@pytest.mark.parametrize("int8_model", ["static"], indirect=True)
def test_every_damaged_checkpoint_is_refused(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    accepted, foreign, count = [], [], 0
    for name, damage in corpus(saved):
        count += 1
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        copy = Path(shutil.copytree(saved, tmp_path / "copy"))
        damage(copy)
        try:
            with limits(seconds=20):
                OptimizedModel.from_pretrained(copy)
            accepted.append(name)
        except CheckpointError as error:
            assert str(error)
        except Exception as error:
            foreign.append((name, repr(error)))
    assert count >= 300
    assert not foreign
    assert not accepted
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize("int8_model", ["static"], indirect=True)
def test_the_corpus_starts_from_good_checkpoints(saved: Path, copy: Path, input_ids, logits) -> None:
    for _ in range(2):
        with limits(seconds=20):
            model = OptimizedModel.from_pretrained(copy)
        assert torch.equal(logits_of(model, input_ids), logits)
        if (copy / "model.safetensors").is_file():
            split(copy)
