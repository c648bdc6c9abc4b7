"""W8A8 checkpoints in the compressed-tensors layout, built here, compute what a plain float reading of the file says."""

from __future__ import annotations

import copy as copying
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from optimum_int8 import numerics
from optimum_int8.errors import CheckpointError
from optimum_int8.hub import OptimizedModel
from tests.hub.corpus import split
from tests.hub.helpers import edit_json, logits_of

pytestmark = pytest.mark.usefixtures("unfused")

COMMON = {"num_bits": 8, "type": "int", "group_size": None, "observer": "minmax"}
SCALE, ZERO_POINT = 0.04, -9
"""Of static inputs; the zero point is that of an asymmetric range, on the signed grid."""

KINDS = ("static", "static-asymmetric", "dynamic")


def publish(
    model: PreTrainedModel, folder: Path, kind: str = "dynamic", *, per_tensor: bool = False, dtype=torch.bfloat16
) -> Path:
    """Write what llm-compressor writes: int8 weights `[out, in]`, scales `[out, 1]` or `[1]`, the rest in `dtype`."""
    tensors = {name: tensor.detach().to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear) or name == "classifier":
            continue
        weight = module.weight.detach()
        scale = (weight.abs().amax().reshape(1) if per_tensor else weight.abs().amax(1, keepdim=True)) / 127.5
        tensors[f"{name}.weight"] = (weight / scale).round().clamp(-128, 127).to(torch.int8)
        tensors[f"{name}.weight_scale"] = scale.to(dtype)
        if kind != "dynamic":
            tensors[f"{name}.input_scale"] = torch.tensor([SCALE])
        if kind == "static-asymmetric":
            tensors[f"{name}.input_zero_point"] = torch.tensor([ZERO_POINT], dtype=torch.int8)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    strategy = {"strategy": "token", "dynamic": True} if kind == "dynamic" else {"strategy": "tensor", "dynamic": False}
    group = {
        "targets": ["Linear"],
        "weights": {**COMMON, "symmetric": True, "strategy": "tensor" if per_tensor else "channel", "dynamic": False},
        "input_activations": {**COMMON, "symmetric": kind != "static-asymmetric", **strategy},
        "output_activations": None,
    }
    config = model.config.to_dict()
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["re:(classifier|(a+)+$)"],
        "config_groups": {"group_0": group},
        "kv_cache_scheme": None,
    }
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [type(model).__name__]}))
    return folder


def on_the_grid(x: torch.Tensor, kind: str) -> torch.Tensor:
    """The float values that an input has after quantization as the file says, or per token as `numerics` says."""
    if kind == "dynamic":
        q, scale, zero_point = numerics.quantize_rows(x)
        return (q.float() - zero_point[..., None]) * scale[..., None]
    zero_point = ZERO_POINT if kind == "static-asymmetric" else 0
    return ((x / SCALE).round() + zero_point).clamp(-128, 127).sub(zero_point) * SCALE


def reference(model: PreTrainedModel, folder: Path, kind: str) -> PreTrainedModel:
    """The float model with the weights that the file holds, each quantized linear rounding its input to the grid."""
    stored = load_file(folder / "model.safetensors")
    plain = copying.deepcopy(model)
    plain.load_state_dict({name: stored[name].float() for name in plain.state_dict()})
    for name, module in plain.named_modules():
        if f"{name}.weight_scale" in stored:
            module.weight.data *= stored[f"{name}.weight_scale"].float()
            module.register_forward_pre_hook(lambda _, args: (on_the_grid(args[0], kind),))
    return plain


@torch.no_grad()
@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_computes_what_the_file_says(
    kind: str, per_tensor: bool, fp32_model: PreTrainedModel, input_ids: torch.Tensor, tmp_path: Path
) -> None:
    folder = publish(fp32_model, tmp_path / "w8a8", kind, per_tensor=per_tensor)
    model, plain = OptimizedModel.from_pretrained(folder), reference(fp32_model, folder, kind)
    metadata = model.config.quantization_config.to_dict()
    assert metadata["config"]["approach"] == kind.partition("-")[0]
    assert len(metadata["modules"]) == 13 and "classifier" not in metadata["modules"]
    stored = load_file(folder / "model.safetensors")
    assert any(bool((stored[f"{name}.weight"] == -128).any()) for name in metadata["modules"])
    for name in metadata["modules"]:
        ours, theirs = model.get_submodule(name), plain.get_submodule(name)
        assert torch.equal(ours.weight, theirs.weight)
        x = torch.randn(5, ours.in_features, generator=torch.Generator().manual_seed(7)) * 2
        expected = F.linear(on_the_grid(x, kind), theirs.weight, theirs.bias)
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits_of(model, input_ids), logits_of(plain, input_ids), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_per_token_inputs_are_no_coarser_than_symmetric_ones(fp32_model: PreTrainedModel, tmp_path: Path) -> None:
    model = OptimizedModel.from_pretrained(publish(fp32_model, tmp_path / "w8a8"))
    linear = model.get_submodule("pre_classifier")
    weight = linear.weight.clone()
    x = torch.randn(64, linear.in_features, generator=torch.Generator().manual_seed(3))
    exact = F.linear(x, weight, linear.bias)
    scale = x.abs().amax(-1, keepdim=True) / 127.5
    theirs = F.linear((x / scale).round().clamp(-128, 127) * scale, weight, linear.bias)
    assert (linear(x) - exact).square().mean() <= (theirs - exact).square().mean()


