"""Tables of results in Markdown, between marker comments, so that no number in a document is typed.

<!-- benchmark latency-bert-base-2t-amx -->
(made from benchmarks/results/latency-bert-base-2t-amx.json)
<!-- /benchmark -->
"""

from __future__ import annotations

import re
from pathlib import Path

from .results import FOLDER, ResultError, load
from .tables import make_table

MARKER = "<!-- benchmark "
"""What the first line of a table begins with."""

_BLOCK = re.compile(r"(<!-- benchmark ([\w.-]+) -->\n)(.*?)(<!-- /benchmark -->)", re.DOTALL)


def render(text: str, folder: Path = FOLDER) -> tuple[str, int]:
    """`text` with every marked block made anew, and how many there are.

    Raises:
        ResultError: a marker names a result that is not there or is not valid, or a marker is not closed.
    """
    if text.count(MARKER) != len(_BLOCK.findall(text)):
        raise ResultError("a line `<!-- benchmark NAME -->` has no `<!-- /benchmark -->` after it")
    return _BLOCK.subn(
        lambda block: block[1] + make_table(load(folder / f"{block[2]}.json")).markdown() + block[4], text
    )


def render_file(path: Path, *, check: bool = False, folder: Path = FOLDER) -> bool:
    """Make the tables of a file anew; with `check` only say whether they are. True if they were up to date."""
    text = path.read_text(encoding="utf-8")
    new, count = render(text, folder)
    if not count:
        raise ResultError(f"{path.name} has no line `<!-- benchmark NAME -->`")
    if new != text and not check:
        path.write_text(new, encoding="utf-8")
    return new == text
