"""INT8 models of Neural Compressor: built here with torch.ao in the layout they were published in, and hostile ones."""

from __future__ import annotations

import copy as copying
import io
import json
import pickle
import sys
import types
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from optimum_int8.errors import CheckpointError
from optimum_int8.hub import OptimizedModel, convert_legacy
from optimum_int8.hub.restricted import Plain, Quantized, load_pickled_tensors
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


def fx_static(bert: PreTrainedModel, ids: torch.Tensor) -> nn.Module:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    class Block(nn.Module):
        """Two linears of one block, as fine-grained FX captured them: the second has no range of its own."""

        def __init__(self, dense: nn.Module, activation: nn.Module, output: nn.Module) -> None:
            super().__init__()
            self.dense, self.activation, self.output = dense, activation, output

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.output(self.activation(self.dense(x)))

    model = copying.deepcopy(bert)
    block = Block(model.bert.pooler.dense, nn.ReLU(), model.classifier)
    prepared = prepare_fx(block, get_default_qconfig_mapping("x86"), (torch.randn(4, HIDDEN),))
    prepared(torch.randn(4, HIDDEN))
    converted = convert_fx(prepared)
    model.bert.pooler.dense, model.classifier = converted.dense, converted.output
    return model


@pytest.mark.parametrize(
    ("maker", "approach"), [(eager_static, "static"), (dynamic, "dynamic"), (fx_static, "dynamic")]
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
        assert torch.equal(ours.weight.squeeze(-1), weight.int_repr().clamp(min=-127))
        assert torch.equal(ours.weight_scale, weight.q_per_channel_scales().float())
        assert torch.equal(ours.bias, theirs.module.bias())
        assert ours.input_scale == theirs.quant.scale and ours.input_zero_point == theirs.quant.zero_point


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


def test_unpickler_reads_what_torch_writes(tmp_path: Path) -> None:
    values = torch.arange(12.0).reshape(3, 4)
    per_channel = torch.quantize_per_channel(
        values, torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0, 1, 2]), 0, torch.qint8
    )
    per_tensor = torch.quantize_per_tensor(values, 0.1, 7, torch.quint8)
    state = {
        "a": values.T,
        "b": nn.Parameter(values[1:]),
        "c": per_channel,
        "d": per_tensor,
        "e": torch.empty(0),
        "f": 3,
    }
    torch.save(state, tmp_path / "x.bin")
    found = load_pickled_tensors(tmp_path / "x.bin")
    for name in "abe":
        assert isinstance(found[name], Plain) and torch.equal(found[name].values, state[name])
    for name in "cd":
        assert isinstance(found[name], Quantized) and torch.equal(found[name].values, state[name].int_repr())
    assert torch.equal(found["c"].zero_points, torch.tensor([0.0, 1.0, 2.0])) and found["c"].axis == 0
    assert found["d"].scales.item() == pytest.approx(0.1) and found["d"].zero_points.item() == 7 and found["f"] == 3


