"""A Transformers model with recurrent layers: saved, and loaded to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from optimum_int8 import Int8Config, quantize
from optimum_int8.errors import CheckpointError
from optimum_int8.nn import Int8GRU, Int8LSTM


class SpeechConfig(PretrainedConfig):
    model_type = "recurrent_test"


class Speech(PreTrainedModel):
    """Two recurrent layers and a head."""

    config_class = SpeechConfig
    _supports_sdpa = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.first = nn.LSTM(12, 20, num_layers=2, bidirectional=True, batch_first=True)
        self.second = nn.GRU(40, 24, batch_first=True, bias=False)
        self.head = nn.Linear(24, 6)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        for parameter in module.parameters(recurse=False):
            nn.init.normal_(parameter, std=0.3)

    def forward(self, values: Tensor) -> Tensor:
        return self.head(self.second(self.first(values)[0])[0])


def made(approach: Any) -> tuple[Speech, Tensor]:
    torch.manual_seed(0)
    model, values = Speech(SpeechConfig()).eval(), torch.randn(2, 7, 12)
    data = [{"values": values}] if approach == "static" else None
    return quantize(model, Int8Config(approach=approach), data, progress=False), values  # type: ignore[return-value]


@torch.no_grad()
@pytest.mark.parametrize("approach", ["dynamic", "static"])
def test_saved_and_loaded_to_the_bit(approach: str, tmp_path: Path) -> None:
    int8, values = made(approach)
    expected = int8(values)  # captured here, and stored
    int8.save_pretrained(tmp_path)
    loaded = Speech.from_pretrained(tmp_path)
    assert [type(loaded.first), type(loaded.second)] == [Int8LSTM, Int8GRU]
    assert torch.equal(loaded(values), expected)
    assert torch.equal(loaded(values[:1, :3]), int8(values[:1, :3]))
    stored = load_file(tmp_path / "model.safetensors")
    assert stored["first.weight_hh_l1_reverse"].dtype == torch.int8
    assert stored.keys() == int8.state_dict().keys()
    half = Speech.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.first._buffers["bias_ih_l0"].dtype == torch.float32
    assert half.first.weight_ih_l0_scale.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("first.weight_ih_l0_scale", 0.0, "values above 0"),
        ("second.weight_hh_l0_scale", float("nan"), "finite"),
        ("second.weight_hh_l0_scale", None, "second.weight_hh_l0_scale"),
        ("first.bias_hh_l1", None, "first.bias_hh_l1"),
        ("first.weight_hh_l1", None, "first.weight_hh_l1"),
    ],
)
def test_a_damaged_tensor_is_refused(name: str, value: float | None, found: str, tmp_path: Path) -> None:
    int8, _ = made("dynamic")
    int8.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    if value is None:
        del stored[name]
    else:
        stored[name][1] = value
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=found):
        Speech.from_pretrained(tmp_path)


def test_scales_in_another_type_are_refused(tmp_path: Path) -> None:
    int8, _ = made("dynamic")
    int8.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    stored["first.weight_ih_l0_scale"] = stored["first.weight_ih_l0_scale"].to(torch.bfloat16)
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"first\.weight_ih_l0_scale"):
        Speech.from_pretrained(tmp_path)
