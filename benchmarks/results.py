"""Results as JSON: what was measured, on what, and how. Tables are made from these files alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

SCHEMA = 1
FOLDER = Path(__file__).resolve().parent / "results"
KINDS = ("latency", "lengths", "ragged", "scaling", "generation")

_TOP: dict[str, type] = {
    "schema": int, "kind": str, "name": str, "model": dict, "machine": dict, "settings": dict, "baseline": str,
    "engines": dict, "limits": dict, "rows": list,
}  # fmt: skip
_MACHINE = ("cpu", "cores", "isa_used", "threads", "torch", "transformers", "optimum_int8", "commit", "load_average")


class ResultError(ValueError):
    """A file that is not a result of this suite, or of another version of it."""


def describe(threads: int) -> dict[str, Any]:
    """The machine as in every report of the package, with the threads of a call and the load when the run began.

    `load_average` (1, 5, 15 minutes) tells a quiet machine from a busy one.
    """
    from optimum_int8.evaluation.machine import describe_machine

    load = [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
    return describe_machine() | {"threads": threads, "load_average": load}


def validate(result: Any) -> dict[str, Any]:
    """`result`, if it is one. Raises ResultError with what is wrong."""
    if not isinstance(result, dict):
        raise ResultError(f"a result is a JSON object; found {type(result).__name__}")
    for key, kind in _TOP.items():
        if not isinstance(result.get(key), kind):
            raise ResultError(f"{key!r} is {result.get(key)!r}; expected {kind.__name__}")
    if result["schema"] != SCHEMA:
        raise ResultError(f"schema {result['schema']} is not {SCHEMA}: measure again with this version of the suite")
    if result["kind"] not in KINDS:
        raise ResultError(f"kind {result['kind']!r}; expected one of {', '.join(KINDS)}")
    absent = [key for key in _MACHINE if key not in result["machine"]]
    if absent:
        raise ResultError(f"the machine lacks {', '.join(absent)}: no number without its maker")
    for name, engine in result["engines"].items():
        if engine.get("status") not in ("ok", "skipped") or (
            engine["status"] == "skipped" and not engine.get("reason")
        ):
            raise ResultError(f"engine {name}: status {engine.get('status')!r}, reason {engine.get('reason')!r}")
    return result


def save(result: dict[str, Any], path: Path) -> Path:
    """Validate and write; a file that is there is replaced."""
    validate(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded(result), indent=1) + "\n", encoding="utf-8")
    return path


def load(path: Path) -> dict[str, Any]:
    """Read and validate. Raises ResultError."""
    try:
        return validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ResultError(f"{path.name}: {error}") from error


def rounded(value: Any) -> Any:
    """Floats with five digits: more says nothing, and makes differences hard to read."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return value
