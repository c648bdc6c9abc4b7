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
    """Of a file of JSON lines, one result for each class: of each step the last. Nothing where there is no file."""
    if not path.exists():
        return []
    found: dict[str, Result] = {}
    for line in path.read_text().splitlines():
        row = _dated(json.loads(line))
        found[row["key"]] = _merge(found.get(row["key"], {}), row)
    return list(found.values())


def _dated(row: Result) -> Result:
    """With the commit of each step, which later results leave in place where they do not repeat it."""
    for approach in APPROACHES:
        if found := row.get(approach):
            found.setdefault("at", dict.fromkeys(found.get("steps", ()), row.get("commit", "")))
    return row


def _merge(old: Result, new: Result) -> Result:
    """The new result, with what it did not try from the old one."""
    merged = {**new}
    for approach in APPROACHES:
        before, after = old.get(approach), new.get(approach)
        if before is not None and runs(new):
            kept = {k: v for k, v in (before.get("faults") or {}).items() if k not in (after or {}).get("steps", ())}
            faults_now = {**kept, **((after or {}).get("faults") or {})}
            steps = dict.fromkeys([*before.get("steps", ()), *(after or {}).get("steps", ())])
            at = {**before.get("at", {}), **(after or {}).get("at", {})}
            merged[approach] = {**before, **(after or {}), "faults": faults_now, "steps": list(steps), "at": at}
    return merged


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


def checked(result: Result) -> dict[str, list[str]]:
    """What was checked on which commit: commit to `approach, step`."""
    found: dict[str, list[str]] = {}
    for approach in APPROACHES:
        about = result.get(approach) or {}
        for step, on in about.get("at", {}).items():
            if not result.get("process") and _has_result(step, about):
                found.setdefault(on, []).append(f"{approach}, {step}")
    return found


def _has_result(step: str, about: Result) -> bool:
    """Whether a step that was asked for came to a result: not all classes generate, or can be quantized."""
    found = about.get("faults") or {}
    if step in found or step == "quantize":
        return True
    if step in ("unfused", "reload"):
        return not any(
            text.startswith(("own", "raw")) for name, text in found.items() if name in ("quantize", "unfused")
        )
    return about.get(step) is not None and not str(about[step]).startswith("FP32")


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
                dropped = ("faults", "step", "steps", "at", "float", "why", "coverage", "widths", "generate", "base")
                row[approach] = {k: v for k, v in result[approach].items() if k not in dropped}
        for name in ("coverage", "float", "why", "generate"):
            value = next((result[a][name] for a in APPROACHES if name in result.get(a, {})), None)
            if value not in (None, {}):
                row[name] = value
        if any(result.get(a, {}).get("widths") == "tiny" for a in APPROACHES):
            row["widths"] = "tiny"
        if result.get("text_only"):
            row["text_only"] = True
        if commits := checked(result):
            row["checked"] = commits
        if found := faults(result):
            row["faults"] = found
        classes[result["key"]] = row
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "optimum_int8": optimum_int8.__version__,
        "isa": str(kernels.info()["isa_used"]),
    }
    return {"versions": versions, "classes": classes}
