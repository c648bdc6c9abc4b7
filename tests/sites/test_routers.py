"""Routers stay FP32: what chooses experts, by whatever code, and nothing else that is chosen from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from optimum_int8 import Int8Config, OptimizedModel, QuantConf, calibrate, convert, inspect, quantize
from optimum_int8.sites import find_routers
from tests.nn.test_experts import IDS, MODELS, SIZES, make

REASON = "a router: an INT8 step could choose another expert"


def mlp(width: int = 32) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 48), nn.ReLU(), nn.Linear(48, width))


class Block(nn.Module):
    """A list of experts, each called with the tokens that chose it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(32, 4, bias=False)
        self.parts = nn.ModuleList(mlp() for _ in range(4))

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = F.softmax(logits, -1, dtype=torch.float)
        weights, chosen = torch.topk(probabilities, 2, dim=-1)
        return weights, chosen

    def forward(self, x: Tensor) -> Tensor:
        logits = self.gate(x)
        weights, chosen = self.choose(logits)
        out = torch.zeros_like(x)
        for i, part in enumerate(self.parts):
            rows, column = torch.where(chosen == i)
            out.index_add_(0, rows, part(x[rows]) * weights[rows, column, None])
        return out


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(32, 32)
        self.weight = nn.Parameter(torch.randn(4, 32) / 6)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.first(x)), self.weight)


def best(scores: Tensor) -> Tensor:
    return scores.sigmoid().argmax(dim=-1)


class HeldBlock(nn.Module):
    """The gate returns logits; what holds it chooses, by a function of its file, and picks a member of a list."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.norm = nn.LayerNorm(4)
        self.parts = nn.ModuleList(mlp() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.norm(self.gate(x))
        chosen = best(scores=scores)
        return torch.stack([self.parts[i](row) for i, row in zip(chosen.tolist(), x, strict=True)])


class Stack(nn.Module):
    """Experts in one parameter, beside the router that is one too."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 32) / 6)
        self.up = nn.Parameter(torch.randn(4, 32, 32) / 6)
        self.shared = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        out = self.shared(x)
        chosen = (x @ self.weight.T).topk(1, dim=-1).indices.squeeze(-1)
        for expert in chosen.unique():
            rows = chosen == expert
            out[rows] += x[rows] @ self.up[expert]
        return out


class Detector(nn.Module):
    """No experts: the best boxes are what is chosen, from scores of a linear that others choose by too."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.ModuleList((mlp(), mlp()))
        self.score = nn.Linear(32, 5)
        self.decoder = mlp()

    def forward(self, x: Tensor) -> Tensor:
        for part in self.project:
            x = part(x)
        best = torch.topk(self.score(x).max(-1).values, 6).indices
        return self.decoder(x[best])


class Sampler(nn.Module):
    """A head from which a token is chosen, around a model with experts."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Stack()
        self.head = nn.Linear(32, 9)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(self.body(x))
        kept = logits.topk(3).values[..., -1:]
        return logits.masked_fill(logits < kept, -1e4)


ROUTERS = {
    Block: {"0.gate"},
    HeldBlock: {"0.gate.first", "0.gate.weight"},
    Stack: {"0.weight"},
    Detector: set(),
    Sampler: {"0.body.weight"},
}
X = torch.randn(40, 32, generator=torch.Generator().manual_seed(2))


