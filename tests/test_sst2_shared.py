"""What the README promises on a real classifier: DistilBERT on SST-2, 872 sentences of the dev set, calibrated on 128 of the train set."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from optimum_int8 import Int8Config, kernels, quantize
from optimum_int8.hub import OptimizedModel
from optimum_int8.passes import inspect
from tests.models import logits

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.shared

APPROACHES = ("static", "dynamic")
MODEL = Path("models", "distilbert-minilm-sst2")


class Sst2:
    """The FP32 model, the sentences, and the INT8 models made of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / MODEL
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
        self.fp32 = transformers.AutoModelForSequenceClassification.from_pretrained(
            self.folder, dtype=torch.float32
        ).eval()
        self.dev = self._rows(folder / "data" / "sst2" / "dev.tsv")
        train = self._rows(folder / "data" / "sst2" / "train.tsv")
        calibration = [dict(b) for b, _ in self.batches(random.Random(0).sample(train, 128))]
        self.int8 = {
            approach: quantize(
                self.fp32, Int8Config(approach=approach), calibration if approach == "static" else None, progress=False
            )
            for approach in APPROACHES
        }
        self.accuracy: dict[str, float] = {}

    @staticmethod
    def _rows(file: Path) -> list[list[str]]:
        with file.open(encoding="utf-8", newline="") as lines:
            return list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]

    def batches(self, rows: list[list[str]], size: int = 32) -> Iterator[tuple[Any, Tensor]]:
        rows = sorted(rows, key=lambda row: len(row[0]))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield self.encode([row[0] for row in part]), torch.tensor([int(row[1]) for row in part])

    def encode(self, sentences: list[str]) -> dict[str, Tensor]:
        return dict(self.tokenizer(sentences, padding=True, return_tensors="pt"))

    def accuracy_of(self, name: str) -> float:
        if name not in self.accuracy:
            model = self.fp32 if name == "fp32" else self.int8[name]
            right = sum(
                int((logits(model, **given).argmax(-1) == labels).sum()) for given, labels in self.batches(self.dev)
            )
            self.accuracy[name] = right / len(self.dev)
        return self.accuracy[name]

    def some(self, count: int = 32) -> list[str]:
        return [row[0] for row in self.dev[:count]]


@pytest.fixture(scope="module")
def sst2(shared_dir: Path) -> Sst2:
    if not (shared_dir / MODEL).is_dir() or not (shared_dir / "data" / "sst2").is_dir():
        pytest.skip(f"no {MODEL} or no data/sst2 in {shared_dir}")
    return Sst2(shared_dir)


@pytest.fixture(scope="module", params=APPROACHES)
def approach(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.slow
def test_accuracy_within_1_percent_of_fp32(sst2: Sst2, approach: str) -> None:
    assert len(sst2.dev) == 872
    fp32 = sst2.accuracy_of("fp32")
    assert fp32 > 0.85
    assert sst2.accuracy_of(approach) >= 0.99 * fp32


@pytest.mark.slow
def test_every_encoder_layer_is_a_captured_block(sst2: Sst2, approach: str) -> None:
    if kernels.library() is None:
        pytest.skip("without the native library nothing is fused")
    logits(sst2.int8[approach], **sst2.encode(sst2.some(2)))
    report = inspect(sst2.int8[approach])
    layers = {row.path: row for row in report.blocks if ".layer." in row.path}
    assert sorted(layers) == [f"distilbert.transformer.layer.{i}" for i in range(sst2.fp32.config.n_layers)]
    for row in layers.values():
        assert (row.gemms, row.left_in_torch) == (6, [])
        # dynamic ones also measure the rows of three values; static ones those with outlier tokens, here in the feed-forward half
        assert 0 < row.instructions <= (9 if approach == "static" else 11)
    assert report.int8_share == 1.0
    assert not report.fp32


_RELOAD = """
import json, sys
import torch, transformers, optimum_int8
folder, given, out = sys.argv[1:]
torch.set_num_threads(1)
given = torch.load(given, weights_only=True)
found = {}
for loader in (optimum_int8.OptimizedModel, transformers.AutoModelForSequenceClassification):
    model = loader.from_pretrained(folder)
    with torch.no_grad():
        found[loader.__name__] = model(**given).logits
torch.save(found, out)
"""


@pytest.mark.slow
def test_small_and_equal_to_the_bit_in_a_fresh_process(sst2: Sst2, approach: str, tmp_path: Path) -> None:
    folder = OptimizedModel.save_pretrained(sst2.int8[approach], tmp_path / "int8")
    fp32 = sum(t.numel() for t in sst2.fp32.state_dict().values()) * 4
    size = (Path(folder) / "model.safetensors").stat().st_size
    assert fp32 / size >= 3.8
    given = sst2.encode(sst2.some())
    torch.save(given, tmp_path / "given")
    done = subprocess.run(
        [sys.executable, "-c", _RELOAD, str(folder), str(tmp_path / "given"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "out", weights_only=True)
    assert set(found) == {"OptimizedModel", "AutoModelForSequenceClassification"}
    expected = logits(sst2.int8[approach], **given)
    for name, values in found.items():
        assert torch.equal(values, expected), name
    config = json.loads((Path(folder) / "config.json").read_text())
    assert config["quantization_config"]["config"]["approach"] == approach


@pytest.mark.slow
def test_the_same_logits_to_the_bit_on_every_isa(sst2: Sst2, approach: str) -> None:
    given = sst2.encode(sst2.some())
    expected = logits(sst2.int8[approach], **given)
    found: Any = kernels.info()["isa_found"]
    for isa in found:
        with kernels.use_isa(isa):
            assert torch.equal(logits(sst2.int8[approach], **given), expected), isa


@pytest.mark.slow
def test_padding_and_company_change_rounding_at_most(sst2: Sst2, approach: str) -> None:
    model = sst2.int8[approach]
    sentences = [row[0] for row in sorted(sst2.dev[:64], key=lambda row: len(row[0]))][::8]
    alone = torch.cat([logits(model, **sst2.encode([s])) for s in sentences])
    assert (logits(model, **sst2.encode(sentences)) - alone).abs().max() < 1e-5
    longer = torch.cat(
        [
            logits(model, **dict(sst2.tokenizer([s], padding="max_length", max_length=64 + 3 * i, return_tensors="pt")))
            for i, s in enumerate(sentences)
        ]
    )
    assert (longer - alone).abs().max() < 1e-5
