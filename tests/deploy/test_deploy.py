"""A `.pt2`: equal to the model to the bit, at other shapes, in another process; and what is refused."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optimum_int8
from optimum_int8 import CheckpointError, QuantConf, QuantizationError, calibrate, convert
from optimum_int8.lowering import runs_natively
from tests.models import batch, classifier, int8_classifier, logits


def converted(model: nn.Module, x: Any) -> Any:
    conf = QuantConf(qscheme=torch.per_tensor_affine)
    with torch.no_grad(), calibrate(conf):
        model.eval()(x)
    return convert(model, conf, x)


@pytest.mark.slow
@torch.no_grad()
def test_the_example(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 10, 16, 16)
    int8 = converted(nn.Sequential(nn.Conv2d(10, 10, 3), nn.ReLU()), x)
    int8.save(tmp_path / "quantized_model.pt2")
    loaded = optimum_int8.load(tmp_path / "quantized_model.pt2")
    for size in (1, 2, 5):
        y = torch.randn(size, 10, 16, 16)
        assert torch.equal(loaded(y), int8(y))


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_a_transformers_model_at_any_shape(tmp_path: Path, approach: str) -> None:
    int8 = int8_classifier(approach=approach)
    optimum_int8.save(int8, tmp_path / "bert.pt2", batch(1, 9, 0))
    loaded = optimum_int8.load(tmp_path / "bert.pt2")
    for shape in ((1, 1, 0), (1, 7, 2), (3, 11, 4), (2, 64, 5)):
        assert torch.equal(loaded(**batch(*shape)).logits, logits(int8, **batch(*shape))), shape
    assert runs_natively(loaded) > 10


@pytest.mark.slow
@torch.no_grad()
def test_module_checkpoint_and_file_agree_to_the_bit(tmp_path: Path) -> None:
    model = classifier()
    conf = QuantConf()
    with calibrate(conf):
        model(**batch())
    int8 = convert(model, conf, batch())
    int8.save(tmp_path / "bert.pt2")
    int8.save_pretrained(tmp_path / "checkpoint")
    again = type(model).from_pretrained(tmp_path / "checkpoint")
    loaded = optimum_int8.load(tmp_path / "bert.pt2")
    for shape in ((2, 9, 4), (1, 5, 0)):
        expected = logits(int8, **batch(*shape))
        assert torch.equal(logits(again, **batch(*shape)), expected)
        assert torch.equal(loaded(**batch(*shape)).logits, expected)


def test_nothing_of_the_source_is_in_the_file(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        graph = next(archive.read(i) for i in archive.infolist() if "/models/" in i.filename)
    assert b".py" not in graph


@pytest.mark.slow
@torch.no_grad()
def test_weights_are_stored_once(tmp_path: Path) -> None:
    int8 = int8_classifier()
    optimum_int8.save(int8, tmp_path / "bert.pt2", batch())
    with zipfile.ZipFile(tmp_path / "bert.pt2") as archive:
        stored = sum(i.file_size for i in archive.infolist() if "/data/" in i.filename and "json" not in i.filename)
    weights = sum(t.numel() * t.element_size() for t in int8.state_dict().values())
    assert stored < 2 * weights  # panels are padded to 64 inputs and 32 outputs, which small layers feel


def test_a_copy_and_a_pickle_keep_save(tmp_path: Path) -> None:
    x = torch.randn(3, 16)
    int8 = converted(nn.Sequential(nn.Linear(16, 4)), x)
    for i, twin in enumerate((copy.deepcopy(int8), pickle.loads(pickle.dumps(int8)))):
        assert twin.save.model is twin
        twin.save(tmp_path / f"{i}.pt2")
        assert torch.equal(optimum_int8.load(tmp_path / f"{i}.pt2")(x), int8(x))


CHILD = """
import sys, torch, optimum_int8
with torch.no_grad():
    torch.save(optimum_int8.load(sys.argv[1])(torch.load(sys.argv[2])), sys.argv[3])
