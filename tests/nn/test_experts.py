"""Mixture of experts whose matrices lie in one parameter: found, INT8 per expert, right for whoever reads them, saved and loaded."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from optimum_int8 import Int8Config, OptimizedModel, QuantizationError, inspect, numerics, quantize
from optimum_int8.nn import FloatExperts, Int8Experts
from optimum_int8.sites import expose_experts, find_experts

SIZES = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": 2,
}  # fmt: skip
LATENT = {
    "kv_lora_rank": 16, "q_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16, "n_group": 2,
    "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1, "n_routed_experts": 4,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen3Moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "head_dim": 16},
    "Olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "GptOss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
    "DeepseekV3": {"moe_intermediate_size": 48, "num_experts_per_tok": 2, "num_key_value_heads": 4, **LATENT},
    "JetMoe": {"num_local_experts": 4, "num_experts_per_tok": 2, "kv_channels": 16},
    "GraniteMoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
}
IDS = torch.randint(5, 60, (4, 48), generator=torch.Generator().manual_seed(1))
ONLY_EXPERTS = ("Linear", "Embedding")


def make(name: str) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **MODELS[name]})
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * parameter.shape[-1] ** -0.5)
    return model


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def fake_quantized(model: nn.Module) -> nn.Module:
    """A copy whose experts' matrices and rows are rounded as INT8 rounds them, in float."""
    model = copy.deepcopy(model)
    expose_experts(model, find_experts(model))
    for slot in model.modules():
        if isinstance(slot, FloatExperts):
            slot.forward = _fake_forward(slot)  # type: ignore[method-assign]
    return model


def _fake_forward(slot: FloatExperts) -> Callable[..., Tensor]:
    def forward(x: Tensor, expert: int, bias: Tensor | None = None) -> Tensor:
        weight, scale = numerics.quantize_weight(slot.matrix(expert).detach())
        q, s, z = numerics.quantize_rows(x)
        rows = (q.float() - z.unsqueeze(-1)) * s.unsqueeze(-1)
        return F.linear(rows, weight.float() * scale.unsqueeze(-1), bias)

    return forward


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_experts_round_as_fake_quantization_does(name: str) -> None:
    model = make(name)
    int8 = quantize(model, Int8Config(exclude_types=ONLY_EXPERTS, attention="float32"), progress=False)
    kinds = int8.config.quantization_config["modules"].values()
    assert set(kinds) == {"experts"}
    exact, simulated, found = (m(IDS).logits for m in (model, fake_quantized(model), int8))
    assert 0 < relative(found, exact) < 1.5 * relative(simulated, exact) + 1e-3
    assert relative(found, simulated) < 5e-3  # a value at a tie is rounded the other way and carries on


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("approach", ["dynamic", "static"])
@pytest.mark.parametrize("name", MODELS)
def test_models_are_covered_and_load_to_the_bit(name: str, approach: str, tmp_path: Path) -> None:
    model, batch = make(name), {"input_ids": IDS}
    int8 = quantize(model, Int8Config(approach=approach, attention="float32"), [batch], progress=False)
    assert inspect(int8, batch).int8_share >= 0.95
    expected = int8(IDS).logits
    OptimizedModel.save_pretrained(int8, tmp_path)
    loaded = OptimizedModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(IDS).logits, expected)
    assert torch.equal(copy.deepcopy(loaded)(IDS).logits, expected)
    assert loaded.config._experts_implementation == "eager" or name == "JetMoe"


