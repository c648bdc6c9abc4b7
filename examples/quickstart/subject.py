"""What one training sentence talks about, and the words that fit it."""

from __future__ import annotations

import random

from facts import FACTS
from lexicon import ADJECTIVES, EVENTS, NOUNS, VERBS
from words import (
    DEEDS,
    DONE,
    MANNERS,
    MATTERS,
    NEUTRAL_ADJECTIVES,
    OBJECTS,
    PARTS,
    QUALITIES,
)

CLASSES = tuple(NOUNS)


class Subject:
    """What one sentence talks about: a class of nouns, a noun of it, and the random source that picks the words."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.kind = rng.choice(CLASSES)
        self.noun = rng.choice(NOUNS[self.kind])

    def named(self) -> str:
        """The subject of a clause."""
        determiner = self.rng.choice(
            ("the", "the", "the", "this", "our", "my", "their", "the new", "the whole", "that")
        )
        if self.rng.random() < 0.2:
            return (
                "he" if self.kind == "person" and self.rng.random() < 0.5 else "it" if self.kind != "person" else "she"
            )
        if self.rng.random() < 0.3:
            part = self.rng.choice(PARTS)
            return self.rng.choice(
                (f"{determiner} {part}", f"{determiner} {part}", f"the {part} of {determiner} {self.noun}")
            )
        adjective = self.rng.choice(NEUTRAL_ADJECTIVES) + " " if self.rng.random() < 0.1 else ""
        return f"{determiner} {adjective}{self.noun}"

    def adjective(self, label: int) -> str:
        """A predicate: an adjective or a phrase that stands for one."""
        lists = (ADJECTIVES["any"], ADJECTIVES[self.kind], ADJECTIVES[self.kind], QUALITIES, QUALITIES, MATTERS)
        draw = self.rng.random()
        if draw < 0.1:
            return f"{self.rng.choice(MANNERS[label])} {self.rng.choice(DONE)}"
        return self.rng.choice(self.rng.choice(lists)[label])

    def attribute(self, label: int) -> str:
        """An adjective that can stand before a noun, with its article."""
        while True:
            word = self.adjective(label)
            if " " not in word or word.split()[0].endswith("ly") and word.count(" ") == 1:
                return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"

    def event(self, label: int) -> str:
        """What the subject does or did."""
        draw = self.rng.random()
        if draw < 0.2:
            return self.rng.choice(FACTS[label])
        if draw < 0.4:
            return f"{self.rng.choice(DEEDS[label])} {self.rng.choice(OBJECTS)}"
        return self.rng.choice(EVENTS[self.kind][label])

    def verb(self, label: int) -> str:
        """A verb in its base form, to stand after "does not" and the like."""
        return self.rng.choice(VERBS[self.kind][label])