"""


@pytest.mark.slow
@torch.no_grad()
def test_another_process_needs_no_source(tmp_path: Path) -> None:
    class Private(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).softmax(-1)

    x = torch.randn(5, 16)
    int8 = converted(Private(), x)
    int8.save(tmp_path / "a.pt2")
    torch.save(x, tmp_path / "x.pt")
    command = [sys.executable, "-c", CHILD, *(str(tmp_path / n) for n in ("a.pt2", "x.pt", "y.pt"))]
    subprocess.run(command, check=True, timeout=200, cwd=tmp_path)
    assert torch.equal(torch.load(tmp_path / "y.pt"), int8(x))


def rewrite(path: Path, change: Callable[[str, bytes], bytes | None], **added: bytes) -> None:
    """Change or (None) drop entries of an archive; added ones lie beside the weights."""
    with zipfile.ZipFile(path) as archive:
        entries = [(i.filename, archive.read(i)) for i in archive.infolist()]
    root = entries[0][0].split("/")[0]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            changed = change(name, content)
            if changed is not None:
                archive.writestr(name, changed)
        for name, content in added.items():
            archive.writestr(f"{root}/data/weights/{name}", content)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    converted(nn.Sequential(nn.Linear(16, 4)), torch.randn(3, 16)).save(tmp_path / "m.pt2")
    return tmp_path / "m.pt2"


def about(**values: Any) -> Callable[[str, bytes], bytes | None]:
    def change(name: str, content: bytes) -> bytes | None:
        return json.dumps({**json.loads(content), **values}).encode() if name.endswith("optimum_int8.json") else content

    return change


def in_graph(old: str, new: str) -> Callable[[str, bytes], bytes | None]:
    def change(name: str, content: bytes) -> bytes | None:
        if "/models/" not in name:
            return content
        assert old.encode() in content
        return content.replace(old.encode(), new.encode())

    return change


def set_pickled(name: str, content: bytes) -> bytes | None:
    return content.replace(b'"use_pickle": false', b'"use_pickle": true').replace(
        b'"use_pickle":false', b'"use_pickle":true'
    )


@pytest.mark.parametrize(
    ("change", "added", "expected"),
    [
        (about(format_version=3), {}, "upgrade optimum_int8"),
        (about(format="other"), {}, "not that of optimum_int8"),
        (lambda n, c: None if n.endswith("optimum_int8.json") else c, {}, "has no optimum_int8.json"),
        (set_pickled, {}, "pickled"),
        (lambda n, c: b"cos\nsystem\n(S'true'\ntR." if "sample_inputs" in n else c, {}, "pickled sample inputs"),
        (lambda n, c: c, {"custom_obj_0": b"x"}, "unpickle"),
        (lambda n, c: c, {"model.pt": b"x"}, "unpickle"),
        (in_graph("torch.ops.optimum_int8.linear.default", "torch.hub.load"), {}, "'torch.hub.load'"),
        (in_graph("Symbol('", "__import__('os').system('true') or Symbol('"), {}, "plain arithmetic"),
        (in_graph('"guards_code": []', '"guards_code": ["1"]'), {}, "guards"),
        (lambda n, c: b"{}" if "/models/" in n else c, {}, "cannot be read"),
    ],
)  # fmt: skip
def test_refused(saved: Path, change: Any, added: dict[str, bytes], expected: str) -> None:
    rewrite(saved, change, **added)
    with pytest.raises(CheckpointError, match=expected):
        optimum_int8.load(saved)


def test_damage_is_found(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[len(content) // 3] ^= 1
    saved.write_bytes(content)
    with pytest.raises(CheckpointError):
        optimum_int8.load(saved)
    saved.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="no readable .pt2"):
        optimum_int8.load(saved)
    with pytest.raises(CheckpointError, match="missing"):
        optimum_int8.load(saved.with_name("other.pt2"))


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="no INT8 module"):
        optimum_int8.save(nn.Linear(2, 2), tmp_path / "x.pt2", torch.ones(1, 2))
    int8 = converted(nn.Sequential(nn.Linear(16, 4)), torch.randn(3, 16))
    with pytest.raises(CheckpointError, match=r"\.pt2"):
        int8.save(tmp_path / "x.bin")

    class Decides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if x.sum() > 0 else x

    decides = converted(Decides(), torch.ones(3, 16))
    with pytest.raises(QuantizationError, match="cannot be exported"):
        decides.save(tmp_path / "x.pt2")
    assert list(tmp_path.iterdir()) == []
