"""`find_sites`: what becomes INT8, and the reasons of the rest."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from optimum_int8 import Int8Config, QuantizationError, numerics
from optimum_int8.sites import find_sites
from tests.models import classifier


class Scaled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


class Positions(nn.Embedding):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight[x + 1]


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 8)
        self.first = nn.Linear(8, 8)
        self.second = Conv1D(4, 8)
        self.again = self.first
        self.norm = nn.LayerNorm(4)


def test_finds_each_kind_in_a_transformers_model() -> None:
    sites = find_sites(classifier(), Int8Config())
    assert not sites.fp32
    assert len(sites.of_kind("linear")) == 14  # six in each layer, pooler, classifier
    assert sites.of_kind("embedding") == [f"bert.embeddings.{n}_embeddings" for n in ("word", "position", "token_type")]
    assert sites.of_kind("attention") == [f"bert.encoder.layer.{i}.attention.self" for i in (0, 1)]


def test_a_shared_module_is_one_site_under_its_first_name() -> None:
    assert find_sites(Plain(), Int8Config()).int8 == {"table": "embedding", "first": "linear", "second": "linear"}


def test_a_model_that_is_one_linear_is_refused() -> None:
    with pytest.raises(QuantizationError, match="single Linear"):
        find_sites(nn.Linear(4, 4), Int8Config())


def test_exclude_by_exact_name_takes_what_is_below() -> None:
    sites = find_sites(classifier(), Int8Config(exclude=("bert.encoder.layer.0", "classifier")))
    assert sites.fp32["classifier"] == "excluded by name"
    below = [name for name in sites.fp32 if name.startswith("bert.encoder.layer.0.")]
    assert len(below) == 7  # six linears and the attention core
    assert not [name for name in sites.int8 if name.startswith("bert.encoder.layer.0")]
    assert [name for name in sites.int8 if name.startswith("bert.encoder.layer.1.")]


def test_a_name_is_no_prefix_and_no_pattern() -> None:
    model = nn.ModuleDict({"fc": nn.Linear(4, 4), "fc1": nn.Linear(4, 4), "axb": nn.Linear(4, 4)})
    assert find_sites(model, Int8Config(exclude=("fc",))).int8 == {"fc1": "linear", "axb": "linear"}
    for wrong in ("fc.", "f", "a.b", ".*", "fc2"):
        with pytest.raises(QuantizationError, match="does not have: .*names are exact"):
            find_sites(model, Int8Config(exclude=(wrong,)))


def test_exclude_by_type() -> None:
    sites = find_sites(classifier(), Int8Config(exclude_types=("BertPooler", "Embedding")))
    assert sites.fp32["bert.pooler.dense"] == "excluded by type BertPooler"
    assert sites.fp32["bert.embeddings.word_embeddings"] == "excluded by type Embedding"
    assert not sites.of_kind("embedding")
    assert len(sites.of_kind("linear")) == 13


def test_modules_with_a_forward_of_their_own_stay_fp32() -> None:
    model = nn.ModuleDict({"linear": Scaled(4, 4), "table": Positions(9, 4), "ok": nn.Linear(4, 4)})
    sites = find_sites(model, Int8Config())
    assert sites.int8 == {"ok": "linear"}
    assert sites.fp32["linear"].startswith("Scaled is a Linear with a forward of its own")
    assert sites.fp32["table"].startswith("Positions is an Embedding with a forward of its own")


def test_other_obstacles_have_their_reason() -> None:
    most = numerics.MAX_REDUCTION
    model = nn.ModuleDict(
        {"wide": nn.Linear(most + 1, 1), "clipped": nn.Embedding(4, 4, max_norm=1.0), "ok": nn.Linear(most, 1)}
    )
    sites = find_sites(model, Int8Config())
    assert sites.int8 == {"ok": "linear"}
    assert f"{most + 1} inputs can overflow int32" in sites.fp32["wide"]
    assert "max_norm" in sites.fp32["clipped"]


def test_settings_leave_embeddings_and_attention_to_torch() -> None:
    sites = find_sites(classifier(), Int8Config(quantize_embeddings=False, attention="float32"))
    assert set(sites.int8.values()) == {"linear"}
    assert sites.fp32["bert.embeddings.word_embeddings"] == "quantize_embeddings is off"
    assert sites.fp32["bert.encoder.layer.0.attention.self"] == "attention is set to float32"


@pytest.mark.parametrize(
    ("model", "config", "why"),
    [
        (nn.LayerNorm(4), Int8Config(), "no Linear, Conv1D, Conv1d, Conv2d or Embedding"),
        (nn.Linear(4, 4), Int8Config(exclude_types=("Linear",)), "excluded by type Linear"),
        (nn.Sequential(Scaled(4, 4)), Int8Config(), "forward of its own"),
    ],
)
def test_nothing_to_quantize_is_an_error_that_says_why(model: nn.Module, config: Int8Config, why: str) -> None:
    with pytest.raises(QuantizationError, match=f"nothing to quantize: .*{why}"):
        find_sites(model, config)


def test_an_attention_core_alone_is_nothing_to_quantize() -> None:
    with pytest.raises(QuantizationError, match="nothing to quantize"):
        find_sites(classifier(), Int8Config(exclude_types=("Linear", "Embedding")))


def test_names_that_were_in_nn_stay_importable() -> None:
    from optimum_int8 import nn as int8_nn
    from optimum_int8 import sites

    moved = (
        "LINEAR",
        "Sites",
        "bare_parameters",
        "expose",
        "expose_experts",
        "find_experts",
        "find_routers",
        "find_sites",
    )
    assert all(getattr(int8_nn, name) is getattr(sites, name) for name in moved)
    with pytest.raises(AttributeError, match="no_such_name"):
        int8_nn.no_such_name  # noqa: B018
