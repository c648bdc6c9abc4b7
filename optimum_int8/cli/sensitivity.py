"""`optimum-int8 sensitivity MODEL --dataset DATA --output DIR`: what INT8 costs each site, as a page, a picture and numbers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..config import Int8Config
from ..errors import ConfigError
from .options import add_data, check_output_folder, load_quantizer, positive
from .result import Result

NAME = "sensitivity"
HELP = "show which parts of a model lose accuracy in INT8"

SHOWN = 15


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("model", metavar="MODEL", help="FP32 model: a folder, or a name on the Hub")
    parser.add_argument("--dataset", metavar="DATA", required=True, help="data to calibrate and to measure on")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder for the page and the picture")
    parser.add_argument("--approach", choices=("dynamic", "static"), default="static", help="default: static")
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings as Int8Config.save writes them")
    parser.add_argument("--samples", metavar="N", type=positive, default=64, help="examples (default: 64)")
    parser.add_argument("--split", default="train", help="split to take them from (default: train)")
    add_data(parser)


def run(args: argparse.Namespace) -> Result:
    """Calibrate, measure every site, and write the report."""
    from ..quantization import prepare_copy
    from ..tuning import measure_sensitivity
    from ..tuning.page import save_report

    check_output_folder(args.output)
    config = Int8Config.load(args.config) if args.config else Int8Config(approach=args.approach)
    quantizer = load_quantizer(args.model, args)
    data = quantizer.get_calibration_dataset(args.dataset, args.samples, args.dataset_config, args.split)
    batches = list(quantizer.calibration_batches(data, args.batch_size))
    if not batches:
        raise ConfigError(f"{args.dataset!r} gave no batch; expected at least one example")
    rows = measure_sensitivity(prepare_copy(quantizer.model, config, batches), batches, distributions=True)
    written = save_report(rows, args.output, f"What INT8 costs each site of {args.model}")
    values = {"model": args.model, "config": config.to_dict(), "sites": [row.to_dict() for row in rows]}
    shown: list[Any] = [_table(rows), *(f"wrote {path}" for path in written)]
    return Result({**values, "files": [str(path) for path in written]}, shown)


def _table(rows: list[Any]) -> Any:
    from rich.table import Table

    table = Table(title=f"The {min(SHOWN, len(rows))} worst of {len(rows)} sites")
    for heading in ("site", "kind", "model error", "site error", "multiply-adds"):
        table.add_column(heading, justify="left" if heading in ("site", "kind") else "right", overflow="fold")
    for row in rows[:SHOWN]:
        table.add_row(row.name, row.kind, f"{row.error:.3%}", f"{row.site_error:.3%}", f"{row.macs:.2%}")
    return table