class Router(nn.Linear):
    """Float: it reads signs alone, so that no token changes its expert when the rest becomes INT8."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input.float().sign(), self.weight.float(), self.bias.float())


class Routed(nn.Module):
    """A mixture written by hand: each token goes to one expert, whose matrices lie as `[experts, in, out]` and `[experts, out, in]`."""

    def __init__(self, experts: int = 4, width: int = 32, inner: int = 48) -> None:
        super().__init__()
        self.router = Router(width, experts)
        self.up = nn.Parameter(torch.randn(experts, width, inner) / 6)
        self.down, self.bias = (
            nn.Parameter(torch.randn(experts, width, inner) / 7),
            nn.Parameter(torch.randn(experts, width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        choice, out = self.router(x).argmax(-1), torch.zeros_like(x)
        for expert in choice.unique():
            rows = choice == expert
            weight = self.down[expert]
            out[rows] = F.linear(torch.relu(x[rows] @ self.up[expert]), weight, self.bias[expert])
        return out


class AllAtOnce(nn.Module):
    """Every expert for every token, by `torch.bmm` on the stack, as Llama 4 and Inkling have it."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(3, 32, 48) / 6), nn.Parameter(torch.randn(3, 32, 48) / 7)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.bmm(x.expand(3, *x.shape), self.up)
        return torch.bmm(torch.relu(y), self.down.transpose(1, 2)).sum(0)


X = torch.randn(200, 32, generator=torch.Generator().manual_seed(2))


def small(kind: type[nn.Module] = Routed) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(kind(), nn.Linear(32, 8)).eval()


@torch.no_grad()
@pytest.mark.parametrize("approach", ["dynamic", "static"])
@pytest.mark.parametrize("kind", [Routed, AllAtOnce])
def test_a_module_written_by_hand(kind: type[nn.Module], approach: str) -> None:
    model = small(kind)
    int8 = quantize(model, Int8Config(approach=approach), [X], progress=False)
    modules = int8.int8_metadata["modules"]  # type: ignore[operator]
    assert (modules["0.up"], modules["0.down"]) == ("experts", "experts")  # type: ignore[index]
    assert 0 < relative(int8(X), model(X)) < 0.03
    assert isinstance(model[0].up, nn.Parameter)  # type: ignore[index]
    assert inspect(int8, X).int8_share > 0.95
    assert inspect(int8).single["0.up"] == "Int8Experts"
    copied = pickle.loads(pickle.dumps(int8))
    assert torch.equal(copied(X), int8(X))


@torch.no_grad()
def test_whoever_reads_a_stack_gets_its_float_values() -> None:
    model = small()
    before: Tensor = model[0].up.clone()  # type: ignore[index, union-attr, operator]
    slot = quantize(model, Int8Config(), progress=False)[0].up  # type: ignore[index, union-attr]
    assert isinstance(slot, Int8Experts)
    assert (slot.shape, slot.dtype, slot.dim()) == (before.shape, before.dtype, 3)
    assert relative(slot * 1.0, before) < 0.01  # type: ignore[operator]
    assert torch.equal(slot.to(torch.bfloat16), (slot * 1.0).to(torch.bfloat16))  # type: ignore[call-overload, operator]
    assert torch.equal(torch.einsum("ti,eio->teo", X, slot), torch.einsum("ti,eio->teo", X, slot * 1.0))  # type: ignore[operator, call-overload]
    chosen = torch.tensor([2, 0])
    assert torch.equal(slot[chosen] + 0.0, (slot * 1.0)[chosen])  # type: ignore[operator]
    assert torch.equal(slot[1].T.contiguous() + 0.0, (slot * 1.0)[1].T)  # type: ignore[operator]
    assert torch.equal(slot[:2].sum(0), (slot * 1.0)[:2].sum(0))  # type: ignore[operator]
    with pytest.raises(IndexError):
        slot[4]


@torch.no_grad()
def test_an_expert_that_calibration_never_reached_is_dynamic() -> None:
    model = small()
    model[0].router.bias[3] = -1e9  # type: ignore[index, union-attr, operator]
    int8 = quantize(model, Int8Config(approach="static"), [X], progress=False)
    calibrated = int8[0].up.calibrated  # type: ignore[index, union-attr]
    assert calibrated.tolist() == [True, True, True, False]
    note = int8.int8_metadata["remedies"]["experts"]["0.up"]  # type: ignore[index]
    assert note == "1 of 4 experts measure a range per token"
    dynamic = quantize(model, Int8Config(), progress=False)
    forward = [m[0].up(X, 3) for m in (int8, dynamic)]  # type: ignore[index, union-attr, operator]
    assert torch.equal(*forward)
    forward = [m[0].up(X * 9, 0) for m in (int8, dynamic)]  # type: ignore[index, union-attr, operator]
    assert not torch.equal(*forward)