class Reduces:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def archive(program: bytes, *, compress: bool = False, data: dict[str, bytes] | None = None) -> bytes:
    """A file of torch's format with this pickle in it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as made:
        made.writestr("x/data.pkl", program)
        for name, content in (data or {}).items():
            made.writestr(f"x/data/{name}", content)
    return stream.getvalue()


def tensor_program(size: str, stride: str, count: int = 2) -> bytes:
    """`{"t": _rebuild_tensor_v2(storage 0, 0, size, stride, False, None)}` as pickle text."""
    storage = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI%d\ntQ" % count
    body = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"I0\n" + size.encode() + stride.encode() + b"I00\nNtR"
    return b"(dS't'\n" + body + b"s."


HOSTILE: dict[str, bytes] = {
    "system": archive(b"cos\nsystem\n(S'touch pwned'\ntR."),
    "posix system": archive(pickle.dumps({"a": Reduces(__import__("os").system, "touch pwned")})),
    "eval": archive(pickle.dumps({"a": Reduces(eval, "open('pwned', 'w')")})),
    "getattr": archive(b"c__builtin__\ngetattr\n(ctorch\nFloatStorage\nS'__class__'\ntR."),
    "torch.load": archive(b"ctorch\nload\n(S'x'\ntR."),
    "torch.hub": archive(b"ctorch.hub\nload\n(S'evil/repo'\nS'x'\ntR."),
    "dotted name": archive(b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n."),
    "stack global": archive(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch pwned\x85R."),
    "extension": archive(b"\x80\x02\x82\x01."),
    "persistent os": archive(b"(S'storage'\ncos\nsystem\nS'0'\nS'cpu'\nI2\ntQ."),
    "state on a builder": archive(b"ctorch._utils\n_rebuild_parameter\n(dS'function'\nNsb."),
    "state on a mark": archive(b"ctorch\nqint8\n(dS'name'\nS'x'\nsb."),
    "instance": archive(b"(S'touch pwned'\nios\nsystem\n."),
    "object": archive(b"(cos\nsystem\nS'touch pwned'\no."),
    "list": archive(pickle.dumps([1, 2])),
    "number": archive(pickle.dumps(3)),
    "keys that are numbers": archive(pickle.dumps({1: 2})),
    "empty": b"",
    "not a zip": pickle.dumps({"a": 1}),
    "compressed": archive(pickle.dumps({"a": "x" * 10_000}), compress=True),
    "two programs": archive(b"N.") + b"",
    "truncated pickle": archive(b"\x80\x02}q\x00"),
    "no storage": archive(tensor_program("(I2\nt", "(I1\nt")),
    "storage too short": archive(tensor_program("(I2\nt", "(I1\nt"), data={"0": bytes(4)}),
    "tensor too large": archive(tensor_program("(I3\nt", "(I1\nt"), data={"0": bytes(8)}),
    "stride zero": archive(tensor_program("(I1000000000000\nt", "(I0\nt"), data={"0": bytes(8)}),
    "negative size": archive(tensor_program("(I-2\nt", "(I1\nt"), data={"0": bytes(8)}),
    "size of text": archive(tensor_program("S'2'\n", "S'1'\n"), data={"0": bytes(8)}),
    "nested": archive(b"(" * 100_000 + b"."),
    "deep lists": archive(b"]" * 50_000 + b"a" * 49_999 + b"."),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(
    name: str, bert: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = publish(nn.Linear(1, 1), bert.config, tmp_path / "legacy")
    (folder / "pytorch_model.bin").write_bytes(HOSTILE[name])
    with pytest.raises(CheckpointError):
        OptimizedModel.from_pretrained(folder)
    with pytest.raises(CheckpointError):
        load_pickled_tensors(folder / "pytorch_model.bin")
    assert not list(tmp_path.rglob("pwned"))


def test_one_storage_as_thousands_of_tensors(tmp_path: Path) -> None:
    storage = torch.zeros(1000)
    torch.save({str(i): storage.view(10, 100) for i in range(3)}, tmp_path / "tied.bin")
    assert len(load_pickled_tensors(tmp_path / "tied.bin")) == 3
    torch.save({str(i): storage.view(10, 100) for i in range(2000)}, tmp_path / "many.bin")
    with pytest.raises(CheckpointError, match="very many tensors"):
        load_pickled_tensors(tmp_path / "many.bin")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files(seed: int, bert: PreTrainedModel, ids: torch.Tensor, tmp_path: Path) -> None:
    """A damaged pickle is refused or read; nothing else comes out."""
    folder = publish(dynamic(bert, ids), bert.config, tmp_path / "legacy")
    data = (folder / "pytorch_model.bin").read_bytes()
    generator = torch.Generator().manual_seed(seed)
    for place in torch.randint(0, len(data), (25,), generator=generator).tolist():
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        (folder / "pytorch_model.bin").write_bytes(damaged if place % 5 else damaged[:place])
        try:
            load_pickled_tensors(folder / "pytorch_model.bin")
        except CheckpointError as error:
            assert str(error)
