"""What is measured of each model; nothing heavy is imported, so that the command line can refuse what is unknown."""

from __future__ import annotations

import re
from dataclasses import dataclass

KINDS = ("prefill", "decode", "generate")
"""Prompt to first token; a step after it; a whole call."""

NEW = {"prefill": 1, "decode": 33, "generate": 32}
"""New tokens of a call: 32 steps of decoding follow the first token."""


@dataclass(frozen=True)
class Row:
    """One thing to measure.

    Args:
        kind: one of `KINDS`.
        batch: prompts of a call.
        context: tokens of each prompt (of the encoder's, where there is one; Whisper's decoder always begins with 4).
        beams: beams of each prompt; 1 is greedy.
        longer: new tokens of each prompt where those of `NEW` are not wanted; 0 otherwise.

    Example:
        >>> Row.parse("generate:8x32b4")
        Row(kind='generate', batch=8, context=32, beams=4, longer=0)
        >>> str(Row("decode", 1, 1024))
        'decode:1x1024'
        >>> Row.parse("generate:1x4b5n96").new
        96
    """

    kind: str
    batch: int
    context: int
    beams: int = 1
    longer: int = 0

    @classmethod
    def parse(cls, text: str) -> Row:
        """`KIND:BATCHxCONTEXT`, then `bBEAMS` for beam search, then `nTOKENS` for new ones. Raises ValueError for anything else."""
        match = re.fullmatch(rf"({'|'.join(KINDS)}):(\d+)x(\d+)(?:b(\d+))?(?:n(\d+))?", text.strip())
        if match is None or "0" in match.groups():
            raise ValueError(
                f"{text!r} is not a row; expected KIND:BATCHxCONTEXT, then bBEAMS and nTOKENS where wanted, with a kind of "
                f"{', '.join(KINDS)}, as decode:1x1024 or generate:8x32b4"
            )
        numbers = [int(group or 0) for group in match.groups()[1:]]
        row = cls(match[1], numbers[0], numbers[1], numbers[2] or 1, numbers[3])
        if row.beams > 1 and row.kind != "generate":
            raise ValueError(f"{text!r}: beams are measured in whole calls, as generate:{text.split(':')[1]}")
        if row.kind == "decode" and row.new < 2:
            raise ValueError(f"{text!r}: a step follows a first token; expected at least 2 new ones")
        return row

    def __str__(self) -> str:
        beams = f"b{self.beams}" if self.beams > 1 else ""
        return f"{self.kind}:{self.batch}x{self.context}{beams}" + (f"n{self.longer}" if self.longer else "")

    @property
    def new(self) -> int:
        """New tokens of each prompt in a call."""
        return self.longer or NEW[self.kind]

    @property
    def tokens(self) -> int:
        """Tokens that the time of this row is for: those of the prompts, of one step, or all new ones."""
        return self.batch * {"prefill": self.context, "decode": 1, "generate": self.new}[self.kind]


def _rows(long: int, *others: str) -> tuple[Row, ...]:
    """Decoding at a short and a long context, batch 1 and 8, and `others`."""
    decoding = [f"decode:{batch}x{context}" for context in (32, long) for batch in (1, 8)]
    return tuple(Row.parse(text) for text in (*decoding, *others))


MODELS: dict[str, tuple[Row, ...]] = {
    "llama-135m": _rows(1024, "prefill:1x512", "generate:1x32b4", "generate:8x32b4"),
    "qwen3-0.6b": _rows(1024, "prefill:1x512", "generate:1x32b4"),
    "gpt2": _rows(960, "prefill:1x512", "generate:1x32b4", "generate:8x32b4"),  # it has 1,024 positions
    "t5-base": _rows(1024, "prefill:1x512", "generate:1x32b4", "generate:8x32b4"),
    "whisper-tiny": tuple(Row.parse(f"generate:{shape}") for shape in ("1x4n96", "1x4b5n96", "8x4n96", "8x4b5n96")),
    "marian": _rows(480, "generate:1x32b4", "generate:8x32b4"),  # it has 512 positions
    "tiny": (Row("prefill", 1, 8), Row("decode", 2, 8), Row("generate", 1, 8, 2)),
    "tiny-llama": (Row("prefill", 1, 8), Row("decode", 2, 8)),
}
"""Models and the rows that are measured where none are asked for; the tiny ones are for tests."""

DEFAULT = ("llama-135m", "qwen3-0.6b", "gpt2", "t5-base", "whisper-tiny", "marian")