def small(kind: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(kind(), nn.Linear(32 if kind is not Sampler else 9, 8)).eval()


@torch.no_grad()
@pytest.mark.parametrize("kind", ROUTERS)
@pytest.mark.parametrize("approach", ["dynamic", "static", "no data"])
def test_routers_written_by_hand(kind: Any, approach: str) -> None:
    model = small(kind)
    assert find_routers(model) == ROUTERS[kind]
    config = Int8Config(approach="dynamic" if approach == "no data" else approach)
    int8 = quantize(model, config, None if approach == "no data" else [X], progress=False)
    metadata: Any = int8.int8_metadata
    found = {name.removesuffix(".linear") for name, reason in metadata["fp32"].items() if reason == REASON}
    assert found == ROUTERS[kind]
    assert not found & {name.removesuffix(".linear") for name in metadata["modules"]}
    parts = {part.path: part for part in inspect(int8, X).parts if not part.int8}
    assert found <= {*parts} and all(parts[name].reason == REASON for name in found)


@torch.no_grad()
@pytest.mark.parametrize("kind", [Block, HeldBlock, Stack])
def test_a_recipe_leaves_routers_in_fp32(kind: Any) -> None:
    model = small(kind)
    conf = QuantConf()
    with calibrate(conf):
        model(X)
    int8 = convert(model, conf, X)
    path = sorted(ROUTERS[kind])[0]
    found, expected = (m.get_submodule(path.removesuffix(".weight")).weight for m in (int8, model))
    assert isinstance(found, nn.Parameter) and torch.equal(found, expected)  # type: ignore[arg-type]
    assert not isinstance(int8.get_submodule("1"), nn.Linear) or kind is not Block


@torch.no_grad()
@pytest.mark.parametrize("data", [None, [{"input_ids": IDS}]], ids=["without data", "with data"])
@pytest.mark.parametrize("name", MODELS)
def test_routers_of_transformers(name: str, data: Any) -> None:
    model = make(name)
    routers = find_routers(model)
    layers = 1 if name == "DeepseekV3" else 4 if name == "JetMoe" else 2
    assert len(routers) == layers
    int8 = quantize(model, Int8Config(), data, progress=False)
    metadata: Any = int8.config.quantization_config  # type: ignore[union-attr]
    assert {n.removesuffix(".linear") for n, reason in metadata["fp32"].items() if reason == REASON} == routers
    assert not any("gate." in n or "router" in n for n in metadata["modules"])
    for router in routers:
        path, _, leaf = router.rpartition(".")
        found, expected = (getattr(m.get_submodule(path), leaf) for m in (int8, model))
        found, expected = (t if isinstance(t, Tensor) else t.weight for t in (found, expected))
        assert torch.equal(found, expected)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", ["Mixtral", "Qwen3Moe", "Olmoe"])
def test_routers_are_the_same_with_and_without_data_and_after_loading(name: str, tmp_path: Path) -> None:
    model = make(name)
    found, traced = (quantize(model, Int8Config(), data, progress=False) for data in (None, [{"input_ids": IDS}]))
    modules = [m.config.quantization_config["modules"] for m in (found, traced)]
    assert modules[0] == modules[1]
    expected = found(IDS).logits
    assert torch.equal(traced(IDS).logits, expected)
    OptimizedModel.save_pretrained(found, tmp_path)
    assert torch.equal(OptimizedModel.from_pretrained(tmp_path)(IDS).logits, expected)


CLASSES: dict[str, dict[str, Any]] = {
    "SwitchTransformers": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 2, "num_experts": 4,
        "num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 2},
    "HunYuanMoEV1": {"num_experts": 4, "moe_topk": 2, "head_dim": 16},
    "Ernie4_5_Moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 48, "moe_layer_start_index": 0},
    "Jamba": {"num_experts": 4, "expert_layer_period": 1, "expert_layer_offset": 0, "use_mamba_kernels": False},
    "Doge": {"is_moe": True, "num_experts": 16, "num_experts_per_tok": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_gates_that_are_linears_and_routers_of_others(name: str) -> None:
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **CLASSES[name]})
    suffix = "ForConditionalGeneration" if name == "SwitchTransformers" else "ForCausalLM"
    model = getattr(transformers, name + suffix)(config).eval()
    ends = {
        "SwitchTransformers": "router.classifier",
        "HunYuanMoEV1": "gate.wg",
        "Jamba": "router.weight",
        "Doge": "router_gate",
    }
    routers = find_routers(model)
    assert routers and all(n.endswith(ends.get(name, "gate.weight")) for n in routers)
    metadata: Any = quantize(model, Int8Config(), progress=False).config.quantization_config  # type: ignore[union-attr]
    assert {n.removesuffix(".linear") for n, reason in metadata["fp32"].items() if reason == REASON} == routers


@pytest.mark.parametrize("name", ["Informer", "Autoformer"])
def test_attention_that_chooses_has_no_routers(name: str) -> None:
    config = getattr(transformers, f"{name}Config")(
        prediction_length=4, context_length=8, lags_sequence=[1, 2], d_model=16, encoder_layers=1, decoder_layers=1
    )
    assert not find_routers(getattr(transformers, f"{name}Model")(config))


@torch.no_grad()
def test_a_bare_parameter_that_is_no_router_is_found_without_data() -> None:
    class Projection(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(64, 64) / 8)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight)

    model = make("Mixtral")
    model.model.layers[1].mlp.after = Projection()
    modules: Any = quantize(model, Int8Config(), progress=False).config.quantization_config["modules"]  # type: ignore[union-attr]
    assert modules["model.layers.1.mlp.after.weight.linear"] == "linear"
    assert not [name for name in modules if "gate.weight" in name]
