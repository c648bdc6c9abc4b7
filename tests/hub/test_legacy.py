"""INT8 models of Neural Compressor: built here with torch.ao in the layout they were published in, and hostile ones."""

from __future__ import annotations

import copy as copying
import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from optimum_int8.errors import CheckpointError
from optimum_int8.hub import OptimizedModel, convert_legacy
from optimum_int8.hub.legacy import convert_state
from optimum_int8.hub.restricted import load_pickled_tensors
from tests.hub.helpers import logits_of, tiny_tokenizer
from tests.hub.server import Hub

warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch.ao")
warnings.filterwarnings("ignore", message=".*torch.ao.quantization is deprecated.*")

pytestmark = pytest.mark.usefixtures("unfused")

HIDDEN = 32


@pytest.fixture(scope="module")
def bert() -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 16}
    return BertForSequenceClassification(BertConfig(vocab_size=100, hidden_size=HIDDEN, **sizes)).eval()


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(0, 100, (8, 10), generator=torch.Generator().manual_seed(2))


def linears(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name != "classifier"]


def settings_dict() -> Any:
    """A pickled class of a package that is not installed, as in every published file."""
    module = types.ModuleType("neural_compressor.conf.dotdict")
    module.DotDict = type("DotDict", (dict,), {"__module__": module.__name__})  # type: ignore[attr-defined]
    parents = [types.ModuleType(name) for name in ("neural_compressor", "neural_compressor.conf")]
    for made in (*parents, module):
        sys.modules[made.__name__] = made
    return module.DotDict({"approach": "post_training_static_quant", "op": {("query", "Linear"): {"weight": {}}}})


