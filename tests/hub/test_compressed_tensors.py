"""W8A8 checkpoints in the compressed-tensors layout, built here, load as INT8 models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from optimum_int8.errors import CheckpointError
from optimum_int8.hub import OptimizedModel
from tests.hub.helpers import edit_json, logits_of

pytestmark = pytest.mark.usefixtures("unfused")

SCHEME = {"num_bits": 8, "type": "int", "symmetric": True, "group_size": None, "observer": "minmax"}


def publish(model: PreTrainedModel, folder: Path, *, static: bool, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write what llm-compressor writes: int8 weights `[out, in]`, scales `[out, 1]`, the rest in `dtype`."""
    tensors = {name: tensor.detach().to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "classifier":
            scale = module.weight.detach().abs().amax(1, keepdim=True) / 127.5
            tensors[f"{name}.weight"] = (module.weight.detach() / scale).round().clamp(-128, 127).to(torch.int8)
            tensors[f"{name}.weight_scale"] = scale.to(dtype)
            if static:
                tensors[f"{name}.input_scale"] = torch.tensor([0.04])
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    activations = {**SCHEME, "strategy": "tensor" if static else "token", "dynamic": not static}
    group = {
        "targets": ["Linear"],
        "weights": {**SCHEME, "strategy": "channel", "dynamic": False},
        "input_activations": activations,
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


@pytest.mark.parametrize("static", [False, True])
def test_loads_as_int8(static: bool, fp32_model: PreTrainedModel, input_ids: torch.Tensor, tmp_path: Path) -> None:
    model = OptimizedModel.from_pretrained(publish(fp32_model, tmp_path / "w8a8", static=static))
    metadata = model.config.quantization_config.to_dict()
    assert metadata["config"]["approach"] == ("static" if static else "dynamic")
    assert len(metadata["modules"]) == 13 and "classifier" not in metadata["modules"]
    expected, found = logits_of(fp32_model, input_ids), logits_of(model, input_ids)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    linear = model.get_submodule("pre_classifier")
    scale = (fp32_model.pre_classifier.weight.detach().abs().amax(1) / 127.5).to(torch.bfloat16).float()
    assert torch.equal(linear.weight_scale, scale)
    if static:
        assert linear.input_scale == torch.tensor(0.04) and linear.input_zero_point == 128


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
    ],
)
def test_other_schemes_are_named(
    change: Callable[[dict], Any], message: str, fp32_model: PreTrainedModel, tmp_path: Path
) -> None:
    folder = publish(fp32_model, tmp_path / "w8a8", static=False)
    edit_json(folder / "config.json", lambda config: change(config["quantization_config"]))
    with pytest.raises(CheckpointError, match=message):
        OptimizedModel.from_pretrained(folder)


@pytest.mark.parametrize("damage", ["scale", "shape", "point", "none", "cut"])
def test_damage_is_refused(damage: str, fp32_model: PreTrainedModel, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = publish(fp32_model, tmp_path / "w8a8", static=False)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    if damage == "scale":
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
