"""Pairs of a question and a window of its text, which may be longer than the model's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ...errors import ConfigError
from ...evaluation.answers import Questions
from ...evaluation.progress import progress_bar
from .batching import Features
from .inputs import CHUNK, check_vocabulary, length_limit, require_fast

USUAL_LENGTH = 384
"""Tokens per window unless the user says otherwise; what SQuAD models are trained on, and the old pipeline's."""

USUAL_STRIDE = 128
"""Tokens that neighbouring windows share, unless the user says otherwise; that of SQuAD's script and of the old pipeline."""

LONGEST_QUESTION = 64
"""Tokens of a question that are kept; SQuAD's script and the old pipeline cut there too."""


class Span(NamedTuple):
    """A piece of a text: its first character, and the one after its last."""

    start: int
    end: int


def question_windows(
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    contexts: Sequence[str],
    max_length: int | None,
    stride: int | None,
    config: PreTrainedConfig,
) -> list[Features]:
    """One or more windows per question, as model inputs and three more entries.

    `example` is the number of the question. `spans` has the `Span` of each token in the context, None outside of it.
    `words` has that of the word which the token is part of.

    Args:
        max_length: tokens per window, question included; None takes 384, or the model's limit.
        stride: tokens that neighbouring windows share; None takes `USUAL_STRIDE`, or half of a shorter window.

    Raises:
        ConfigError: `max_length` that the model does not take, or a stride that leaves no way forward.
    """
    require_fast(tokenizer)
    limit = length_limit(tokenizer, max_length, config)
    length = min(limit or USUAL_LENGTH, max_length or USUAL_LENGTH)
    stride = min(USUAL_STRIDE, length // 2) if stride is None else stride
    kept = [_cut(tokenizer, question, min(LONGEST_QUESTION, length // 4)) for question in questions]
    if not 0 <= stride < length - length // 4 - tokenizer.num_special_tokens_to_add(pair=True):
        raise ConfigError(f"stride is {stride} for windows of {length} tokens; expected less than half of them")
    features: list[Features] = []
    for start in progress_bar(range(0, len(kept), CHUNK), "tokenizing"):
        chunk = Questions(kept[start : start + CHUNK], list(contexts[start : start + CHUNK]))
        features += _windows(tokenizer, chunk, length, stride, start)
    check_vocabulary(features, config)
    return features


def _windows(
    tokenizer: PreTrainedTokenizerBase, pairs: Questions, length: int, stride: int, first: int
) -> list[Features]:
    # Models that pad on the left (XLNet) are trained with the question behind the text.
    question_first = tokenizer.padding_side == "right"
    encoded = tokenizer(
        *(pairs if question_first else pairs[::-1]),
        truncation="only_second" if question_first else "only_first",
        max_length=length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=True,
    )
    examples = encoded.pop("overflow_to_sample_mapping")
    offsets = encoded.pop("offset_mapping")
    features = []
    for row, example in enumerate(examples):
        inside = [part == int(question_first) for part in encoded.sequence_ids(row)]
        spans = [Span(*span) if ok else None for span, ok in zip(offsets[row], inside, strict=True)]
        inputs: dict[str, Any] = {name: values[row] for name, values in encoded.items()}
        words = _word_spans(spans, encoded.word_ids(row))
        features.append({**inputs, "example": first + example, "spans": spans, "words": words})
    return features


def _word_spans(spans: list[Span | None], word_ids: list[int | None]) -> list[Span | None]:
    """The span of the word that each token is part of."""
    borders: dict[int | None, Span] = {}
    for span, word in zip(spans, word_ids, strict=True):
        if span is not None:
            known = borders.get(word, span)
            borders[word] = Span(min(known.start, span.start), max(known.end, span.end))
    return [
        None if span is None else borders[word] if word is not None else span
        for span, word in zip(spans, word_ids, strict=True)
    ]


def _cut(tokenizer: PreTrainedTokenizerBase, question: str, tokens: int) -> str:
    """The question without leading white space, which some files have, and without what is beyond `tokens`."""
    question = question.lstrip()
    if len(question) <= tokens:  # a token has at least one character
        return question
    encoded = tokenizer(
        question, add_special_tokens=False, truncation=True, max_length=tokens, return_offsets_mapping=True
    )
    ends = [end for _, end in encoded["offset_mapping"]]
    return question[: ends[-1]] if len(ends) == tokens else question
