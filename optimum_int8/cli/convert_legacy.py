"""`optimum-int8 convert-legacy REPO OUT`: an INT8 model of Neural Compressor or Optimum-Intel in our format."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from .options import check_output_folder
from .result import Result

NAME = "convert-legacy"
HELP = "convert an INT8 model published with Neural Compressor or Optimum-Intel, without running its pickle"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("model", metavar="REPO", help="the published model: a name on the Hub, or a folder")
    parser.add_argument("output", metavar="OUT", type=Path, help="folder for the INT8 checkpoint")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of the repository (default: main)")
    parser.add_argument(
        "--token", help="access token (default: HF_TOKEN or `hf auth login`, which no shell history remembers)"
    )


def run(args: argparse.Namespace) -> Result:
    """Convert; the checkpoint is written completely or not at all."""
    from ..hub import convert_legacy

    check_output_folder(args.output, "OUT")
    folder = convert_legacy(args.model, args.output, revision=args.revision, token=args.token)
    quantization = _quantization(folder)
    approach = quantization["config"]["approach"]
    modules = Counter(quantization["modules"].values())
    values = {
        "model": args.model,
        "output": str(args.output),
        "approach": approach,
        "modules": dict(modules),
        "fp32": quantization["fp32"],
    }
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(modules.items()))
    return Result(values, [f"The INT8 model ({approach}; {kinds}) is in {args.output}"])


def _quantization(folder: Path) -> dict[str, Any]:
    from ..hub.checkpoint import CONFIG_NAME, read_json

    return read_json(folder / CONFIG_NAME)["quantization_config"]
