"""One file per command of `python -m benchmarks`, each with the same parts in the same order.

HELP           one line for the list of commands; the docstring of the file is the text of the command's own `--help`
add_arguments  the command line
run            parsed arguments to the exit code

Importing a command imports nothing heavy, so that `--help` and a wrong argument are answered at once; `run` imports what it needs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

NAMES = ("latency", "startup", "generation", "kernels", "recurrent", "cards", "tuning", "training", "report")

ROOT = Path(__file__).resolve().parents[2]
"""Top folder of the checkout."""


class UsageError(ValueError):
    """An argument that only the measurement itself can refuse."""


class Command(Protocol):
    """The parts that the module of a command has."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command line."""

    def run(self, args: argparse.Namespace) -> int:
        """Measure; returns the exit code."""


def check_names(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names that are not known. Raises UsageError."""
    expected = list(known)
    unknown = [name for name in names if name not in expected]
    if unknown:
        raise UsageError(f"unknown {what} {', '.join(unknown)}; expected some of {', '.join(expected)}")
