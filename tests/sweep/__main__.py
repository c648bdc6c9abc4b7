"""`python -m tests.sweep`: check every class, a process each, and write what was found as JSON lines."""

from __future__ import annotations

import argparse
import json
import re
import time
import warnings
from pathlib import Path

import torch
import transformers

from tests.sweep import page
from tests.sweep.checks import STEPS, Report, check
from tests.sweep.families import Pair, find_pairs
from tests.sweep.process import run_all
from tests.sweep.results import read, stamp


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.sweep", description=__doc__)
    parser.add_argument("--only", default="", help="regular expression that the name, model_type/Class, must hold")
    parser.add_argument("--keys", type=Path, help="file of names, one a line")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for a class")
    parser.add_argument("--out", type=Path, default=Path("runs/sweep.jsonl"))
    parser.add_argument("--resume", action="store_true", help="skip what --out holds already")
    parser.add_argument("--approaches", default="dynamic,static")
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument(
        "--page", action="store_true", help="check nothing: write docs/models.json and docs/models.md from --out"
    )
    arguments = parser.parse_args()
    if arguments.page:
        page.write(read(arguments.out))
        return
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    done = {row["key"] for row in read(arguments.out)} if arguments.resume else set()
    keys = arguments.keys.read_text().split() if arguments.keys else None
    pairs = [
        pair for pair in find_pairs()
        if re.search(arguments.only, pair.key) and pair.key not in done and (keys is None or pair.key in keys)
    ]  # fmt: skip
    if keys is not None:
        pairs.sort(key=lambda pair: keys.index(pair.key))
    approaches, steps = tuple(arguments.approaches.split(",")), tuple(arguments.steps.split(","))

    def work(pair: Pair, report: Report) -> None:
        check(pair, report, approaches, steps)

    began = time.monotonic()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("a" if arguments.resume else "w") as out:
        for count, result in enumerate(run_all(pairs, work, arguments.jobs, arguments.timeout), 1):
            out.write(json.dumps(stamp(result)) + "\n")
            out.flush()
            faults = {a: result.get(a, {}).get("faults") for a in approaches}
            print(
                f"{count}/{len(pairs)} {time.monotonic() - began:.0f} s {result['key']} {result.get('fp32', '')[:60]} {faults}",
                flush=True,
            )


if __name__ == "__main__":
    main()
