"""Files that an earlier commit (23835c3, 2026-11-30) wrote load, and give what they gave then, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import optimum_int8
from optimum_int8 import OptimizedModel

EARLIER = Path(__file__).parent / "earlier"
SAVED = load_file(EARLIER / "expected.safetensors")


@pytest.mark.parametrize("name", ["bert-static", "bert-dynamic", "gpt2-static", "gpt2-dynamic"])
def test_a_checkpoint(name: str) -> None:
    model = OptimizedModel.from_pretrained(EARLIER / name)
    with torch.no_grad():
        assert torch.equal(model(input_ids=SAVED[f"{name}.x"]).logits, SAVED[f"{name}.y"])


@pytest.mark.parametrize("name", ["linear", "convolution"])
def test_a_file_to_deploy(name: str) -> None:
    with pytest.warns(UserWarning, match="does not say for which sizes it holds"):
        model = optimum_int8.load(EARLIER / f"{name}.pt2")
    with torch.no_grad():
        assert torch.equal(model(SAVED[f"{name}.x"]), SAVED[f"{name}.y"])
