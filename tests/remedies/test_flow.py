"""Edges are found where rescaling is safe, on real architectures, and nowhere else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from optimum_int8.remedies import Edge, find_edges
from optimum_int8.remedies.smooth import fold
from tests import zoo


def edges_of(model: nn.Module, batch: object) -> dict[str, tuple[str, ...]]:
    return {edge.source: edge.readers for edge in find_edges(model, batch).edges}


EXPECTED = {
    "bert": ("bert.encoder.layer.0.attention.self.value", ["bert.encoder.layer.0.attention.output.dense"]),
    "distilbert": ("distilbert.transformer.layer.1.attention.v_lin", ["distilbert.transformer.layer.1.attention.out_lin"]),
    "gpt2": ("transformer.h.1.ln_1", ["transformer.h.1.attn.c_attn"]),
    "llama": (
        "model.layers.0.input_layernorm",
        [f"model.layers.0.self_attn.{name}_proj" for name in "qkv"],
    ),
    "t5": ("decoder.block.1.layer.1.layer_norm", ["decoder.block.1.layer.1.EncDecAttention.q"]),
    "marian": ("model.decoder.layers.1.encoder_attn.v_proj", ["model.decoder.layers.1.encoder_attn.out_proj"]),
    "vit": ("vit.layernorm", ["classifier"]),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_rescaling_along_every_edge_changes_no_bit(name: str) -> None:
    model = zoo.make(name)
    batch = zoo.inputs(model)
    flow = find_edges(model, batch)
    source, readers = EXPECTED[name]
    assert Edge(source, tuple(readers), source.endswith(("norm", "ln_1"))) in flow.edges
    scaled = copy.deepcopy(model)
    draw = torch.Generator().manual_seed(0)
    for edge in flow.edges:
        columns = scaled.get_submodule(edge.readers[0])
        width = columns.in_features if isinstance(columns, nn.Linear) else columns.weight.shape[0]
        fold(scaled, edge, torch.exp2(torch.randint(-3, 4, (width,), generator=draw).float()))
    other = zoo.inputs(model, 3, 13, seed=5)
    assert torch.equal(zoo.logits(scaled, other), zoo.logits(model, other))
    assert not torch.equal(dict(scaled.named_parameters())[f"{source}.weight"], model.get_parameter(f"{source}.weight"))


@pytest.mark.parametrize("name", ["bert", "distilbert", "marian", "bart"])
def test_a_norm_that_the_residual_stream_reads_is_left_alone(name: str) -> None:
    model = zoo.make(name)
    flow = find_edges(model, zoo.inputs(model))
    assert not [edge for edge in flow.edges if edge.from_norm]
    assert any("read by add" in reason for reason in flow.obstacles.values())


@pytest.mark.parametrize(("name", "head"), [("gpt2", "lm_head"), ("llama", "lm_head")])
def test_what_the_model_returns_is_left_alone(name: str, head: str) -> None:
    model = zoo.make(name)
    assert "returned by the model" in find_edges(model, zoo.inputs(model)).obstacles[head]


class Toy(nn.Module):
    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = norm or nn.LayerNorm(8)
        self.first, self.second = nn.Linear(8, 6), nn.Linear(8, 6)
        self.last = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.last(torch.relu(self.first(x)) + self.second(x))


X = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


def test_two_readers() -> None:
    assert edges_of(Toy(), X) == {"norm": ("first", "second")}


class Direct(Toy):
    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.last(self.first(x) + x @ self.second.weight.T)


class InPlace(Toy):
    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        y = self.first(x)
        x.add_(1.0)
        return self.last(y + self.second(x))


class Twice(Toy):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(self.norm(x)) + self.first(self.norm(x + 1)))


class Cut(Toy):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(self.norm(x)[..., [1, 0, 2, 3, 4, 5, 6, 7]]) + self.second(x))


@pytest.mark.parametrize("toy", [Direct, InPlace, Twice, Cut])
def test_another_reader_blocks_a_norm(toy: type[Toy]) -> None:
    assert "norm" not in edges_of(toy(), X)


def test_a_shared_linear_is_left_alone() -> None:
    model = Toy()
    model.second.weight = model.first.weight
    assert edges_of(model, X) == {}


def test_a_norm_whose_weight_does_not_scale_is_left_alone() -> None:
    class OnePlusNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(8))

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)

    flow = find_edges(Toy(OnePlusNorm()), X)
    assert "does not scale" in flow.obstacles["first"] and not flow.edges


def test_a_relu_lets_channels_pass_and_a_gelu_does_not() -> None:
    relu = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    assert edges_of(nn.Sequential(relu), X) == {"0.0": ("0.2",)}
    gelu = nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 4))
    assert edges_of(nn.Sequential(gelu), X) == {}


def test_leaves_no_hook_and_no_mode_behind() -> None:
    model = Toy().train()
    find_edges(model, X)
    assert model.training and not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
