"""Images and videos for models that see."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

ROWS = 2


def configs(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    """A configuration and all that it contains."""
    yield config
    for value in vars(config).values():
        if isinstance(value, PreTrainedConfig):
            yield from configs(value)


def seek(config: PreTrainedConfig, *names: str, default: Any = None) -> Any:
    """The first of these fields that a configuration or one of its parts has."""
    ordered = sorted(configs(config), key=lambda c: "vision" not in c.model_type and "vit" not in c.model_type)
    ordered = [config, *(c for c in ordered if c is not config)]
    for name in names:
        for part in ordered:
            value = getattr(part, name, None)
            if value is not None and not isinstance(value, PreTrainedConfig):
                return value
    return default


def images(model: PreTrainedModel, names: Any, draw: torch.Generator) -> dict[str, Any]:
    """`pixel_values` and what belongs to them."""
    config = model.config
    name = next((n for n in ("pixel_values", "pixel_values_images") if n in names), None)
    if name is None:
        return {}
    if "image_grid_thw" in names or "grid_thw" in names:
        return patches(config, names, draw)
    size = seek(config, "image_size", "img_size", "input_size", default=None)
    size = 64 if size is None else size
    if isinstance(size, dict):
        size = [size.get("height"), size.get("width")]
    height, width = (size, size) if isinstance(size, int) else list(size)[-2:]
    channels = _channels(model)
    pixels = torch.randn(ROWS, channels, height, width, generator=draw)
    frames = seek(config, "num_frames") if name == "pixel_values" and _sees_videos(model) else None
    if frames:
        pixels = torch.randn(ROWS, frames, channels, height, width, generator=draw)
    batch: dict[str, Any] = {name: pixels}
    pinpoints = seek(config, "image_grid_pinpoints")
    pixtral = any(part.model_type == "pixtral" for part in configs(config))
    if "image_sizes" in names and (pinpoints or pixtral or "llava" not in config.model_type):
        batch["image_sizes"] = torch.tensor([[height, width]] * ROWS)
        if pinpoints:
            batch[name] = torch.randn(ROWS, 2, channels, height, width, generator=draw)
    if "pixel_attention_mask" in names:
        batch["pixel_attention_mask"] = torch.ones(ROWS, height, width, dtype=torch.long)
    return batch


def _sees_videos(model: PreTrainedModel) -> bool:
    return any(word in model.config.model_type for word in ("video", "vivit", "timesformer", "vjepa", "xclip"))


def _channels(model: PreTrainedModel) -> int:
    """Of the image; the first convolution knows best."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1 and module.in_channels <= 12:
            return module.in_channels
        if isinstance(module, nn.Conv3d):
            return module.in_channels
    value = seek(model.config, "num_channels", "in_channels", "in_chans", default=3)
    return value if isinstance(value, int) else 3


def patches(config: PreTrainedConfig, names: Any, draw: torch.Generator) -> dict[str, Any]:
    """Images cut into patches, as Qwen2-VL takes them: a row per patch, and how many there are along time, height and width."""
    vision = next((c for c in configs(config) if hasattr(c, "patch_size")), config)
    patch = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
    merge = getattr(vision, "spatial_merge_size", None) or seek(config, "spatial_merge_size", default=2)
    time = getattr(vision, "temporal_patch_size", 1)
    channels = getattr(vision, "in_channels", None) or getattr(vision, "num_channels", 3)
    side = 2 * merge
    values = torch.randn(ROWS * side * side, channels * time * patch * patch, generator=draw)
    grid = "image_grid_thw" if "image_grid_thw" in names else "grid_thw"
    return {"pixel_values": values, grid: torch.tensor([[1, side, side]] * ROWS)}


def placeholders(model: PreTrainedModel, batch: dict[str, Any]) -> list[int]:
    """The image tokens of one row of text: as many as the model makes features of one image."""
    token = next(
        (
            t
            for name in (
                "image_token_id",
                "image_token_index",
                "im_patch_id",
                "image_token",
                "media_placeholder_token_id",
            )
            if isinstance(t := getattr(model.config, name, None), int)
        ),
        None,
    )
    if token is None or "pixel_values" not in batch:
        return []
    base = getattr(model, "model", model)
    owner = model if hasattr(model, "get_image_features") else base
    if not hasattr(owner, "get_image_features"):
        return []
    known = inspect.signature(owner.get_image_features).parameters
    given = {k: v for k, v in batch.items() if k in known}
    for name in ("vision_feature_layer", "vision_feature_select_strategy"):
        if name in known and known[name].default is known[name].empty:
            given[name] = getattr(model.config, name)
    with torch.no_grad():
        found = owner.get_image_features(**given)
    found = getattr(found, "pooler_output", found) if not isinstance(found, (Tensor, list, tuple)) else found
    rows = sum(math.prod(t.shape[:-1]) for t in _tensors(found))
    return [token] * (rows // ROWS)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
