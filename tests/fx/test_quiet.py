"""A first call prints and logs nothing of torch's internals."""

from __future__ import annotations

import logging
import threading
import warnings

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    MptConfig,
    MptForCausalLM,
    PreTrainedModel,
)

from optimum_int8 import Int8Config, quantize
from optimum_int8.fx.silence import quiet

MODELS = {
    "bloom": lambda: BloomForCausalLM(BloomConfig(vocab_size=100, hidden_size=64, n_layer=1, n_head=4)),
    "falcon": lambda: FalconForCausalLM(
        FalconConfig(vocab_size=100, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, alibi=True)
    ),
    "mpt": lambda: MptForCausalLM(MptConfig(vocab_size=100, d_model=64, n_layers=1, n_heads=4)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_first_call_says_nothing(
    name: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model: PreTrainedModel = MODELS[name]().eval()
    int8 = quantize(model, Int8Config(), progress=False)
    capfd.readouterr()
    caplog.clear()
    caplog.set_level(logging.DEBUG, "optimum_int8")
    with torch.no_grad():
        int8(torch.randint(5, 90, (2, 12)))
    printed = capfd.readouterr()
    assert not [line for line in printed.err.splitlines() if "torch" in line and "transformers" not in line]
    assert not [r for r in caplog.records if r.name.startswith("torch")]
    assert [r for r in caplog.records if r.name == "optimum_int8"]


class Branch(nn.Module):
    """Which of its layers run depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(32, 32)
        self.second = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.second(y) if bool(y.sum() > 0) else y


class Cut(Branch):
    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.second(y[:, : int(y.abs().sum().item()) % 3 + 1])


class Routed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.gate = nn.Linear(32, 4)
        self.parts = nn.ModuleList(nn.Linear(32, 32) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        chosen = self.gate(x).argmax(-1)
        out = torch.zeros_like(x)
        for i in chosen.unique():
            out = out + self.parts[int(i)](x) * (chosen == i).unsqueeze(-1)
        return out


@pytest.mark.parametrize("kind", [Branch, Cut, Routed])
def test_code_that_depends_on_values_prints_no_graph(kind: type[nn.Module], capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    int8 = quantize(nn.Sequential(kind(), kind()).eval(), Int8Config(), progress=False)
    capfd.readouterr()
    with torch.no_grad():
        int8(torch.randn(2, 9, 32))
    assert capfd.readouterr() == ("", "")


def test_another_thread_still_prints(capfd: pytest.CaptureFixture[str]) -> None:
    def export() -> None:
        with pytest.raises(Exception, match="data-dependent"):
            torch.export.export(Branch(), (torch.randn(2, 32),), strict=False)

    with quiet():
        other = threading.Thread(target=export)
        other.start()
        other.join()
        assert "def forward" in capfd.readouterr().err
        export()
        assert "def forward" not in capfd.readouterr().err


def test_only_the_thread_itself_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("torch.export")
    with caplog.at_level(logging.ERROR, "torch.export"), quiet():
        logger.error("mine")
        other = threading.Thread(target=lambda: logger.error("another's"))
        other.start()
        other.join()
    assert [record.getMessage() for record in caplog.records] == ["another's"]
    logger.error("afterwards")
    assert caplog.records[-1].getMessage() == "afterwards"


def test_only_the_thread_itself_gives_no_warnings() -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with quiet():
            warnings.warn("mine", UserWarning, stacklevel=1)
            warnings.warn("mine", DeprecationWarning, stacklevel=1)
            other = threading.Thread(target=lambda: warnings.warn("another's", UserWarning, stacklevel=1))
            other.start()
            other.join()
        warnings.warn("afterwards", FutureWarning, stacklevel=1)
    assert [str(one.message) for one in heard] == ["another's", "afterwards"]


def test_filters_that_another_thread_sets_meanwhile_stay() -> None:
    """`warnings` keeps one list for all threads: a copy of it that is put back afterwards undoes what others did."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with quiet():
            other = threading.Thread(target=lambda: warnings.simplefilter("error", ResourceWarning))
            other.start()
            other.join()
        with pytest.raises(ResourceWarning):
            warnings.warn("afterwards", ResourceWarning, stacklevel=1)
