"""`python -m benchmarks COMMAND`: the one entry point for measuring."""

from __future__ import annotations

import argparse
import importlib
import sys

from .commands import NAMES, Command, UsageError
from .results import ResultError
from .turns import EngineFailed


def find_command(name: str) -> Command:
    """The module of a command; importing it imports nothing heavy."""
    return importlib.import_module(f"{__package__}.commands.{name}")  # type: ignore[return-value]


def make_parser() -> argparse.ArgumentParser:
    """The command line, of all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure optimum_int8, and make the tables of the README from the results.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in NAMES:
        command = find_command(name)
        sub = commands.add_parser(
            name,
            help=command.HELP,
            description=command.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 for a check that failed, 2 for what could not be done."""
    args = make_parser().parse_args(arguments)
    try:
        return int(args.run(args))
    except (ResultError, EngineFailed, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
