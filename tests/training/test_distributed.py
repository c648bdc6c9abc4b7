"""`torchrun --nproc_per_node 2` on the CPU: both processes end with the same model, and one of them saves it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from optimum_int8.hub import OptimizedModel
from tests.quantizers.tiny import make_tokenizer


@pytest.mark.slow
@pytest.mark.parametrize("ranges", ["learnable", "moving_average"])
def test_two_processes_train_one_model(ranges: str, tmp_path: Path) -> None:
    script = Path(__file__).with_name("torchrun_script.py")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, str(script), str(tmp_path), ranges]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = ((tmp_path / f"digest-{rank}").read_text() for rank in (0, 1))
    assert first == second and first.startswith("2 ")
    assert len(list((tmp_path / "run").glob("checkpoint-*"))) == 2
    model = OptimizedModel.from_pretrained(tmp_path / "int8")
    assert model(**make_tokenizer()("word1 word2", return_tensors="pt")).logits.shape == (1, 2)