@torch.no_grad()
@pytest.mark.parametrize("name", ["Mixtral", "Qwen3Moe", "Olmoe"])
def test_experts_that_a_step_does_not_reach_are_not_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    int8 = quantize(make(name), Int8Config(), progress=False)
    cache = int8(IDS[:1, :8], use_cache=True).past_key_values
    reached: dict[Int8Experts, set[int]] = {m: set() for m in int8.modules() if isinstance(m, Int8Experts)}
    forward = Int8Experts.forward
    monkeypatch.setattr(
        Int8Experts, "forward", lambda self, x, i, *a: (reached[self].add(int(i)), forward(self, x, i, *a))[1]
    )
    expected = int8(IDS[:1, 8:9], past_key_values=copy.deepcopy(cache)).logits
    assert reached and all(len(found) == 2 for found in reached.values())
    for experts, found in reached.items():
        for other in set(range(len(experts))) - found:
            experts.weight_scale[other] = float("nan")
    assert torch.equal(int8(IDS[:1, 8:9], past_key_values=cache).logits, expected)


@torch.no_grad()
@pytest.mark.parametrize("exclude", ["0", "0.up", "0.down"])
def test_exclude_by_name(exclude: str) -> None:
    int8 = quantize(small(), Int8Config(exclude=(exclude,)), progress=False)
    assert int8.int8_metadata["fp32"][exclude if exclude != "0" else "0.up"] == "excluded by name"  # type: ignore[index]
    for name in ("up", "down"):
        is_float = exclude in ("0", f"0.{name}")
        assert isinstance(getattr(int8[0], name), nn.Parameter if is_float else Int8Experts)  # type: ignore[index]
    with pytest.raises(QuantizationError, match="exclude names a module"):
        quantize(small(), Int8Config(exclude=("0.left",)), progress=False)


@torch.no_grad()
def test_an_excluded_mixture_keeps_its_implementation() -> None:
    model = make("Mixtral")
    names = tuple(f"model.layers.{i}.mlp.experts" for i in range(2))
    int8 = quantize(model, Int8Config(exclude=names), progress=False)
    assert int8.config._experts_implementation == model.config._experts_implementation == "grouped_mm"
    assert quantize(model, Int8Config(), progress=False).config._experts_implementation == "eager"


@torch.no_grad()
def test_another_implementation_reads_float_values() -> None:
    model = make("Mixtral")
    int8 = quantize(model, Int8Config(exclude_types=ONLY_EXPERTS, attention="float32"), progress=False)
    for implementation in ("batched_mm", "grouped_mm"):
        int8.config._experts_implementation = implementation  # type: ignore[union-attr]
        assert 0 < relative(int8(IDS).logits, model(IDS).logits) < 0.06


@torch.no_grad()
def test_state_and_casts() -> None:
    first, second = (quantize(small(), Int8Config(), progress=False) for _ in range(2))
    state = first.state_dict()
    assert state["0.up.weight"].shape == (4, 48, 32, 1) and state["0.up.weight"].dtype == torch.int8
    second[0].up.weight_scale.mul_(2)  # type: ignore[index, union-attr, operator]
    second.load_state_dict(state)
    assert torch.equal(second(X), first(X))
    half = copy.deepcopy(first).bfloat16()
    assert half[0].up.dtype == torch.bfloat16 and half[0].up.weight_scale.dtype == torch.float32  # type: ignore[index, union-attr]
    assert relative(half(X.bfloat16()).float(), first(X)) < 0.02


@torch.no_grad()
@pytest.mark.parametrize("approach", ["dynamic", "static"])
def test_sensitivity_of_a_stack(approach: str) -> None:
    from optimum_int8.quantization import prepare_copy
    from optimum_int8.tuning.sensitivity import measure_sensitivity

    rows = measure_sensitivity(prepare_copy(small(), Int8Config(approach=approach), [X]), [X], distributions=True)
    found = {row.name: row for row in rows}
    assert 0 < found["0.up"].site_error < 0.05
    assert found["0.up"].macs == pytest.approx(48 / (48 * 2 + 8))
