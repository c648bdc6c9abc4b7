"""Over 200 damaged and hostile checkpoints: every one is refused with our error; none crashes, hangs or runs code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from optimum_int8.errors import CheckpointError
from optimum_int8.hub import OptimizedModel
from tests.hub.corpus import corpus


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
            OptimizedModel.from_pretrained(copy)
            accepted.append(name)
        except CheckpointError as error:
            assert str(error)
        except Exception as error:
            foreign.append((name, repr(error)))
    assert count >= 200
    assert not foreign
    assert not accepted
    assert not list(tmp_path.rglob("pwned"))