def test_sharded(fp32_model: PreTrainedModel, input_ids: torch.Tensor, tmp_path: Path) -> None:
    folder = publish(fp32_model, tmp_path / "w8a8", "static")
    expected = logits_of(OptimizedModel.from_pretrained(folder), input_ids)
    split(folder)
    assert len(list(folder.glob("*.safetensors"))) == 2
    assert torch.equal(logits_of(OptimizedModel.from_pretrained(folder), input_ids), expected)


def test_what_only_serves_a_quantized_cache_is_left_out(
    fp32_model: PreTrainedModel, input_ids: torch.Tensor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = publish(fp32_model, tmp_path / "w8a8")
    expected = logits_of(OptimizedModel.from_pretrained(folder), input_ids)
    file = folder / "model.safetensors"
    attention = "distilbert.transformer.layer.0.attention"
    save_file({**load_file(file), f"{attention}.k_scale": torch.ones(1), f"{attention}.v_scale": torch.ones(1)}, file)
    edit_json(folder / "config.json", lambda c: c["quantization_config"].update(kv_cache_scheme={"num_bits": 8}))
    assert torch.equal(logits_of(OptimizedModel.from_pretrained(folder), input_ids), expected)
    assert "KV cache" in caplog.text


def test_groups_that_differ_become_dynamic(
    fp32_model: PreTrainedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = publish(fp32_model, tmp_path / "w8a8", "static")

    def add(config: dict[str, Any]) -> None:
        groups = config["quantization_config"]["config_groups"]
        inputs = {**groups["group_0"]["input_activations"], "dynamic": True, "strategy": "token"}
        groups["group_1"] = {**groups["group_0"], "input_activations": inputs}

    edit_json(folder / "config.json", add)
    model = OptimizedModel.from_pretrained(folder)
    assert model.config.quantization_config.config["approach"] == "dynamic"
    assert "measured at run time" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q: q.update(format="pack-quantized"), "pack-quantized"),
        (lambda q: q.update(sparsity_config={"format": "sparse-24-bitmask"}), "sparse-24"),
        (lambda q: q.update(config_groups={}), "format"),
        (lambda q: q["config_groups"]["group_0"].update(input_activations=None), "float"),
        (lambda q: q["config_groups"]["group_0"]["weights"].update(num_bits=4), "4"),
        (lambda q: q["config_groups"]["group_0"]["weights"].update(strategy="group"), "group"),
        (lambda q: q["config_groups"]["group_0"]["weights"].update(symmetric=False), "asymmetric"),
        (lambda q: q["config_groups"]["group_0"]["weights"].update(type="float"), "float"),
        (lambda q: q["config_groups"].update(group_0="x"), "float"),
        (lambda q: q["config_groups"]["group_0"].update(format="pack-quantized"), "pack-quantized"),
        (lambda q: q["config_groups"]["group_0"].update(output_activations=COMMON), "outputs"),
        (lambda q: q["config_groups"]["group_0"]["input_activations"].update(dynamic="local"), "local"),
        (lambda q: q["config_groups"]["group_0"]["input_activations"].update(dynamic=False), "per token"),
        (lambda q: q.update(transform_config={"config_groups": {"u": {}}}), "rotations"),
    ],
)
def test_other_schemes_are_named(
    change: Callable[[dict], Any], message: str, fp32_model: PreTrainedModel, tmp_path: Path
) -> None:
    folder = publish(fp32_model, tmp_path / "w8a8")
    edit_json(folder / "config.json", lambda config: change(config["quantization_config"]))
    with pytest.raises(CheckpointError, match=message):
        OptimizedModel.from_pretrained(folder)


@pytest.mark.parametrize("damage", ["scale", "shape", "point", "none", "cut", "range", "long range"])
def test_damage_is_refused(damage: str, fp32_model: PreTrainedModel, tmp_path: Path) -> None:
    folder = publish(fp32_model, tmp_path / "w8a8", "static")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    if damage == "range":
        del tensors["pre_classifier.input_scale"]
    elif damage == "long range":
        tensors["pre_classifier.input_scale"] = torch.ones(64)
    elif damage == "scale":
        del tensors["pre_classifier.weight_scale"]
    elif damage == "shape":
        tensors["pre_classifier.weight_scale"] = torch.ones(7)
    elif damage == "point":
        tensors["pre_classifier.weight_zero_point"] = torch.ones(64, dtype=torch.int8)
    elif damage == "none":
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
    save_file(tensors, file)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(CheckpointError):
        OptimizedModel.from_pretrained(folder)
