"""Parse the command line, run one command, print its result. Errors of ours are one line and exit code 2."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._version import __version__
from ..errors import CheckpointError, OptimumInt8Error
from . import benchmark, compile, convert_legacy, env, evaluate, inspect, push, quantize, sensitivity
from .options import add_common, check_writable
from .result import Result

COMMANDS = (quantize, evaluate, sensitivity, inspect, benchmark, compile, push, convert_legacy, env)

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(argv: Sequence[str] | None = None) -> int:
    """Run `optimum-int8`; returns the exit code: 0, 2 for an error of ours, 130 when interrupted."""
    args = build_parser().parse_args(argv)
    try:
        result = _run(args)
        _show(result)
        if args.json is not None:
            write_json(result.values, args.json)
            print(f"wrote {args.json}")
    except OptimumInt8Error as error:
        if args.debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="optimum-int8", description="INT8 inference for Transformers models on x86 CPUs, inside PyTorch."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        child = commands.add_parser(command.NAME, help=command.HELP, description=command.HELP)
        command.add_arguments(child)
        add_common(child)
        child.set_defaults(run=command.run)
    return parser


def write_json(values: dict[str, Any], path: Path) -> None:
    """Write to a temporary file, then rename it, so that a full disk leaves no half-written file. Raises `CheckpointError`."""
    text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and not path.is_file():  # /dev/stdout and the like cannot be renamed over
            path.write_text(text, encoding="utf-8")
            return
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise CheckpointError(f"cannot write {str(path)!r}: {error}") from error


def _run(args: argparse.Namespace) -> Result:
    check_writable(args.json, "--json")
    import torch
    import transformers

    # What Transformers reports while loading (a bar per file, hints on unused heads) would bury the result.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    return args.run(args)


def _show(result: Result) -> None:
    from rich.console import Console

    console = Console(soft_wrap=False, highlight=False)
    if not console.is_terminal:
        # Piped output has no width; 80 columns would break the cells of a table.
        console = Console(width=140, highlight=False)
    for item in result.shown:
        console.print(item, markup=False) if isinstance(item, str) else console.print(item)
