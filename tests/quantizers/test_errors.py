"""What every quantizer refuses, with one error that says so: wrong columns, no rows, labels the model does not have, another task's model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pytest

from optimum_int8 import ConfigError, DataError, Int8Config, OptimumInt8Error
from optimum_int8.quantizers import QUANTIZERS, Quantizer

from .tasks import test_feature_extraction as vectors
from .tasks import test_image_classification as images
from .tasks import test_language_modeling as language
from .tasks import test_multiple_choice as choice
from .tasks import test_object_detection as detection
from .tasks import test_question_answering as answers
from .tasks import test_text_to_text as generated
from .tasks import test_token_classification as tokens
from .tiny import make_model, make_tokenizer

STRANGE = {"alpha": [1.5, 2.5], "beta": [[0.5], [1.5]], "gamma": [3.5, 4.5]}
"""Columns that serve no task, by their names."""

PICTURE = images.make_images(1)[0]


@dataclass
class Case:
    """One quantizer: its model and tokenizer, columns that it takes, and their labels gone wrong (None: it has none)."""

    model: Callable[[], Any]
    columns: dict[str, list[Any]]
    wrong_labels: dict[str, list[Any]] | None
    message: str = ""
    tokenizer: Callable[[], Any] = make_tokenizer
    options: dict[str, Any] = field(default_factory=dict)


_PAIR = {"en": ["word1", "word2"], "de": ["word3", "word4"]}
_SUMMARY = {"dialogue": ["word1", "word2"], "summary": ["word3", "word4"]}

CASES: dict[str, Case] = {
    "text-classification": Case(
        make_model,
        {"sentence": ["word1", "word2"], "label": [0, 1]},
        {"label": [0, 7]},
        "row 2 .* holds 7; the model has",
    ),
    "token-classification": Case(
        tokens.make_tagger,
        {"tokens": [["word1"], ["word2"]], "ner_tags": [["O"], ["B-name"]]},
        {"ner_tags": [["O"], ["B-thing"]]},
        "row 2 .* tag 'B-thing'; the model has the 4 tags",
    ),
    "question-answering": Case(
        answers.make_reader,
        {"question": ["word1", "word2"], "context": ["word3", "word4"], "answers": [["word3"], ["word4"]]},
        {"answers": [[3], [4]]},
        "row 1 of column 'answers' holds .*; expected the texts of the answers",
    ),
    "summarization": Case(
        generated.make_t5,
        _SUMMARY,
        {"summary": [3, 4]},
        "row 1 of column 'summary' holds '?3",
        generated.make_tokenizer,
    ),
    "translation": Case(
        generated.make_marian, _PAIR, {"de": [3, 4]}, "row 1 of column 'de' holds '?3", generated.make_tokenizer
    ),
    "multiple-choice": Case(
        choice.make_chooser,
        {"question": ["word1", "word2"], "choices": [["word3", "word4"]] * 2, "label": [0, 1]},
        {"label": [0, 2]},
        "holds 2; expected one of 2 choices",
    ),
    "language-modeling": Case(language.make_causal, {"text": ["word1 word2 word3", "word4 word5"]}, None),
    "feature-extraction": Case(
        vectors.make_encoder,
        {"sentence1": ["word1", "word2"], "sentence2": ["word3", "word4"], "score": [1.0, 2.0]},
        {"score": ["near", "far"]},
        "the model predicts a number",
    ),
    "image-classification": Case(
        images.make_model,
        {"image": [PICTURE, PICTURE], "label": [0, 1]},
        {"label": [0, 3]},
        "row 2 .* holds 3; the model has the 3 classes",
        images.make_processor,
    ),
    "object-detection": Case(
        detection.make_model,
        {"image": [PICTURE, PICTURE], "objects": [{"bbox": [detection.BOX], "category": [n]} for n in (0, 1)]},
        {"objects": [{"bbox": [detection.BOX], "category": [n]} for n in (0, 3)]},
        "row 2 .* holds 3; the model has the 3 classes",
        detection.make_processor,
    ),
}
FOR_TASK = {quantizer.task: quantizer for quantizer in QUANTIZERS}


def make(task: str, tokenizer: Any = None, **options: Any) -> Quantizer:
    """A quantizer that has an INT8 model, so that only the data can be wrong."""
    case = CASES[task]
    made = FOR_TASK[task](case.model(), case.tokenizer() if tokenizer is None else tokenizer, **case.options, **options)
    made.int8_model = made.model
    return made


def one_error(error: type[OptimumInt8Error], message: str, call: Callable[[], Any]) -> None:
    """`call` raises `error`, which needs no other one to be understood."""
    with pytest.raises(error, match=message) as found:
        call()
    assert len(str(found.value)) < 400 and "\n" not in str(found.value)


def test_every_quantizer_is_here() -> None:
    assert set(CASES) == set(FOR_TASK)


@pytest.mark.parametrize("task", CASES)
def test_wrong_columns(task: str) -> None:
    made, data = make(task), datasets.Dataset.from_dict(STRANGE)
    named = "alpha, beta, gamma"  # the error lists what the dataset has
    one_error(DataError, named, lambda: made.evaluate(data))
    one_error(DataError, named, lambda: made.quantize(Int8Config(approach="static"), data))


@pytest.mark.parametrize("task", CASES)
def test_a_column_that_was_named_is_missing(task: str) -> None:
    made, data = make(task, text_column="delta"), datasets.Dataset.from_dict(CASES[task].columns)
    one_error(DataError, "delta", lambda: made.evaluate(data))
    one_error(DataError, "delta", lambda: made.quantize(Int8Config(approach="static"), data))


@pytest.mark.parametrize("task", CASES)
def test_no_rows(task: str) -> None:
    made, data = make(task), datasets.Dataset.from_dict({name: [] for name in CASES[task].columns})
    one_error(DataError, "no rows", lambda: made.evaluate(data))
    one_error(DataError, "no rows", lambda: made.quantize(Int8Config(approach="static"), data))


@pytest.mark.parametrize("task", [task for task, case in CASES.items() if case.wrong_labels])
def test_labels_that_do_not_match(task: str) -> None:
    case = CASES[task]
    data = datasets.Dataset.from_dict({**case.columns, **(case.wrong_labels or {})})
    one_error(DataError, case.message, lambda: make(task).evaluate(data))


@pytest.mark.parametrize("task", CASES)
def test_a_model_of_another_task(task: str, tmp_path: Path) -> None:
    other = tokens.make_tagger() if task == "text-classification" else make_model()
    other.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    one_error(ConfigError, "expected a class that ends in", lambda: FOR_TASK[task].from_pretrained(tmp_path))


@pytest.mark.parametrize("task", [task for task in CASES if task not in ("image-classification", "object-detection")])
def test_a_tokenizer_of_another_model(task: str) -> None:
    """Tokens that the model has no row for are found before the model is run."""
    case = CASES[task]
    wide = case.tokenizer()
    wide.add_tokens(["zebra"])
    made = make(task, wide)
    columns = {name: [_renamed(value) for value in values] for name, values in case.columns.items()}
    one_error(
        ConfigError, "pass the tokenizer that belongs", lambda: made.evaluate(datasets.Dataset.from_dict(columns))
    )


def _renamed(value: Any) -> Any:
    """Texts with a word that only the wide tokenizer has; tags stay."""
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    return value.replace("word", "zebra word") if isinstance(value, str) else value
