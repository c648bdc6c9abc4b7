"""The one progress bar of this package: on standard error, and only for what takes longer than two seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")

DELAY_SECONDS = 2.0
"""Work shorter than this shows no bar."""

LOG_SECONDS = 10.0
"""Time between two updates where standard error is no terminal."""


def progress_bar(items: Iterable[T], description: str, *, total: int | None = None) -> Iterator[T]:
    """Iterate over `items` behind a bar that appears after `DELAY_SECONDS`."""
    # A log file gets a line now and then, not ten a second.
    interval = 0.1 if sys.stderr.isatty() else LOG_SECONDS
    return iter(
        tqdm(
            items,
            desc=description,
            total=total,
            delay=DELAY_SECONDS,
            mininterval=interval,
            file=sys.stderr,
            leave=False,
        )
    )
