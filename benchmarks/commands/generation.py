"""Tokens per second of `generate()`, next to FP32 and the engines made for decoding.

Random weights of the real sizes. Rows: `prefill:1x512` is a prompt to its first token, `decode:8x1024` a step of decoding after such
prompts, `generate:8x32b4` a whole call with 4 beams (`n96`: 96 new tokens). Every engine has a process of its own and takes turns with
ours (dynamic); a turn in which other processes had more than a twentieth of the cores is made again for a while. Peers that are not
installed are named with what installs them; those in a folder of their own (`pip install --target FOLDER`) are found with --peers.
Each model gives one file in the output folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..generation.engines import NAMES
from ..generation.rows import DEFAULT, MODELS, Row
from ..results import FOLDER, save
from ..tables import make_table
from . import UsageError, check_names

HELP = "tokens per second of generate(), next to FP32, llama.cpp, CTranslate2 and OpenVINO"


def row_list(text: str) -> list[Row]:
    """An `argparse` type: `decode:1x32,prefill:1x512`."""
    try:
        return [Row.parse(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    default = ",".join(DEFAULT)
    parser.add_argument("--models", default=default, help=f"some of {', '.join(MODELS)} (default: {default})")
    parser.add_argument("--rows", type=row_list, default=[], help="as decode:1x32,prefill:1x512 (default: by model)")
    parser.add_argument("--engines", default=",".join(NAMES), help=f"some of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--peers", default="", help="folders of peers, with a colon between them")
    parser.add_argument("--threads", type=int, default=2, help="threads of a call (default: 2)")
    parser.add_argument("--seconds", type=float, default=300.0, help="time for measuring each model (default: 300)")
    parser.add_argument(
        "--patience", type=float, default=5.0, help="seconds of each turn to wait for a quiet machine (default: 5)"
    )
    parser.add_argument(
        "--output", type=Path, default=FOLDER, help="folder of the results (default: benchmarks/results)"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, save and print; returns the exit code."""
    names = args.models.split(",")
    check_names("model", names, MODELS)
    engines = args.engines.split(",")
    check_names("engine", engines, NAMES)
    peers = [folder for folder in args.peers.split(":") if folder]
    check_folders(peers)

    from ..generation.measure import Options, measure

    options = Options(args.threads, args.seconds, args.patience, engines, peers)
    for name in names:
        result = measure(name, options, args.rows)
        stem = f"generation-{name}-{args.threads}t-{result['machine']['isa_used']}"
        save(result, args.output / f"{stem}.json")
        make_table(result).print()
    return 0


def check_folders(folders: list[str]) -> None:
    """Refuse folders that are not there. Raises UsageError."""
    absent = [folder for folder in folders if not Path(folder).is_dir()]
    if absent:
        raise UsageError(f"--peers: {', '.join(absent)}: no such folder")
