"""From a description and tensors back to the same INT8 model, without its FP32 weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from optimum_int8 import CheckpointError, Int8Config, quantize
from optimum_int8.passes import find_blocks
from optimum_int8.restore import build_skeleton, expected_tensors, finish_loading
from tests.models import batch, classifier, int8_classifier, logits

APPROACHES = ("static", "dynamic")


def skeleton(int8: Any) -> tuple[Any, dict[str, Any]]:
    metadata = copy.deepcopy(int8.config.quantization_config)
    config = copy.deepcopy(int8.config)
    del config.quantization_config
    with torch.device("meta"):
        empty = type(int8)(config).eval()
    build_skeleton(empty, metadata)
    return empty, metadata


def restore(int8: Any, state: dict[str, torch.Tensor]) -> Any:
    empty, metadata = skeleton(int8)
    for name in dict(empty.named_buffers()):
        if name not in state:  # not stored: positions and the like
            *path, last = name.split(".")
            empty.get_submodule(".".join(path))._buffers[last] = int8.get_buffer(name).clone()
    empty.load_state_dict({k: v.clone() for k, v in state.items()}, assign=True)
    return finish_loading(empty, metadata)


@pytest.mark.slow
@pytest.mark.parametrize("approach", APPROACHES)
@pytest.mark.parametrize("fuse", [True, False])
def test_round_trip_to_the_bit(approach: str, fuse: bool) -> None:
    int8 = int8_classifier(approach=approach, fuse=fuse)
    again = restore(int8, int8.state_dict())
    assert torch.equal(logits(again, **batch()), logits(int8, **batch()))
    assert bool(find_blocks(again)) == fuse
    assert again.config.quantization_config == int8.config.quantization_config
    assert {k: v.dtype for k, v in again.state_dict().items()} == {k: v.dtype for k, v in int8.state_dict().items()}


@pytest.mark.parametrize("approach", APPROACHES)
def test_the_skeleton_expects_exactly_what_is_stored_and_holds_nothing(approach: str) -> None:
    int8 = int8_classifier(approach=approach, exclude=("classifier",))
    empty, _ = skeleton(int8)
    stored = {name: (t.dtype, tuple(t.shape)) for name, t in int8.state_dict().items()}
    assert expected_tensors(empty) == stored
    assert {t.device.type for t in empty.state_dict().values()} == {"meta"}
    assert type(empty.classifier) is nn.Linear


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("bert.encoder.layer.7.output.dense", "linear", "no such module"),
        ("bert.encoder.layer.0.output.LayerNorm", "linear", "LayerNorm"),
        ("bert.embeddings.word_embeddings", "linear", "Embedding"),
        ("classifier", "embedding", "Linear"),
        ("classifier", "conv2d", "conv2d"),
        ("", "linear", "BertForSequenceClassification"),
        ("classifier", "attention", "Linear"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(name: str, kind: str, found: str) -> None:
    with torch.device("meta"):
        empty = classifier()
    metadata = {"config": Int8Config().to_dict(), "modules": {name: kind}, "fp32": {}}
    with pytest.raises(CheckpointError, match=found):
        build_skeleton(empty, metadata)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["bert.pooler.dense.weight_scale", "bert.pooler.dense.input_scale"])
def test_a_scale_that_cannot_be_is_refused(name: str, value: float) -> None:
    int8 = int8_classifier()
    state = {k: v.clone() for k, v in int8.state_dict().items()}
    state[name].view(-1)[-1] = value
    with pytest.raises(CheckpointError, match=f"{name} .*zero, negative or not finite"):
        restore(int8, state)


@pytest.mark.parametrize("value", [-1, 256])
def test_a_zero_point_outside_the_grid_is_refused(value: int) -> None:
    int8 = int8_classifier()
    state = {k: v.clone() for k, v in int8.state_dict().items()}
    state["bert.pooler.dense.input_zero_point"].fill_(value)
    with pytest.raises(CheckpointError, match=r"outside 0..255"):
        restore(int8, state)


def test_a_description_never_runs_as_a_pattern() -> None:
    with torch.device("meta"):
        empty = classifier()
    metadata = {"config": Int8Config().to_dict(), "modules": {"bert.pooler.*": "linear"}, "fp32": {}}
    with pytest.raises(CheckpointError, match="no such module"):
        build_skeleton(empty, metadata)


def test_a_module_below_a_shared_one_is_replaced_everywhere() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4)})
    model["b"] = model["a"]
    int8 = quantize(model, Int8Config())
    build_skeleton(model, {"config": Int8Config().to_dict(), "modules": {"a": "linear"}})
    assert model["a"] is model["b"]
    assert type(model["a"]) is type(int8["a"])


class Kept(nn.Module):
    """Calls its linears from a plain container, as MaskFormer's heads do."""

    def __init__(self, container: str) -> None:
        super().__init__()
        layers = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)]
        for i, layer in enumerate(layers):
            self.add_module(str(i), layer)
        containers = {"list": layers, "tuple": tuple(layers), "dict": dict(enumerate(layers))}
        self.layers = containers[container]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers.values() if isinstance(self.layers, dict) else self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("container", ["list", "tuple", "dict"])
def test_modules_in_plain_containers(container: str) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(Kept(container)).eval(), torch.randn(3, 64)
    int8 = quantize(model, Int8Config(fuse=False), progress=False)
    block = int8[0]
    expected = block.get_submodule("2")(torch.relu(block.get_submodule("0")(x)))
    assert torch.equal(int8(x), expected)
    assert not torch.equal(int8(x), model(x))
