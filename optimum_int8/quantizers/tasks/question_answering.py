"""Extractive question answering: the piece of a text that answers a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from ...errors import DataError
from ...evaluation.answers import accepted_answers, has_answers, questions_and_contexts
from ..base import Quantizer
from ..steps.batching import Batch, Features, run_batches, without
from ..steps.inputs import model_input_columns
from ..steps.spans import Answer, ReadWindow, SpanLogits, group_windows, no_answer, window_answers
from ..steps.windows import question_windows

if TYPE_CHECKING:
    import datasets


class QuestionAnsweringQuantizer(Quantizer):
    """Quantizes `...ForQuestionAnswering` models; the metric is SQuAD's F1 (`metric="exact_match"` for the other).

    Datasets have the columns `question`, `context` and `answers`; files in SQuAD's layout are read too. Contexts longer
    than `max_length` tokens (384 by default) are read in overlapping windows, and the best answer of all counts.

    Args:
        stride: tokens that neighbouring windows share; None takes 128, or half of a shorter window, as the old pipeline did.
        max_answer_tokens: longest answer of an evaluation; `predict` has its own.

    Example:
        >>> quantizer = QuestionAnsweringQuantizer.from_pretrained("my-reader")  # doctest: +SKIP
        >>> quantizer.quantize(Int8Config(approach="static"), "train-v1.1.json", "my-int8")  # doctest: +SKIP
        >>> quantizer.predict(question="Where?", context="They met in Ulm.")["answer"]  # doctest: +SKIP
        'Ulm'
    """

    task = "question-answering"
    head = ("ForQuestionAnswering", "ForQuestionAnsweringSimple")  # XLNet's without beams
    auto_class = "AutoModelForQuestionAnswering"
    own_options = ("stride", "max_answer_tokens")

    def __init__(self, *arguments: Any, stride: int | None = None, max_answer_tokens: int = 30, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.stride = stride
        self.max_answer_tokens = max_answer_tokens

    @property
    def metric(self) -> str:
        """`"squad"`, of which F1 is shown."""
        return "squad"

    def preprocess(self, dataset: datasets.Dataset) -> list[Features]:
        """Windows of every question (see `question_windows`); or the model's inputs that the dataset has."""
        if model_input_columns(self.model, dataset):
            return super().preprocess(dataset)
        questions, contexts = questions_and_contexts(dataset, self._columns())
        windows = self._windows(questions, contexts)
        # Only then may a model say that there is no answer: one that was trained on SQuAD 1 does not know how.
        may_lack = has_answers(dataset, self.label_column) and not all(accepted_answers(dataset, self.label_column))
        return [{**window, "context": contexts[window["example"]], "may_lack": may_lack} for window in windows]

    def collate(self, features: Sequence[Features]) -> Batch:
        """Padded batch of the model's inputs."""
        return super().collate(without(features, "example", "spans", "words", "context", "may_lack"))

    def references(self, dataset: datasets.Dataset) -> list[Any]:
        """Accepted texts of every question. Raises `DataError` for columns that are missing."""
        questions_and_contexts(dataset, self._columns())
        return accepted_answers(dataset, self.label_column)

    def predictions(
        self, model: PreTrainedModel, features: Sequence[Features], batch_size: int, description: str
    ) -> list[Any]:
        """The best answer of every question: the highest sum of logits over all its windows."""
        texts = []
        for group in group_windows(features, self._logits(model, features, batch_size, description)):
            context, may_lack = (group[0].window[name] for name in ("context", "may_lack"))
            found = _answers(group, 1, self.max_answer_tokens, whole_words=False)
            best = max(found, key=lambda answer: answer.logit, default=None)
            if may_lack and best is not None:
                # A window without the answer says so rightly; all of them must.
                lack = min(no_answer(read).logit for read in group)
                best = None if lack > best.logit else best
            texts.append(context[best.start : best.end] if best else "")
        return texts

    def predict(
        self,
        *,
        question: str | Sequence[str],
        context: str | Sequence[str],
        top_k: int = 1,
        max_answer_len: int = 15,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
        batch_size: int = 8,
        int8: bool = True,
    ) -> Any:
        """Answers as the pipeline gave them that Transformers 5 removed.

        Args:
            question, context: texts, or as many of both; one context serves several questions.
            top_k: how many answers per question.
            max_answer_len: longest answer in tokens.
            handle_impossible_answer: an empty answer competes, with the probability that there is none.
            align_to_words: widen answers to the borders of words.
            int8: use the INT8 model; False uses the FP32 one.

        Returns:
            `{"score", "start", "end", "answer"}`: a probability, characters of the context, the text. A list of them
            for `top_k` above 1, and a list of either for several questions.

        Raises:
            ConfigError: `int8` before anything was quantized.
            DataError: empty texts, or numbers of questions and contexts that do not fit.
        """
        questions = [question] if isinstance(question, str) else list(question)
        contexts = [context] * len(questions) if isinstance(context, str) else list(context)
        if (
            len(questions) != len(contexts)
            or not all(text.strip() for text in (*questions, *contexts))
            or not questions
        ):
            raise DataError(f"{len(questions)} questions, {len(contexts)} contexts; expected as many, and none empty")
        if top_k < 1 or max_answer_len < 1:
            raise DataError(f"top_k is {top_k} and max_answer_len {max_answer_len}; expected at least 1")
        model = self._require_int8() if int8 else self.model
        windows = self._windows(questions, contexts)
        results = []
        for group in group_windows(windows, self._logits(model, windows, batch_size, "predicting")):
            found = _answers(group, top_k, max_answer_len, whole_words=align_to_words)
            if handle_impossible_answer:
                found.append(min(map(no_answer, group), key=lambda answer: answer.score))
            results.append(_as_pipeline(found, contexts[group[0].window["example"]], top_k))
        return results[0] if isinstance(question, str) else results

    def _columns(self) -> tuple[str, ...] | None:
        if self.text_column is None:
            return None
        names = self.text_column.split(",") if isinstance(self.text_column, str) else self.text_column
        return tuple(name.strip() for name in names)

    def _windows(self, questions: Sequence[str], contexts: Sequence[str]) -> list[Features]:
        tokenizer = self.require_tokenizer()
        return question_windows(tokenizer, questions, contexts, self.max_length, self.stride, self.model.config)

    def _logits(
        self, model: PreTrainedModel, windows: Sequence[Features], batch_size: int, description: str
    ) -> list[SpanLogits]:
        """The logits of every window."""

        def forward(batch: Batch) -> Sequence[Any]:
            outputs = self.forward(model, batch)
            return list(zip(outputs.start_logits.float(), outputs.end_logits.float(), strict=True))

        rows = run_batches(windows, self.collate, forward, batch_size=batch_size, description=description)
        left = self.require_tokenizer().padding_side == "left"
        cut = []
        for window, pair in zip(windows, rows, strict=True):
            length = len(window["input_ids"])
            cut.append(SpanLogits(*(row[-length:] if left else row[:length] for row in pair)))
        return cut


def _answers(group: Sequence[ReadWindow], number: int, max_tokens: int, *, whole_words: bool) -> list[Answer]:
    """The best answers of each window of a question."""
    return [
        answer
        for read in group
        for answer in window_answers(read, number=number, max_tokens=max_tokens, whole_words=whole_words)
    ]


def _as_pipeline(found: list[Answer], context: str, top_k: int) -> Any:
    """The best answers, those of the same text together with their probabilities summed, as the pipeline did."""
    merged: dict[str, dict[str, Any]] = {}
    for answer in found:
        text = context[answer.start : answer.end]
        entry = {"score": 0.0, "start": answer.start, "end": answer.end, "answer": text}
        merged.setdefault(text.lower(), entry)["score"] += answer.score
    best = sorted(merged.values(), key=lambda entry: entry["score"], reverse=True)[:top_k]
    if top_k > 1:
        return best
    return best[0] if best else {"score": 0.0, "start": 0, "end": 0, "answer": ""}