def publish(model: nn.Module, config: BertConfig, folder: Path) -> Path:
    """Write what Neural Compressor's trainer published."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        **model.state_dict(),
        "best_configure": settings_dict(),
        "bert.embeddings.position_ids": torch.arange(16)[None],
    }
    torch.save(state, folder / "pytorch_model.bin")
    for name in [name for name in sys.modules if name.startswith("neural_compressor")]:
        del sys.modules[name]
    values = {**config.to_dict(), "architectures": ["BertForSequenceClassification"], "framework": "pytorch_fx"}
    values.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps({**values, "torch_dtype": "int8", "backend": "default"}))
    return folder


def eager_static(bert: PreTrainedModel, ids: torch.Tensor) -> nn.Module:
    from torch.ao.quantization import QuantWrapper, convert, get_default_qconfig, prepare

    model = copying.deepcopy(bert)
    for name in linears(model):
        wrapped = QuantWrapper(model.get_submodule(name))
        wrapped.qconfig = get_default_qconfig("x86")
        model.set_submodule(name, prepare(wrapped))
    model(input_ids=ids)
    for name in [name for name, module in model.named_modules() if isinstance(module, QuantWrapper)]:
        model.set_submodule(name, convert(model.get_submodule(name)))
    return model


def dynamic(bert: PreTrainedModel, ids: torch.Tensor) -> nn.Module:
    from torch.ao.quantization import default_dynamic_qconfig, quantize_dynamic

    return quantize_dynamic(copying.deepcopy(bert), dict.fromkeys(linears(bert), default_dynamic_qconfig))


def dynamic_linear() -> nn.Module:
    from torch.ao.quantization import quantize_dynamic

    return quantize_dynamic(nn.Sequential(nn.Linear(4, 4)))[0]


def capture(block: nn.Module, *examples: torch.Tensor) -> nn.Module:
    """`block` as FX mode leaves it before calibration."""
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_fx

    return prepare_fx(block, get_default_qconfig_mapping("x86"), examples)


def fx_static(bert: PreTrainedModel, ids: torch.Tensor) -> nn.Module:
    """Fine-grained FX of Neural Compressor: the largest blocks without control flow, and wrapped single linears."""
    from torch.ao.quantization import QuantWrapper
    from torch.ao.quantization.quantize_fx import convert_fx

    model = copying.deepcopy(bert)
    blocks = []
    for name, module in list(model.named_modules()):
        if type(module).__name__ in ("BertSelfOutput", "BertIntermediate", "BertOutput", "BertPooler"):
            blocks.append(name)
        elif isinstance(module, nn.Linear) and not name.startswith(tuple(f"{block}." for block in blocks)):
            model.set_submodule(name, QuantWrapper(module))
            blocks.append(name)
    for name in blocks:
        model.set_submodule(name, capture(model.get_submodule(name)))
    model(input_ids=ids)
    for name in blocks:
        model.set_submodule(name, convert_fx(model.get_submodule(name)))
    return model


def fx_two_in_a_block(bert: PreTrainedModel, ids: torch.Tensor) -> nn.Module:
    """The second linear of a block reads what the first one wrote, and has no range of its own."""
    from torch.ao.quantization.quantize_fx import convert_fx

    class Block(nn.Module):
        def __init__(self, dense: nn.Module, activation: nn.Module, output: nn.Module) -> None:
            super().__init__()
            self.dense, self.activation, self.output = dense, activation, output

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.output(self.activation(self.dense(x)))

    model = copying.deepcopy(bert)
    prepared = capture(Block(model.bert.pooler.dense, nn.ReLU(), model.classifier), torch.randn(4, HIDDEN))
    prepared(torch.randn(4, HIDDEN))
    converted = convert_fx(prepared)
    model.bert.pooler.dense, model.classifier = converted.dense, converted.output
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("maker", "approach"),
    [(eager_static, "static"), (dynamic, "dynamic"), (fx_static, "static"), (fx_two_in_a_block, "dynamic")],
)
def test_published_layouts_load(maker, approach: str, bert: PreTrainedModel, ids: torch.Tensor, tmp_path: Path) -> None:
    folder = publish(maker(bert, ids), bert.config, tmp_path / "legacy")
    model = OptimizedModel.from_pretrained(folder)
    assert type(model) is BertForSequenceClassification
    metadata = model.config.quantization_config.to_dict()
    assert metadata["config"]["approach"] == approach
    expected, found = logits_of(bert, ids), logits_of(model, ids)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    out = convert_legacy(folder, tmp_path / "converted")
    assert torch.equal(logits_of(OptimizedModel.from_pretrained(out), ids), found)
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]


def test_weights_and_grids_are_taken_over(bert: PreTrainedModel, ids: torch.Tensor, tmp_path: Path) -> None:
    original = eager_static(bert, ids)
    model = OptimizedModel.from_pretrained(publish(original, bert.config, tmp_path / "legacy"))
    for name in linears(bert):
        ours, theirs = model.get_submodule(name), original.get_submodule(name)
        weight = theirs.module.weight()
        assert torch.equal(ours.quantized_weight().squeeze(-1), weight.int_repr())
        assert torch.equal(ours.weight_scale, weight.q_per_channel_scales().float())
        assert torch.equal(ours.bias, theirs.module.bias())
        assert ours.input_scale == theirs.quant.scale and ours.input_zero_point == theirs.quant.zero_point


def test_grids_of_captured_blocks_are_taken_over(bert: PreTrainedModel, ids: torch.Tensor, tmp_path: Path) -> None:
    """Each range is the one that the quantized model applies to the input of that linear."""
    original = fx_static(bert, ids)
    seen: dict[str, tuple[float, int]] = {}
    for name, module in original.named_modules():
        if isinstance(module, torch.ao.nn.quantized.Linear):
            name = name.removesuffix(".module")
            module.register_forward_pre_hook(
                lambda _, args, n=name: seen.update({n: (args[0].q_scale(), args[0].q_zero_point())})
            )
    original(input_ids=ids)
    model = OptimizedModel.from_pretrained(publish(original, bert.config, tmp_path / "legacy"))
    modules = model.config.quantization_config.modules
    assert set(seen) == set(modules) and len(modules) == 8
    for name, (scale, zero_point) in seen.items():
        linear = model.get_submodule(name)
        assert linear.input_scale.item() == pytest.approx(scale, rel=1e-6) and linear.input_zero_point == zero_point


def test_a_quantized_convolution_becomes_fp32(tmp_path: Path) -> None:
    from torch.ao.quantization import QuantWrapper, convert, get_default_qconfig, prepare

    wrapped = QuantWrapper(nn.Conv2d(3, 4, 3)).eval()
    wrapped.qconfig = get_default_qconfig("x86")
    prepared = prepare(wrapped)
    prepared(torch.randn(1, 3, 8, 8))
    model = nn.Module()
    model.patches, model.head = convert(prepared), dynamic_linear()
    torch.save(model.state_dict(), tmp_path / "x.bin")
    tensors, quantization = convert_state(load_pickled_tensors(tmp_path / "x.bin"))
    assert torch.equal(tensors["patches.weight"], model.patches.module.weight().dequantize())
    assert torch.equal(tensors["patches.bias"], model.patches.module.bias())
    assert set(quantization["fp32"]) == {"patches"} and set(quantization["modules"]) == {"head"}


def test_from_the_hub(hub: Hub, bert: PreTrainedModel, ids: torch.Tensor, tmp_path: Path) -> None:
    from huggingface_hub import HfApi

    folder = publish(dynamic(bert, ids), bert.config, tmp_path / "legacy")
    tiny_tokenizer().save_pretrained(folder)
    HfApi().create_repo("alice/bert-int8-inc")
    HfApi().upload_folder(folder_path=folder, repo_id="alice/bert-int8-inc")
    expected = logits_of(OptimizedModel.from_pretrained(folder), ids)
    assert torch.equal(logits_of(OptimizedModel.from_pretrained("alice/bert-int8-inc"), ids), expected)
    out = convert_legacy("alice/bert-int8-inc", tmp_path / "converted")
    assert (out / "tokenizer.json").is_file()


def test_what_cannot_be_converted_says_why(bert: PreTrainedModel, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no INT8 linear"):
        OptimizedModel.from_pretrained(publish(bert, bert.config, tmp_path / "float"))
    fp32 = tmp_path / "fp32"
    bert.save_pretrained(fp32)
    with pytest.raises(CheckpointError, match="does not hold an INT8 model of Neural Compressor"):
        convert_legacy(fp32, tmp_path / "out")
    weight = torch.quantize_per_channel(torch.randn(4, 4), torch.ones(4), torch.full((4,), 3), 0, torch.qint8)
    model = nn.Module()
    model.state_dict = lambda: {"l._packed_params._packed_params": (weight, None)}  # type: ignore[method-assign]
    with pytest.raises(CheckpointError, match="asymmetric"):
        OptimizedModel.from_pretrained(publish(model, bert.config, tmp_path / "asymmetric"))
    assert not (tmp_path / "out").exists()
