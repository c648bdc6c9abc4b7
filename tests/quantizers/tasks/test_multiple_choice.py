"""The multiple choice task: SWAG's columns and others, choices of unequal length, bad data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import BertForMultipleChoice

from optimum_int8 import Int8Config, MultipleChoiceQuantizer
from optimum_int8.errors import ConfigError, DataError

from ..tiny import make_config, make_folder, make_sentences, make_tokenizer


def make_chooser() -> BertForMultipleChoice:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertForMultipleChoice(make_config()).eval()


def own_choice(model: BertForMultipleChoice, first: str, seconds: list[str]) -> int:
    """What the FP32 model answers, one choice at a time without padding."""
    tokenizer = make_tokenizer()
    with torch.no_grad():
        scores = [
            float(model(**{k: v[None] for k, v in tokenizer(first, s, return_tensors="pt").items()}).logits)
            for s in seconds
        ]
    return scores.index(max(scores))


def make_rows(model: BertForMultipleChoice, number: int = 12) -> dict[str, list[Any]]:
    """Rows in SWAG's columns, answered by the FP32 model itself."""
    shorten = [" ".join(text.split()[:6]) for text in make_sentences(number * 6)]
    rows: dict[str, list[Any]] = {"sent1": shorten[:number], "sent2": shorten[number : 2 * number]}
    for choice in range(4):
        rows[f"ending{choice}"] = shorten[(2 + choice) * number : (3 + choice) * number]
    rows["label"] = [
        own_choice(model, rows["sent1"][i], [f"{rows['sent2'][i]} {rows[f'ending{c}'][i]}" for c in range(4)])
        for i in range(number)
    ]
    return rows


@pytest.fixture
def quantizer() -> MultipleChoiceQuantizer:
    made = MultipleChoiceQuantizer(make_chooser(), make_tokenizer())
    made.quantize(Int8Config(approach="dynamic"))
    return made


@pytest.mark.slow
def test_swag(tmp_path: Path) -> None:
    made = MultipleChoiceQuantizer(make_chooser(), make_tokenizer())
    rows = make_rows(made.model)
    data = datasets.Dataset.from_dict(rows)
    made.quantize(Int8Config(approach="static"), data, tmp_path)
    report = made.evaluate(data, batch_size=5, latency_rounds=1)
    assert len(set(rows["label"])) > 1
    assert (report.metric, report.fp32.value) == ("accuracy", 1.0)
    assert report.int8.value >= 0.75
    other = MultipleChoiceQuantizer(make_chooser(), make_tokenizer())
    other.load_int8(tmp_path)
    assert other.evaluate(data, latency_rounds=1).int8.value == report.int8.value


@pytest.mark.slow
def test_other_columns(quantizer: MultipleChoiceQuantizer) -> None:
    rows = make_rows(quantizer.model)
    endings = [[f"{rows['sent2'][i]} {rows[f'ending{c}'][i]}" for c in range(4)] for i in range(12)]
    letters = ["ABCD"[label] for label in rows["label"]]
    for columns in (
        {"startphrase": rows["sent1"], "choices": endings, "answer": rows["label"]},
        {"question": rows["sent1"], "choices": [{"text": e} for e in endings], "answerKey": letters},
        {"ctx": rows["sent1"], "endings": endings, "label": [str(label) for label in rows["label"]]},
        {"premise": rows["sent1"], **{f"choice{c}": [e[c] for e in endings] for c in range(4)}, "label": rows["label"]},
    ):
        assert quantizer.evaluate(datasets.Dataset.from_dict(columns), latency_rounds=1).fp32.value == 1.0


def test_a_wrong_model_shows(quantizer: MultipleChoiceQuantizer) -> None:
    wrong = make_chooser()
    with torch.no_grad():
        wrong.classifier.weight.neg_()
    quantizer.int8_model = wrong
    report = quantizer.evaluate(datasets.Dataset.from_dict(make_rows(quantizer.model)), latency_rounds=1)
    assert (report.fp32.value, report.int8.value) == (1.0, 0.0)


def test_predict(quantizer: MultipleChoiceQuantizer) -> None:
    choices = ["word1 word2", "word3", "word4 word5 word6"]
    found = quantizer.predict("word7", choices, int8=False)
    assert found["index"] == own_choice(quantizer.model, "word7", choices)
    assert found["choice"] == choices[found["index"]]
    assert sum(found["scores"]) == pytest.approx(1) and found["score"] == max(found["scores"])
    with pytest.raises(DataError, match="at least two texts"):
        quantizer.predict("word7", ["word1"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"], "choices": [["a", "b"]], "label": [0]}, "no context column among text, choices, label"),
        ({"sent1": ["a"], "label": [0]}, "no choices among sent1, label"),
        ({"question": ["a"], "choices": [["a", "b"]]}, "no label column among question, choices"),
        ({"question": ["a"], "choices": [["a", "b"]], "label": [2]}, "holds 2; expected one of 2 choices, from 0"),
        ({"question": ["a"], "choices": [["a", "b"]], "label": [-1]}, "holds -1; expected one of 2 choices"),
        (
            {"question": ["a", "a"], "choices": [["a", "b"], ["a"]], "label": [0, 0]},
            "row 2 has 1 choices and the first",
        ),
        ({"question": ["a"], "choices": ["ab"], "label": [0]}, "expected a list of texts"),
        ({"question": [], "choices": [], "label": []}, "has no rows"),
    ],
)
def test_data_that_does_not_fit(columns: dict[str, Any], message: str, quantizer: MultipleChoiceQuantizer) -> None:
    with pytest.raises(DataError, match=message):
        quantizer.evaluate(datasets.Dataset.from_dict(columns))


def test_a_model_of_another_task(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a class that ends in ForMultipleChoice"):
        MultipleChoiceQuantizer.from_pretrained(make_folder(tmp_path))
