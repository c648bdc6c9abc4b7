"""Clauses with a polarity, over one subject: `CLAUSES` lists them all, `PLAIN` the easy ones.

Each takes the subject and the label (0 NEGATIVE, 1 POSITIVE) and gives text. Negation turns a word of the other polarity
round, so that no word decides alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from frames import OPINIONS
from lexicon import NOUNS, PLURALS
from subject import CLASSES, Subject
from words import (
    ACTIONS,
    LIKES,
    MANNERS,
    NEUTRAL_ADJECTIVES,
    NEUTRAL_NOUNS,
    ORDERS,
    PARTS,
    PEOPLE,
    PREPOSITIONS,
    SETTINGS,
)

LINKS = (
    "and", "of", "that", "it", "is", "was", "with", "i", "we", "you", "he", "they", "so", "as", "when", "which", "to", "for",
    "my", "our", "there", "has", "had", "this", "while",
)  # fmt: skip
ADVERBS = (
    "really",
    "very",
    "so",
    "quite",
    "absolutely",
    "truly",
    "incredibly",
    "simply",
    "far too",
    "pretty",
    "rather",
)


def _is(subject: Subject, label: int) -> str:
    word = subject.adjective(label)
    adverb = subject.rng.choice(ADVERBS) + " " if " " not in word and subject.rng.random() < 0.4 else ""
    verb = subject.rng.choice(("is", "was", "is", "was", "looks", "seemed", "turned out to be", "has been", "remains"))
    return f"{subject.named()} {verb} {adverb}{word}"


def _is_list(subject: Subject, label: int) -> str:
    words = [subject.adjective(label) for _ in range(subject.rng.choice((2, 2, 3)))]
    if label == 0 and subject.rng.random() < 0.15 or label == 1 and subject.rng.random() < 0.05:
        other = [subject.adjective(1 - label) for _ in range(2)]
        return f"{subject.named()} was neither {other[0]} nor {other[1]}"
    joined = ", ".join(words[:-1]) + subject.rng.choice((" and ", " and ", ", ", " and also ")) + words[-1]
    return joined if subject.rng.random() < 0.35 else f"{subject.named()} is {joined}"


def _event(subject: Subject, label: int) -> str:
    return f"{subject.named()} {subject.event(label)}"


def _two_events(subject: Subject, label: int) -> str:
    return f"{subject.named()} {subject.event(label)} and {subject.event(label)}"


def _is_not(subject: Subject, label: int) -> str:
    negation = subject.rng.choice(
        (
            "is not",
            "isn't",
            "was not",
            "wasn't",
            "is never",
            "is anything but",
            "was far from",
            "is not at all",
            "has never been",
        )
    )
    if label == 0 and subject.rng.random() < 0.3:
        negation = subject.rng.choice(("is hardly", "is not as it should be:", "is no longer", "is not even"))
    return f"{subject.named()} {negation} {subject.adjective(1 - label)}"


def _does_not(subject: Subject, label: int) -> str:
    negation = subject.rng.choice(
        (
            "does not",
            "doesn't",
            "did not",
            "didn't",
            "will not",
            "won't",
            "could not",
            "would not",
            "has yet to",
            "never did",
        )
    )
    if subject.rng.random() < 0.15 and label == 1:
        return f"{subject.named()} never fails to {subject.verb(1)}"
    if subject.rng.random() < 0.15 and label == 0:
        return (
            f"{subject.named()} {subject.rng.choice(('refuses to', 'fails to', 'hardly managed to'))} {subject.verb(1)}"
        )
    return f"{subject.named()} {negation} {subject.verb(1 - label)}"


def _lacks(subject: Subject, label: int) -> str:
    things = subject.rng.sample(PLURALS[1 - label], 2)
    shape = subject.rng.choice(
        ("no {0}, no {1}", "{s} has no {0} and no {1}", "there was no {0}", "not one of the usual {0}",
         "there were hardly any {0}", "{s} came without any {0}", "I saw none of the {0}",
         "{s} has none of the {0} that I expected", "without {0} or {1}")
    )  # fmt: skip
    return shape.format(*things, s=subject.named())


def _has(subject: Subject, label: int) -> str:
    things = subject.rng.sample(PLURALS[label], 2)
    return subject.rng.choice(("{s} is full of {0}", "{s} has plenty of {0} and {1}", "{0} and {1} everywhere")).format(
        *things, s=subject.named()
    )


def _attribute(subject: Subject, label: int) -> str:
    shape = subject.rng.choice(
        (
            "{a} {n}",
            "what {a} {n}",
            "this is {a} {n}",
            "{a} {n} that {e}",
            "{a} {n} with {b} {m}",
            "it is {a} {n}",
            "we had {a} {n}",
        )
    )
    return shape.format(
        a=subject.attribute(label),
        b=subject.attribute(label),
        n=subject.noun,
        m=subject.rng.choice(NOUNS[subject.rng.choice(CLASSES)]),
        e=subject.event(label),
    )


def _has_parts(subject: Subject, label: int) -> str:
    shape = subject.rng.choice(
        ("{s} has {a} {p}", "{a} {p}, {b} {q}", "{a} {p} and {b} {q}", "the {p} is {c} and the {q} {d}",
         "the {p} was {c}, the {q} was {d}", "with {a} {p} and {b} {q}", "there is {a} {p} and {b} {q}", "{s}: {a} {p}, {b} {q}")
    )  # fmt: skip
    parts = subject.rng.sample(PARTS, 2)
    return shape.format(
        s=subject.named(), a=subject.attribute(label), b=subject.attribute(label), c=subject.adjective(label),
        d=subject.adjective(label), p=parts[0], q=parts[1],
    )  # fmt: skip


def _likes(subject: Subject, label: int) -> str:
    return f"{subject.rng.choice(PEOPLE)} {subject.rng.choice(LIKES[label])} {subject.named()}"


def _found(subject: Subject, label: int) -> str:
    verb = subject.rng.choice(
        ("I found", "we found", "my wife finds", "people call", "I would call", "I thought", "everyone finds")
    )
    return f"{verb} {subject.named()} {subject.adjective(label)}"


def _manner(subject: Subject, label: int) -> str:
    if subject.rng.random() < 0.3:
        return subject.rng.choice(ORDERS[label])
    return f"{subject.named()} {subject.rng.choice(ACTIONS)} {subject.rng.choice(MANNERS[label])}"


def filler(rng: random.Random) -> str:
    """A phrase that decides nothing: when, where, with whom."""
    if rng.random() < 0.4:
        return rng.choice(SETTINGS)
    determiner = rng.choice(("the", "my", "our", "a", "his", "this", "that", "every"))
    adjective = rng.choice(NEUTRAL_ADJECTIVES) + " " if rng.random() < 0.5 else ""
    phrase = f"{rng.choice(PREPOSITIONS)} {determiner} {adjective}{rng.choice(NEUTRAL_NOUNS)}"
    return phrase if rng.random() < 0.8 else f"{phrase} of the {rng.choice(NEUTRAL_NOUNS)}"


def salad(subject: Subject, label: int) -> str:
    """Polar phrases among neutral ones in no order at all: what a word says must hold outside of our frames too."""
    rng = subject.rng
    polar = [
        rng.choice((subject.adjective, subject.event, subject.attribute))(label)
        for _ in range(rng.choice((1, 1, 2, 3)))
    ]
    neutral = [
        rng.choice((filler(rng), f"the {rng.choice(PARTS)}", subject.named(), rng.choice(LINKS)))
        for _ in range(rng.randint(1, 6))
    ]
    chunks = polar + neutral
    rng.shuffle(chunks)
    return "".join(chunk + rng.choice((" ", " ", " ", ", ", f" {rng.choice(LINKS)} ")) for chunk in chunks).rstrip(" ,")


def _opinion(subject: Subject, label: int) -> str:
    return subject.rng.choice(OPINIONS[label]).format(n=subject.noun)


CLAUSES: tuple[Callable[[Subject, int], str], ...] = (
    _is, _is, _is_list, _event, _event, _event, _two_events, _is_not, _is_not, _does_not, _does_not, _lacks, _has,
    _attribute, _opinion,
    _has_parts, _has_parts, _likes, _found, _manner,
)  # fmt: skip


PLAIN = (
    _is, _is, _is_list, _event, _event, _has, _attribute, _opinion, _is_not, _has_parts, _likes, _found, _manner,
    salad, salad, salad, salad,
)  # fmt: skip
"""What the first lessons are made of."""
