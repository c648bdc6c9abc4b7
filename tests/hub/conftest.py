"""A tiny INT8 classifier, made once, and its checkpoint folder.

It is not fused: capturing blocks takes seconds for every model loaded, and never changes a result.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification, PreTrainedModel

from optimum_int8 import Int8Config, quantize
from optimum_int8.hub import OptimizedModel
from tests.hub.helpers import logits_of


@pytest.fixture(scope="session")
def fp32_model() -> PreTrainedModel:
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=100, dim=64, n_layers=2, n_heads=2, hidden_dim=96, max_position_embeddings=32, num_labels=3
    )
    return DistilBertForSequenceClassification(config).eval()


@pytest.fixture(scope="session")
def input_ids() -> torch.Tensor:
    """Token ids, [3, 9]."""
    return torch.randint(0, 100, (3, 9), generator=torch.Generator().manual_seed(1))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run for both approaches what needs an INT8 model, unless the module says `APPROACHES` or the test its own."""
    own = [mark for mark in metafunc.definition.iter_markers("parametrize") if mark.args[0] == "int8_model"]
    if "int8_model" in metafunc.fixturenames and not own:
        approaches = getattr(metafunc.module, "APPROACHES", ("dynamic", "static"))
        metafunc.parametrize("int8_model", approaches, indirect=True, scope="session")


@pytest.fixture(scope="session")
def int8_model(request: pytest.FixtureRequest, fp32_model: PreTrainedModel, input_ids: torch.Tensor) -> PreTrainedModel:
    data = [{"input_ids": input_ids}] if request.param == "static" else None
    return quantize(fp32_model, Int8Config(approach=request.param, fuse=False), data, progress=False)


@pytest.fixture(scope="session")
def logits(int8_model: PreTrainedModel, input_ids: torch.Tensor) -> torch.Tensor:
    """What the INT8 model answers before it is saved, [3, 3]."""
    return logits_of(int8_model, input_ids)


@pytest.fixture(scope="session")
def saved(int8_model: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The INT8 model's checkpoint folder; tests that change it work on a copy."""
    return OptimizedModel.save_pretrained(int8_model, tmp_path_factory.mktemp("saved") / "checkpoint")


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint to damage."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.fixture
def unfused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave fine-grained FX out where a checkpoint does not say so: capturing takes seconds for every model loaded."""
    monkeypatch.setattr("optimum_int8.restore.install", lambda model, residuals: model)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The models are tiny: on a busy machine two threads wait for each other longer than they compute."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for child processes
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
