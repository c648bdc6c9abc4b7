"""Static models whose tokens differ by a lot: the linears that they flow into measure a range per token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimum_int8 import CheckpointError, Int8Config, OptimizedModel, inspect, quantize
from optimum_int8.nn import Int8Linear
from optimum_int8.passes import remove
from optimum_int8.restore import build_skeleton
from tests.models import batch, classifier, logits

LOW = 0.6
"""A limit that the ordinary tokens of a small classifier exceed in some of its linears, and not in others."""


def outliers() -> Tensor:
    """64 tokens, two of which are 60 times larger."""
    x = torch.randn(1, 64, 32, generator=torch.Generator().manual_seed(0))
    x[:, :2] *= 60.0
    return x


def made(x: Tensor, **settings: Any) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 48), nn.LayerNorm(48), nn.Linear(48, 16)).eval()
    return model, quantize(model, Int8Config(**{"approach": "static", **settings}), [(x,)], progress=False)


def error_of_ordinary_tokens(model: nn.Module, int8: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        exact, found = model(x)[:, 2:], int8(x)[:, 2:]
    return float((exact - found).norm() / exact.norm())


def test_outlier_tokens_no_longer_ruin_the_others() -> None:
    x = outliers()
    model, spared = made(x)
    _, plain = made(x, max_lost_bits=None)
    assert [module.input_scale is None for module in spared if isinstance(module, Int8Linear)] == [True, False]
    assert all(module.input_scale is not None for module in plain if isinstance(module, Int8Linear))
    assert error_of_ordinary_tokens(model, spared, x) < 0.1 * error_of_ordinary_tokens(model, plain, x)


def test_ordinary_tokens_share_one_range() -> None:
    _, int8 = made(torch.randn(1, 64, 32))
    assert all(module.input_scale is not None for module in int8 if isinstance(module, Int8Linear))


@pytest.mark.parametrize(
    "settings", [{"approach": "qat"}, {"activation_bits": 6}, {"max_lost_bits": None}], ids=lambda s: next(iter(s))
)
def test_where_nothing_is_measured_per_token(settings: dict[str, Any]) -> None:
    if settings.get("approach") == "qat":
        assert not Int8Config(**settings).spares_tokens
        return
    _, int8 = made(outliers(), **settings)
    assert all(module.input_scale is not None for module in int8 if isinstance(module, Int8Linear))


def mixed(**settings: Any) -> Any:
    config = Int8Config(approach="static", max_lost_bits=LOW, **settings)
    return quantize(classifier(), config, [batch(), batch(4, 17, 0, 2)], progress=False)


@pytest.mark.slow
def test_saved_loaded_and_fused(tmp_path: Path) -> None:
    int8 = mixed()
    names = int8.config.quantization_config["per_token"]
    linears = [name for name, module in int8.named_modules() if isinstance(module, Int8Linear)]
    assert 0 < len(names) < len(linears)
    found = logits(int8, **batch())
    report = inspect(int8)
    assert report.block_share > 0.9 and report.int8_share > 0.99
    OptimizedModel.save_pretrained(int8, tmp_path)
    again = OptimizedModel.from_pretrained(tmp_path)
    assert {n for n in linears if again.get_submodule(n).input_scale is None} == set(names)
    assert torch.equal(logits(again, **batch()), found)
    remove(int8)
    unfused = logits(int8, **batch())
    assert float((found - unfused).norm() / unfused.norm()) < 0.03


@pytest.mark.slow
def test_a_headless_model_takes_its_part(tmp_path: Path) -> None:
    from transformers import AutoModel

    int8 = mixed()
    OptimizedModel.save_pretrained(int8, tmp_path)
    body = AutoModel.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(body(**batch()).last_hidden_state, int8.bert(**batch()).last_hidden_state)


@pytest.mark.parametrize("names", [["no.such"], "classifier", [3], ["bert.embeddings.word_embeddings"]])
def test_a_damaged_list_is_refused(names: Any, tmp_path: Path) -> None:
    int8 = mixed()
    int8.config.quantization_config["per_token"] = names
    with pytest.raises(CheckpointError, match="per_token"):
        OptimizedModel.save_pretrained(int8, tmp_path)
        OptimizedModel.from_pretrained(tmp_path)


def test_a_skeleton_lacks_their_scales() -> None:
    int8 = mixed()
    metadata = int8.config.quantization_config
    with torch.device("meta"):
        empty = classifier()
    build_skeleton(empty, metadata)
    assert set(empty.state_dict()) == set(int8.state_dict())
