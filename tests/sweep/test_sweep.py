"""A few classes of the sweep, and the sweep's own machinery. All classes: `python -m tests.sweep`."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optimum_int8 import Int8Config, quantize
from tests.sweep.checks import STEPS, Check, check, within
from tests.sweep.configurations import tiny
from tests.sweep.coverage import coverage
from tests.sweep.families import FAMILIES, Pair, find_pairs
from tests.sweep.models import make, run
from tests.sweep.page import write
from tests.sweep.process import run_all
from tests.sweep.results import checked, faults, read
from tests.sweep.simulate import simulate

pytestmark = pytest.mark.filterwarnings("ignore")

QUICK = (
    "opt/OPTForCausalLM",
    "gpt_neox/GPTNeoXForCausalLM",
    "squeezebert/SqueezeBertForSequenceClassification",
    "deit/DeiTForImageClassification",
    "segformer/SegformerForImageClassification",
    "wav2vec2/Wav2Vec2ForCTC",
)
SLOW = (
    "blenderbot/BlenderbotForConditionalGeneration",
    "bloom/BloomForCausalLM",
    "clip/CLIPModel",
    "codegen/CodeGenForCausalLM",
    "convnext/ConvNextForImageClassification",
    "data2vec-audio/Data2VecAudioForCTC",
    "gemma/GemmaForCausalLM",
    "gptj/GPTJForCausalLM",
    "hubert/HubertForCTC",
    "llava/LlavaForConditionalGeneration",
    "mistral/MistralForCausalLM",
    "olmo2/Olmo2ForCausalLM",
    "phi/PhiForCausalLM",
    "regnet/RegNetForImageClassification",
    "resnet/ResNetForImageClassification",
    "rembert/RemBertForSequenceClassification",
    "roformer/RoFormerForSequenceClassification",
    "stablelm/StableLmForCausalLM",
    "whisper/WhisperForConditionalGeneration",
    "xglm/XGLMForCausalLM",
)
PAIRS = {pair.key: pair for pair in find_pairs()}


def found(key: str, approaches: tuple[str, ...], steps: tuple[str, ...]) -> dict[str, Any]:
    """The result of a class, checked in this process."""
    results: list[dict[str, Any]] = []
    check(PAIRS[key], results.append, approaches, steps)
    assert results[-1]["fp32"] == "ok"
    return results[-1]


@pytest.mark.parametrize("key", QUICK)
def test_a_class_is_computed_as_its_simulation_and_reloads(key: str) -> None:
    result = found(key, ("dynamic", "static"), ("reload", "coverage"))
    assert not faults(result)
    assert result["dynamic"]["coverage"] >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("key", SLOW)
def test_a_class_passes_every_check(key: str) -> None:
    assert not faults(found(key, ("dynamic", "static"), STEPS))


def test_there_is_a_class_for_every_family_and_no_class_twice() -> None:
    assert {pair.family for pair in PAIRS.values()} >= set(FAMILIES) - {"time series"}
    assert len(PAIRS) > 700
    assert PAIRS["bert/BertForSequenceClassification"].family == "language"


def test_a_tiny_configuration_keeps_one_layer_of_each_kind() -> None:
    config = tiny("gemma3_text")
    assert set(config.layer_types) == {"sliding_attention", "full_attention"}
    assert config.num_hidden_layers == len(config.layer_types) == 2
    assert config.hidden_size == 64 and config.vocab_size == 160


def test_a_wrong_value_is_a_fault() -> None:
    """The bound that the sweep holds must tell an error of a few percent from the rounding of INT8."""
    made = make(PAIRS["opt/OPTForCausalLM"])
    int8 = quantize(made.model, Int8Config(fuse=False))
    linear = next(module for name, module in int8.named_modules() if name.endswith("layers.0.fc1"))
    linear.bias += 0.3
    checked = Check(made, "dynamic", {}, lambda: None)
    batch = made.inputs()
    checked.compare(int8, run(int8, batch), batch)
    assert checked.found["faults"]["unfused"].startswith("value")
    assert within(0.03, 0.01) and not within(0.04, 0.01)


def test_a_simulation_rounds_what_the_int8_model_rounds() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)).eval()
    int8 = quantize(model, Int8Config(exclude=("1",)), progress=False)
    fake = simulate(model, int8)
    x = torch.randn(3, 64)
    assert torch.equal(fake[1].weight, model[1].weight)
    assert (fake(x) - int8(x)).abs().max() < 1e-5 < (fake(x) - model(x)).abs().max()


def test_coverage_counts_what_stays_float() -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linears = nn.ModuleList([nn.Linear(64, 64), nn.Linear(64, 64)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linears[1](self.linears[0](x))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Part()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.part(x)

    model = Model().eval()
    int8 = quantize(model, Int8Config(exclude=("part.linears.1",), fuse=False), progress=False)
    found = coverage(model, int8, {"x": torch.ones(2, 64)})
    assert found.pop("why").keys() == {"part.linears.1"}
    assert found == {"coverage": 0.5, "float": {"part.linears.1": 0.5}}


def test_a_later_result_replaces_the_steps_that_it_tried(tmp_path: Path) -> None:
    key = {"key": "a/A", "fp32": "ok"}
    first = {"steps": ["unfused", "reload"], "faults": {"unfused": "value: x", "reload": "own: y"}}
    second = {"steps": ["unfused", "fused"], "faults": {}, "fused": 0.0}
    path = tmp_path / "x.jsonl"
    rows = [{**key, "dynamic": found, "commit": commit} for found, commit in ((first, "old"), (second, "new"))]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    (row,) = read(path)
    assert row["dynamic"]["faults"] == {"reload": "own: y"}
    assert row["dynamic"]["steps"] == ["unfused", "reload", "fused"]
    assert checked(row) == {"new": ["dynamic, unfused", "dynamic, fused"], "old": ["dynamic, reload"]}
    write([{**row, "family": "base", "task": "base"}], tmp_path)
    page = (tmp_path / "models.md").read_text()
    assert "dynamic: values against FP32 | 1 | 1 | new (1)" in page and "equal to the bit | 1 | 0 | old (1)" in page


def _work(pair: Pair, report: Callable[[dict[str, Any]], None]) -> None:
    report({"fp32": "ok"})
    if pair.model_type == "hangs":
        time.sleep(60)
    if pair.model_type == "crashes":
        os.kill(os.getpid(), signal.SIGKILL)
    if pair.model_type == "raises":
        raise ValueError("so")
    report({"fp32": "ok", "dynamic": {"faults": {}}})


def test_a_crash_and_a_hang_are_results(tmp_path: Path) -> None:
    pairs = [Pair(name, "Model", "base", "base") for name in ("hangs", "crashes", "raises", "works")]
    results = {r["model_type"]: r for r in run_all(pairs, _work, jobs=2, timeout=1.0)}
    assert results["hangs"]["process"].startswith("stopped after 1")
    assert results["crashes"]["process"] == "ended by signal 9"
    assert results["raises"]["process"] == "ValueError: so"
    assert not faults(results["works"])
    write(results.values(), tmp_path)
    page = (tmp_path / "models.md").read_text()
    assert "| crashes/Model | process | ended by signal 9 |" in page and "works" in page
