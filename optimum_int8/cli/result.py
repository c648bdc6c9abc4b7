"""What a command gives back: an object for `--json`, and things to print."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Result:
    """The outcome of a command.

    Args:
        values: what `--json` writes.
        shown: what is printed, in order: `rich` tables, and lines of text.
    """

    values: dict[str, Any]
    shown: list[Any] = field(default_factory=list)
