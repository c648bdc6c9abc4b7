"""What a quantizer saves holds the graphs of the calls that users make: alone, padded, long, with what the tokenizer gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from optimum_int8 import Int8Config, OptimizedModel, TextClassificationQuantizer
from optimum_int8.hub.programs import PROGRAMS_NAME
from optimum_int8.quantizers.steps.programs import try_examples
from tests.quantizers.tiny import make_folder

TEXTS = ["word1 word2", "word3 word4 word5 word6"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextClassificationQuantizer, Path]:
    folder = tmp_path_factory.mktemp("programs")
    quantizer = TextClassificationQuantizer.from_pretrained(make_folder(folder / "fp32"))
    quantizer.quantize(Int8Config(approach="dynamic"), save_directory=folder / "int8")
    return quantizer, folder / "int8"


@pytest.mark.slow
@pytest.mark.parametrize("loader", [OptimizedModel, AutoModelForSequenceClassification])
@pytest.mark.parametrize(
    "texts", [TEXTS[:1], TEXTS, [f"{text} word7" for text in TEXTS * 40]], ids=["alone", "padded", "long"]
)
def test_a_loaded_model_captures_nothing(
    texts: list[str], loader: Any, saved: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    quantizer, folder = saved
    assert (folder / PROGRAMS_NAME).is_file()
    inputs = quantizer.tokenizer(texts, padding=True, return_tensors="pt")
    assert "token_type_ids" in inputs
    expected = quantizer.int8_model(**inputs).logits
    model = loader.from_pretrained(folder)
    exports: list[Any] = []
    monkeypatch.setattr(torch.export, "export", lambda *args, **kwargs: exports.append(args))
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, expected)
    assert not exports


def test_a_model_whose_calls_are_not_known_is_saved_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "optimum_int8"):
        try_examples(torch.nn.Linear(2, 2))
    assert "no graphs are captured" in caplog.text
