"""The training sentences of the quickstart's classifier: random sentences over `lexicon.py`, labelled by construction.

A clause has a polarity; a frame joins clauses and says which one decides ("bad, but good" is good).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from clauses import CLAUSES, PLAIN, filler, salad
from frames import CONTRAST, DECIDED, FEELINGS, OPENINGS
from lexicon import NOUNS
from subject import Subject


def _clause(subject: Subject, label: int) -> str:
    clause = subject.rng.choice(CLAUSES)(subject, label)
    draw = subject.rng.random()
    if draw < 0.2:
        return f"{clause}{subject.rng.choice((' ', ' ', ', '))}{filler(subject.rng)}"
    return f"{filler(subject.rng)}{subject.rng.choice((' ', ', '))}{clause}" if draw < 0.25 else clause


def _other(subject: Subject, label: int) -> str:
    """A clause about the same subject or about another one."""
    return _clause(subject if subject.rng.random() < 0.5 else Subject(subject.rng), label)


def _contrast(subject: Subject, label: int) -> str:
    """Two clauses of opposite polarity; the conjunction says which one counts."""
    return subject.rng.choice(CONTRAST).format(win=_clause(subject, label), lose=_other(subject, 1 - label))


def _agree(subject: Subject, label: int) -> str:
    shape = subject.rng.choice(
        ("{0}, and {1}", "{0}; {1}", "{0} because {1}", "{0}. {1}", "{0}, {1}", "{0} and {1}", "{0}, so {1}")
    )
    return shape.format(_clause(subject, label), _other(subject, label))


def _decided(subject: Subject, label: int) -> str:
    """A frame whose own words decide: irony, expectations met or not, conditions."""
    return subject.rng.choice(DECIDED[label]).format(
        good=subject.attribute(1), bad=subject.attribute(0), is_good=subject.adjective(1), is_bad=subject.adjective(0),
        did_good=subject.event(1), did_bad=subject.event(0), do_good=subject.verb(1), do_bad=subject.verb(0),
        n=subject.noun, m=subject.rng.choice(NOUNS[subject.kind]), clause=_clause(subject, label),
    )  # fmt: skip


def _feeling(subject: Subject, label: int) -> str:
    feeling = subject.rng.choice(FEELINGS[label])
    return (
        feeling
        if subject.rng.random() < 0.4
        else f"{_clause(subject, label)}{subject.rng.choice(('. ', ', and ', '; '))}{feeling}"
    )


FRAMES: tuple[Callable[[Subject, int], str], ...] = (
    _clause, _clause, _clause, _clause, _clause, _clause, _clause, _clause, _contrast, _contrast, _agree,
    _decided, _decided, _feeling, salad, salad, salad, salad,
)  # fmt: skip


def generate(count: int, seed: int, *, plain: bool = False) -> list[tuple[str, int]]:
    """`count` different labelled sentences, half of each label, the same ones for the same seed.

    Args:
        plain: short clauses only.

    Returns:
        (text, label) pairs, label 0 for NEGATIVE and 1 for POSITIVE, in random order.
    """
    rng = random.Random(seed)
    sentences: dict[str, int] = {}
    while len(sentences) < count:
        label = len(sentences) % 2
        subject = Subject(rng)
        opening = rng.choice(OPENINGS) if not plain and rng.random() < 0.1 else ""
        text = opening + rng.choice(PLAIN if plain else FRAMES)(subject, label)
        text = text[0].upper() + text[1:] + rng.choice((".", ".", ".", ".", "!", ""))
        sentences.setdefault(text, label)
    pairs = list(sentences.items())
    rng.shuffle(pairs)
    return pairs
