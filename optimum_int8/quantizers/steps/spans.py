"""From start and end logits to the best answers of one question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from .batching import Features


@dataclass(frozen=True)
class Answer:
    """A piece of the context.

    Args:
        logit: sum of its start and end logits; comparable between windows.
        score: product of its start and end probabilities within its window.
        start, end: characters of the context, `end` exclusive; equal for "no answer".
    """

    logit: float
    score: float
    start: int
    end: int


class SpanLogits(NamedTuple):
    """What the model gives for one window.

    Args:
        start, end: logits `[tokens]`, without padding: that the answer starts, or ends, at the token.
    """

    start: torch.Tensor
    end: torch.Tensor


class ReadWindow(NamedTuple):
    """A window of a question, one of `question_windows`, with its logits."""

    window: Features
    logits: SpanLogits


def window_answers(read: ReadWindow, *, number: int, max_tokens: int, whole_words: bool) -> list[Answer]:
    """The best answers within one window, best first.

    Args:
        number: how many answers.
        max_tokens: longest answer.
        whole_words: widen an answer to the borders of words.
    """
    window = read.window
    start, end = read.logits
    inside = torch.tensor([span is not None for span in window["spans"]])
    if not inside.any():
        return []
    # The probabilities are those among the tokens of the context and the first token, which stands for "no answer".
    counted = inside.clone()
    counted[0] = True
    norm = start[counted].logsumexp(0) + end[counted].logsumexp(0)
    sums = start[:, None] + end[None, :]
    allowed = torch.ones_like(sums, dtype=torch.bool).triu().tril(max_tokens - 1) & inside[:, None] & inside[None, :]
    best = sums.masked_fill(~allowed, -torch.inf).flatten().topk(min(number, int(allowed.sum())))
    spans = window["words"] if whole_words else window["spans"]
    answers = []
    for logit, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        first, last = divmod(index, len(end))
        answers.append(Answer(logit, float((logit - norm).exp()), spans[first].start, spans[last].end))
    return answers


def no_answer(read: ReadWindow) -> Answer:
    """The model's opinion that this window holds no answer: its first token."""
    start, end = read.logits
    inside = torch.tensor([number == 0 or span is not None for number, span in enumerate(read.window["spans"])])
    logit = start[0] + end[0]
    norm = start[inside].logsumexp(0) + end[inside].logsumexp(0)
    return Answer(float(logit), float((logit - norm).exp()), 0, 0)


def group_windows(windows: Sequence[Features], logits: Sequence[SpanLogits]) -> list[list[ReadWindow]]:
    """Windows with their logits, by question."""
    groups: dict[int, list[ReadWindow]] = {}
    for window, found in zip(windows, logits, strict=True):
        groups.setdefault(window["example"], []).append(ReadWindow(window, found))
    return [groups[example] for example in sorted(groups)]
