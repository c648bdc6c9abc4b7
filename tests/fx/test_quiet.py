"""A first call prints and logs nothing of torch's internals."""

from __future__ import annotations

import logging
import threading

import pytest
import torch
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
from optimum_int8.fx.quiet import quiet

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
