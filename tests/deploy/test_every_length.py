"""Every length from 1 to 512 runs on what the first call captured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

import optimum_int8
from optimum_int8 import QuantConf, calibrate, convert
from optimum_int8.passes import find_blocks


@pytest.mark.slow
@torch.no_grad()
def test_every_length_runs_and_none_recaptures(tmp_path: Any) -> None:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 99,
    }
    model = transformers.BertModel(transformers.BertConfig(**sizes)).eval()
    ids, conf = torch.randint(0, 99, (1, 512)), QuantConf()
    with calibrate(conf):
        model(input_ids=ids[:, :64])
    int8: Any = convert(model, conf, {"input_ids": ids[:, :64]})
    int8.save(tmp_path / "bert.pt2")
    loaded = optimum_int8.load(tmp_path / "bert.pt2")
    int8(input_ids=ids[:, :2])
    blocks = find_blocks(int8)
    before = {name: list(block.variants.values()) for name, block in blocks.items()}
    assert sum(v is not None for variants in before.values() for v in variants) >= 2
    captured_at_one = 0
    for length in range(1, 513):
        found = int8(input_ids=ids[:, :length]).last_hidden_state
        assert found.shape == (1, length, 32)
        assert torch.equal(loaded(input_ids=ids[:, :length]).last_hidden_state, found), length
        captured_at_one = captured_at_one or (length == 1 and _count(blocks))
    assert _count(blocks) == captured_at_one  # nothing after the first length


def _count(blocks: Any) -> int:
    return sum(len(block.variants) for block in blocks.values())
