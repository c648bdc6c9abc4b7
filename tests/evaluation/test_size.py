"""Sizes, counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from optimum_int8.errors import CheckpointError
from optimum_int8.evaluation.size import checkpoint_size, fp32_size, stored_size


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=True)
        self.head.weight = self.embedding.weight
        self.register_buffer("positions", torch.arange(6))
        self.register_buffer("scratch", torch.zeros(100), persistent=False)


BYTES = 10 * 4 * 4 + 10 * 4 + 6 * 8  # the table once, the bias, int64 positions; nothing for the unsaved buffer


def test_shared_tensors_count_once() -> None:
    assert fp32_size(Tied()) == BYTES
    assert stored_size(Tied()) == BYTES


def test_half_precision_counts_as_float32() -> None:
    assert fp32_size(Tied().half()) == BYTES
    assert stored_size(Tied().half()) == BYTES - 10 * 4 * 2 - 10 * 2


def test_views_of_one_storage_are_different_tensors() -> None:
    whole = torch.zeros(8, 4)
    model = nn.Module()
    model.register_buffer("q", whole[:4])
    model.register_buffer("k", whole[4:])
    assert stored_size(model) == 8 * 4 * 4


def test_files(tmp_path: Path) -> None:
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"x" * 30)
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"x" * 12)
    (tmp_path / "config.json").write_bytes(b"x" * 1000)
    assert checkpoint_size(tmp_path) == 42


def test_no_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no \\*.safetensors"):
        checkpoint_size(tmp_path)
