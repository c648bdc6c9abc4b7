"""The models: architectures with random weights, their inputs, and what one call of them must compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from optimum_int8.evaluation.architectures import example_inputs, find_config, random_model

from . import images
from .shapes import IMAGE_TYPES, Shape

TINY = {
    "model_type": "bert", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
    "vocab_size": 256, "max_position_embeddings": 64,
}  # fmt: skip
"""For tests of the suite."""

NAMES = {"bert-base": "bert-base", "minilm": "minilm-l6"}
"""Names of the suite, and those of `optimum_int8.evaluation`; any other name is looked up there as it is."""

CHECK = Shape(4, 40, 9)
"""Before timing, outputs of models on text are compared on this batch; ragged, so that a lost mask is seen."""

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Job:
    """One engine's task in one process.

    Args:
        model: a key of `NAMES`, a preset, a config.json, or `tiny`.
        folder: for converted models; what is there is used again.
        threads: threads of one call.
        fixed_shapes: whether each shape is timed so often that compiling the model for it alone is worth it.
    """

    model: str
    folder: Path
    threads: int
    fixed_shapes: bool = True

    def config(self) -> Any:
        """The architecture."""
        return find_model(self.model)

    def fp32(self) -> PreTrainedModel:
        """The FP32 model; the same weights in every process."""
        return make_model(self.config())

    def calibration(self) -> list[Inputs]:
        """The batches that every static engine is calibrated on."""
        config = self.config()
        if is_image_model(config):
            return [make_inputs(config, Shape(2, images.image_size(config)), seed) for seed in range(1, 5)]
        length = min(64, config.max_position_embeddings)
        return [make_inputs(config, Shape(4, length), seed) for seed in range(1, 5)]


Call = Callable[[], Any]
Output = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Loaded:
    """A model that is ready.

    Args:
        bind: from inputs to a call without arguments; what a server does once per shape is done here, not in the call.
        output: from what the call returns to `last_hidden_state`, float32 `[batch, length, hidden]`.
    """

    bind: Callable[[Inputs], Call]
    output: Output


def find_model(name: str) -> Any:
    """The configuration of a model of the suite. Raises ConfigError for an unknown one."""
    if name in images.NAMES:
        return images.NAMES[name]()
    return AutoConfig.for_model(**TINY) if name == "tiny" else find_config(NAMES.get(name, name))


def is_image_model(config: Any) -> bool:
    """Whether its inputs are images: then the length of a shape is their height and width in pixels."""
    return config.model_type in IMAGE_TYPES


def make_model(config: Any) -> PreTrainedModel:
    """The FP32 model of a configuration; every call gives the same weights."""
    if not isinstance(config, images.YoloV2Config):
        return random_model(config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return images.YoloV2(config).eval()  # type: ignore[return-value]


def check_shape(config: Any) -> Shape:
    """Before timing, outputs are compared on inputs of this shape."""
    return Shape(1, images.image_size(config)) if is_image_model(config) else CHECK


class _Sizes:
    """What `example_inputs` asks a model for."""

    main_input_name = "input_ids"

    def __init__(self, config: PreTrainedConfig) -> None:
        self.config = config


def make_inputs(config: Any, shape: Shape, seed: int = 0) -> Inputs:
    """`input_ids` and `attention_mask`, int64 `[batch, length]`, or `pixel_values`; the same for every engine."""
    if is_image_model(config):
        return images.random_images(config, shape.batch, shape.length, seed)
    inputs = example_inputs(_Sizes(config), shape.batch, shape.length, seed)  # type: ignore[arg-type]
    for row, length in enumerate(shape.lengths()):
        inputs["attention_mask"][row, length:] = 0
        inputs["input_ids"][row, length:] = config.pad_token_id or 0
    return inputs


def relative_error(found: Tensor, expected: Tensor, mask: Tensor) -> float:
    """Root-mean-square error over that of `expected`; padding does not count."""
    found, expected = found[mask.bool()].double(), expected[mask.bool()].double()
    return float((found - expected).norm() / expected.norm())


def reference(model: PreTrainedModel, shape: Shape) -> tuple[Tensor, Tensor]:
    """FP32 `last_hidden_state` of `model`, and the mask (over images, where they are the inputs)."""
    inputs = make_inputs(model.config, shape)
    with torch.inference_mode():
        output = model(**inputs).last_hidden_state
    return output, inputs.get("attention_mask", torch.ones(shape.batch))


@dataclass(frozen=True)
class Work:
    """What a model has to compute and to read."""

    multiply_adds_per_token: int
    attention_multiply_adds: int  # of one query token and one key token, all layers together
    weight_bytes: int  # of the linears, one byte each

    @classmethod
    def of(cls, model: PreTrainedModel) -> Work:
        """Of a BERT-like encoder; the pooler, which sees one token only, is left out of the per-token work."""
        linears = {name: m.weight.numel() for name, m in model.named_modules() if isinstance(m, nn.Linear)}
        body = sum(size for name, size in linears.items() if not name.startswith("pooler"))
        config = model.config
        return cls(body, 2 * config.hidden_size * config.num_hidden_layers, sum(linears.values()))

    def operations(self, shape: Shape) -> int:
        """INT8 operations (two per multiply-add) for the real tokens of `shape`."""
        pairs = sum(length * length for length in shape.lengths())
        return 2 * (self.multiply_adds_per_token * shape.tokens() + self.attention_multiply_adds * pairs)
