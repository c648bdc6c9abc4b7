"""The question answering task: windows, the best answers against a plain search, SQuAD files, bad data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import BertForQuestionAnswering

from optimum_int8 import Int8Config, QuestionAnsweringQuantizer
from optimum_int8.errors import ConfigError, DataError
from optimum_int8.quantizers.steps.windows import question_windows

from ..tiny import make_config, make_folder, make_sentences, make_tokenizer


def make_reader() -> BertForQuestionAnswering:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertForQuestionAnswering(make_config()).eval()


@pytest.fixture
def quantizer() -> QuestionAnsweringQuantizer:
    made = QuestionAnsweringQuantizer(make_reader(), make_tokenizer(), stride=8)
    made.quantize(Int8Config(approach="dynamic"))
    return made


def plain_answer(model: BertForQuestionAnswering, question: str, context: str, longest: int) -> tuple[float, str]:
    """Score and text of the best answer in a context of one window, by trying every pair of words."""
    encoded = make_tokenizer()(question, context, return_tensors="pt")
    with torch.no_grad():
        out = model(**encoded)
    words = context.split()
    first = len(question.split()) + 2
    inside = [0, *range(first, first + len(words))]
    start, end = (logits[0][inside].softmax(0)[1:] for logits in (out.start_logits, out.end_logits))
    pairs = [(i, j) for i in range(len(words)) for j in range(i, min(i + longest, len(words)))]
    i, j = max(pairs, key=lambda pair: float(start[pair[0]] * end[pair[1]]))
    return float(start[i] * end[j]), " ".join(words[i : j + 1])


def make_rows(model: BertForQuestionAnswering, number: int = 12) -> dict[str, list[Any]]:
    """Questions answered by the FP32 model itself, so that its F1 is 100."""
    contexts = [" ".join(dict.fromkeys(text.split())) for text in make_sentences(number, seed=3)]
    questions = ["word1 word2"] * number
    answers = [plain_answer(model, *pair, 30)[1] for pair in zip(questions, contexts, strict=True)]
    return {"question": questions, "context": contexts, "answers": [{"text": [text]} for text in answers]}


def test_windows_cover_the_context_and_overlap() -> None:
    words = [f"word{number}" for number in range(50)]
    windows = question_windows(make_tokenizer(), ["word1 word2"], [" ".join(words)], 20, 4, make_config())
    assert len(windows) > 2
    seen: list[list[str]] = []
    for window in windows:
        assert len(window["input_ids"]) <= 20
        spans = [span for span in window["spans"] if span]
        seen.append([" ".join(words)[start:end] for start, end in spans])
        assert window["spans"][:4] == [None] * 4  # [CLS], the question, [SEP]
        assert window["example"] == 0
    assert list(dict.fromkeys(word for part in seen for word in part)) == words
    assert all(before[-4:] == after[:4] for before, after in zip(seen, seen[1:], strict=False))


def test_the_usual_stride_fits_short_windows() -> None:
    words = " ".join(f"word{number}" for number in range(50))
    usual = question_windows(make_tokenizer(), ["word1"], [words], 24, None, make_config())
    assert usual == question_windows(make_tokenizer(), ["word1"], [words], 24, 12, make_config())
    assert QuestionAnsweringQuantizer(make_reader(), make_tokenizer()).predict(
        question="word1", context=words, int8=False
    )


def test_long_questions_are_cut() -> None:
    question = " ".join(["word3"] * 100)
    (window,) = question_windows(make_tokenizer(), [question], ["word1 word2"], 40, 8, make_config())
    assert sum(span is not None for span in window["spans"]) == 2
    assert len(window["input_ids"]) == 10 + 2 + 3


def test_answers_of_whole_words() -> None:
    (window,) = question_windows(make_tokenizer(), ["word3"], ["word1 word2-word4"], 40, 8, make_config())
    spans = [span for span in window["words"] if span]
    assert spans == [(0, 5), (6, 11), (11, 12), (12, 17)]


@pytest.mark.parametrize("longest", [1, 3, 15])
def test_predict_finds_the_best_span(longest: int, quantizer: QuestionAnsweringQuantizer) -> None:
    for context in make_sentences(6, seed=5):
        found = quantizer.predict(question="word7", context=context, max_answer_len=longest, int8=False)
        score, text = plain_answer(quantizer.model, "word7", context, longest)
        if context.count(text) == 1:
            assert found == {
                "score": pytest.approx(score, rel=1e-4),
                "start": context.index(text),
                "end": context.index(text) + len(text),
                "answer": text,
            }


def test_the_best_answers_in_order(quantizer: QuestionAnsweringQuantizer) -> None:
    context = " ".join(f"word{number}" for number in range(30, 50))
    found = quantizer.predict(question="word7", context=context, top_k=5, int8=False)
    assert len(found) == 5 == len({row["answer"] for row in found})
    assert [row["score"] for row in found] == sorted((row["score"] for row in found), reverse=True)
    assert all(context[row["start"] : row["end"]] == row["answer"] for row in found)
    assert found[0] == quantizer.predict(question="word7", context=context, int8=False)
    several = quantizer.predict(question=["word7", "word8"], context=context, int8=False)
    assert several[0]["answer"] == found[0]["answer"]


def test_an_answer_far_behind_is_found(quantizer: QuestionAnsweringQuantizer) -> None:
    context = " ".join([*(f"word{number % 60}" for number in range(200)), "END"])
    found = quantizer.predict(question="word7", context=context, top_k=400, max_answer_len=2, int8=False)
    assert "END" in {row["answer"] for row in found}  # the last window takes part
    data = datasets.Dataset.from_dict({"question": ["word7"], "context": [context], "answers": [{"text": ["x"]}]})
    features = quantizer.preprocess(data)
    assert len(features) > 4
    (text,) = quantizer.predictions(quantizer.model, features, 8, "")
    assert text in context


def test_no_answer_can_win(quantizer: QuestionAnsweringQuantizer) -> None:
    model = quantizer.model
    tokens = make_tokenizer()("word7", "word1 word2", return_tensors="pt")
    with torch.no_grad():
        out = model(**tokens)
    inside = [0, 3, 4]
    null = float(out.start_logits[0][inside].softmax(0)[0] * out.end_logits[0][inside].softmax(0)[0])
    found = quantizer.predict(
        question="word7", context="word1 word2", top_k=10, handle_impossible_answer=True, int8=False
    )
    empty = next(row for row in found if not row["answer"])
    assert empty == {"score": pytest.approx(null, rel=1e-4), "start": 0, "end": 0, "answer": ""}


@pytest.mark.slow
def test_squad_file(tmp_path: Path) -> None:
    model = make_reader()
    model.save_pretrained(tmp_path / "fp32")
    make_tokenizer().save_pretrained(tmp_path / "fp32")
    rows = make_rows(model)
    articles = []
    for number in range(12):
        answers = [{"text": text, "answer_start": 0} for text in rows["answers"][number]["text"]]
        question = {"id": str(number), "question": rows["question"][number], "answers": answers}
        articles.append({"title": "t", "paragraphs": [{"context": rows["context"][number], "qas": [question]}]})
    (tmp_path / "dev.json").write_text(json.dumps({"version": "1.1", "data": articles}))
    made = QuestionAnsweringQuantizer.from_pretrained(tmp_path / "fp32", stride=8)
    assert made.stride == 8
    made.quantize(Int8Config(approach="static"), tmp_path / "dev.json", tmp_path / "int8")
    report = made.evaluate(tmp_path / "dev.json", batch_size=5, latency_rounds=1)
    assert (report.metric, report.fp32.value) == ("f1", 100.0)
    assert report.int8.value > 40
    exact = made.evaluate(datasets.Dataset.from_dict(rows), metric="exact_match", latency_rounds=1)
    assert (exact.metric, exact.fp32.value) == ("exact_match", 100.0)


def test_a_wrong_model_shows(quantizer: QuestionAnsweringQuantizer) -> None:
    wrong = make_reader()
    with torch.no_grad():
        wrong.qa_outputs.weight.neg_()
    quantizer.int8_model = wrong
    report = quantizer.evaluate(datasets.Dataset.from_dict(make_rows(quantizer.model)), latency_rounds=1)
    assert report.fp32.value == 100.0 > report.int8.value + 20


@pytest.mark.slow
def test_questions_without_an_answer(quantizer: QuestionAnsweringQuantizer) -> None:
    rows = make_rows(quantizer.model, 4)
    rows["answers"][0] = {"text": []}
    with torch.no_grad():  # a model that is sure that there is no answer
        quantizer.model.qa_outputs.weight.zero_()
        quantizer.model.qa_outputs.bias.zero_()
    features = quantizer.preprocess(datasets.Dataset.from_dict(rows))
    assert all(feature["may_lack"] for feature in features)
    data = datasets.Dataset.from_dict({name: values[1:] for name, values in rows.items()})
    assert not any(feature["may_lack"] for feature in quantizer.preprocess(data))
    report = quantizer.evaluate(datasets.Dataset.from_dict(rows), latency_rounds=1)
    assert report.fp32.value <= 100.0


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"context": ["word1"], "answers": [["word1"]]}, "no question column 'question'; the dataset has context"),
        ({"question": ["word1"], "answers": [["word1"]]}, "no context column 'context'"),
        ({"question": ["word1"], "context": ["word1"]}, "no answer column among question, context"),
        ({"question": ["word1"], "context": ["word1"], "answers": [3]}, "expected the texts of the answers"),
        ({"question": ["word1"], "context": [None], "answers": [["a"]]}, "row 1 of column 'context' holds None"),
        ({"question": [], "context": [], "answers": []}, "has no rows"),
    ],
)
def test_data_that_does_not_fit(columns: dict[str, Any], message: str, quantizer: QuestionAnsweringQuantizer) -> None:
    with pytest.raises(DataError, match=message):
        quantizer.evaluate(datasets.Dataset.from_dict(columns))


def test_arguments_that_do_not_fit(quantizer: QuestionAnsweringQuantizer) -> None:
    for question, context in (("", "word1"), ("word1", " "), (["word1"], ["word1", "word2"]), ([], [])):
        with pytest.raises(DataError, match="expected as many, and none empty"):
            quantizer.predict(question=question, context=context)
    with pytest.raises(DataError, match="top_k is 0"):
        quantizer.predict(question="word1", context="word1", top_k=0)
    quantizer.stride = 40
    with pytest.raises(ConfigError, match="stride is 40 for windows of 40 tokens"):
        quantizer.predict(question="word1", context="word1")
    quantizer.max_length = 50
    with pytest.raises(ConfigError, match="this model takes 1 to 40 tokens"):
        quantizer.predict(question="word1", context="word1")


def test_a_model_of_another_task(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a class that ends in ForQuestionAnswering"):
        QuestionAnsweringQuantizer.from_pretrained(make_folder(tmp_path))


def test_a_damaged_squad_file(tmp_path: Path, quantizer: QuestionAnsweringQuantizer) -> None:
    (tmp_path / "dev.json").write_text('{"data": [{"paragraphs": [{"context": "a", "qas": [{"answers": []}]}]}]}')
    with pytest.raises(DataError, match="question 1 of .* is not in SQuAD's layout: KeyError"):
        quantizer.evaluate(tmp_path / "dev.json")


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_squad(approach: str, shared_dir: Path, tmp_path: Path) -> None:
    made = QuestionAnsweringQuantizer.from_pretrained(shared_dir / "models" / "bert-minilm-squad", max_length=320)
    data = shared_dir / "data" / "squad"
    made.quantize(Int8Config(approach=approach), data / "squadshifts-new_wiki_v1.0.json", tmp_path)
    validation = made.get_calibration_dataset(data / "dev-v1.1.json", num_samples=100)
    report = made.evaluate(validation, batch_size=16, latency_rounds=1)
    assert report.fp32.value > 50
    # On 1,000 questions both lose 0.04 % (model_cards/). Over 100 of them F1 moves by a point or so with rounding alone: this bound finds a
    # broken model, as one range for outlier tokens and all others makes it (3.4 %).
    assert report.relative_loss is not None and report.relative_loss <= 0.03
    assert report.compression_ratio >= 3.8
