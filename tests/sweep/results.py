"""Results: JSON lines while a sweep runs, one compact JSON file for the page."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers

import optimum_int8
from optimum_int8 import kernels

Result = dict[str, Any]
APPROACHES = ("dynamic", "static")


def read(path: Path) -> list[Result]:
    """Of a file of JSON lines, the last result of each class; nothing where there is no file."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return list({row["key"]: row for row in rows}.values())


@functools.cache
def commit() -> str:
    """Of this checkout."""
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return found.stdout.strip()


def stamp(result: Result) -> Result:
    """With the commit that it was found on."""
    return {**result, "commit": commit()}


def runs(result: Result) -> bool:
    """Whether the class runs in FP32."""
    return result.get("fp32") == "ok"


def faults(result: Result) -> dict[str, str]:
    """What went wrong: `approach, step` to what."""
    found = {
        f"{approach}, {step}": text
        for approach in APPROACHES
        for step, text in (result.get(approach, {}).get("faults") or {}).items()
    }
    if runs(result) and result.get("process"):
        found["process"] = result["process"]
    return found


def kind(text: str) -> str:
    """Of a fault: `own error`, `raw error` or `value`."""
    return {"own": "own error", "raw": "raw error", "value": "value"}.get(text.split(":")[0], "process")


def compact(results: Iterable[Result]) -> dict[str, Any]:
    """What the page needs, with the versions that it was found with."""
    classes = {}
    for result in sorted(results, key=lambda r: r["key"]):
        row = {"family": result["family"], "task": result["task"], "commit": result.get("commit", "")}
        if not runs(result):
            row["fp32"] = result.get("process") or result.get("fp32", "")
        for approach in APPROACHES:
            if approach in result:
                dropped = ("faults", "step", "float", "coverage", "generate", "base")
                row[approach] = {k: v for k, v in result[approach].items() if k not in dropped}
        for name in ("coverage", "float", "generate"):
            value = next((result[a][name] for a in APPROACHES if name in result.get(a, {})), None)
            if value not in (None, {}):
                row[name] = value
        if result.get("text_only"):
            row["text_only"] = True
        if found := faults(result):
            row["faults"] = found
        classes[result["key"]] = row
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "optimum_int8": optimum_int8.__version__,
        "isa": str(kernels.info().get("isa")),
    }
    return {"versions": versions, "classes": classes}
