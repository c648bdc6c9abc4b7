"""The tables of the results, made from benchmarks/results/NAME.json, so that no number in a document is typed.

In each FILE, what stands between `<!-- benchmark NAME -->` and `<!-- /benchmark -->` is made anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..render import MARKER, render_file
from ..results import ResultError, load
from ..tables import make_table
from . import ROOT, UsageError

HELP = "make the tables of README.md and docs/ from the results, or check that they are up to date"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "files", type=Path, nargs="*", metavar="FILE", help="default: README.md and what of docs/ has tables"
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--check", action="store_true", help="change nothing, fail if a table is out of date")
    kind.add_argument("--show", action="store_true", help="FILEs are results; print their tables")


def run(args: argparse.Namespace) -> int:
    """Render, check or show; 1 if `--check` finds something out of date."""
    if args.show and not args.files:
        raise UsageError("--show needs a result file, for example one of benchmarks/results/*.json")
    if args.show:
        for path in args.files:
            make_table(load(path)).print()
        return 0
    status = 0
    for path in args.files or documents():
        fresh = render_file(path, check=args.check)
        print(f"{path.name}: {'up to date' if fresh else 'out of date' if args.check else 'made anew'}")
        status |= int(args.check and not fresh)
    return status


def documents() -> list[Path]:
    """The documents of the checkout that have tables of results. Raises ResultError if there are none."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = [path for path in files if MARKER in path.read_text(encoding="utf-8")]
    if not found:
        raise ResultError(f"neither README.md nor a page of docs/ has a line `{MARKER}NAME -->`")
    return found
