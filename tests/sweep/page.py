"""docs/models.md, rendered from docs/models.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.sweep.checks import FACTOR, FLOOR, FUSED
from tests.sweep.families import FAMILIES
from tests.sweep.results import APPROACHES, Result, compact, kind

CHECKS = {
    "quantize": "is quantized, or refused",
    "unfused": "values against FP32",
    "reload": "saved and loaded, equal to the bit",
    "base": "`AutoModel` loads the checkpoint of a head, where FP32 does",
    "fused": "blocks against single modules",
    "generate": "tokens with a cache against those without",
    "coverage": "share of multiply-adds",
}

DOCS = Path(__file__).resolve().parents[2] / "docs"


def write(results: Iterable[Result], folder: Path = DOCS) -> None:
    """The JSON, one class a line, and the page."""
    found = compact(results)
    folder.mkdir(exist_ok=True)
    lines = ",\n".join(
        f"{json.dumps(key)}: {json.dumps(row, separators=(',', ':'))}" for key, row in found["classes"].items()
    )
    (folder / "models.json").write_text(
        f'{{"versions": {json.dumps(found["versions"])},\n"classes": {{\n{lines}\n}}}}\n'
    )
    (folder / "models.md").write_text(render(found))


def render(found: dict[str, Any]) -> str:
    """The page."""
    classes = found["classes"]
    made = {key: row for key, row in classes.items() if "fp32" not in row and ("dynamic" in row or "faults" in row)}
    parts = [_introduction(found["versions"], classes, made), _checks(made), _faults(made)]
    for family in FAMILIES:
        rows = [(key, row) for key, row in made.items() if row["family"] == family]
        if rows:
            parts += [f"## {family.capitalize()}\n", _table(rows)]
    if waiting := [key for key, row in classes.items() if "fp32" not in row and key not in made]:
        parts.append(f"## Run in FP32, not checked yet\n\n{', '.join(waiting)}\n")
    parts.append(_not_made({key: row for key, row in classes.items() if "fp32" in row}))
    return "\n".join(parts)


def _introduction(versions: dict[str, str], classes: dict[str, Any], made: dict[str, Any]) -> str:
    clean = sum("faults" not in row for row in made.values())
    running = [row for row in classes.values() if "fp32" not in row]
    shares = [row["coverage"] for row in made.values() if row.get("coverage") is not None]
    high = sum(share >= 0.95 for share in shares)
    covered = f"{high} of {len(shares)} have at least 95 % of their multiply-adds in INT8. " if shares else ""
    return f"""# Which models are INT8, and how well

A class per model type and family of tasks of Transformers {versions["transformers"]}, each as a small model with random weights. {len(running)} of
{len(classes)} classes run in FP32 that way; {len(made)} were checked, {clean} of them without a fault in what was checked; not every check was made of every
class: see Checks. {covered}What is small and random says whether a model is computed
as it should be, not how accurate a trained one is: for that see [model_cards](../model_cards/README.md).

Columns:

- **INT8**: share of the multiply-adds of one call that run in INT8, of all products of matrices and convolutions, with weights or
  without (attention too), in two layers of the default widths of the model type; "tiny" where that could not be made: then the share of
  attention is too large. What is left is named with its share.
- **dynamic**, **static**: relative error of the output against FP32 (root mean square), and after the stroke that of a simulation: the float model
  with the same weights, inputs and attention inputs rounded. Above {FACTOR} x the simulation + {FLOOR} is a fault.
- **fused**: relative difference between blocks and single INT8 modules, dynamic / static; above {FUSED} (and {FACTOR} x the simulation) is a fault.
- **generate**: greedy tokens with a cache against those without.

What fails is under Faults. Made by `python -m tests.sweep` with torch {versions["torch"]}, Transformers {versions["transformers"]},
optimum_int8 {versions["optimum_int8"]}, {versions["isa"]}.
"""


def _checks(made: dict[str, Any]) -> str:
    lines = [
        "## Checks\n",
        "Of a class, the newest result of each check counts; `models.json` names its commit, class by class.\n",
        "| check | classes checked | without a fault | on commits (classes) |",
        "|---|---:|---:|---|",
    ]
    for approach in APPROACHES:
        for step, what in CHECKS.items():
            name = f"{approach}, {step}"
            on = Counter(c for row in made.values() for c, names in row.get("checked", {}).items() if name in names)
            if total := sum(on.values()):
                failed = sum(name in row.get("faults", {}) for row in made.values())
                commits = ", ".join(f"{commit[:7]} ({n})" for commit, n in on.most_common())
                lines.append(f"| {approach}: {what} | {total} | {total - failed} | {commits} |")
    return "\n".join(lines) + "\n"


def _faults(made: dict[str, Any]) -> str:
    faulty = {key: row["faults"] for key, row in made.items() if "faults" in row}
    if not faulty:
        return "No faults.\n"
    counts = Counter(kind(text) for row in faulty.values() for text in row.values())
    lines = [
        f"## Faults\n\n{', '.join(f'{n} x {name}' for name, n in counts.most_common())}, in {len(faulty)} classes.\n"
    ]
    lines += ["| class | where | what |", "|---|---|---|"]
    lines += [f"| {key} | {where} | {_cell(text)} |" for key, row in faulty.items() for where, text in row.items()]
    return "\n".join(lines) + "\n"


def _table(rows: list[tuple[str, Any]]) -> str:
    lines = [
        "| model type | class | INT8 | dynamic | static | fused | generate | stays float |",
        "|---|---|---:|---:|---:|---:|---|---|",
    ]
    for key, row in rows:
        model_type, class_name = key.split("/")
        share = f"{row['coverage']:.1%}" if row.get("coverage") is not None else ""
        share += " (tiny)" if share and row.get("widths") == "tiny" else ""
        why = row.get("why", {})
        left = ", ".join(
            f"`{name}` {value:.1%}" + (f" ({why[name]})" if name in why else "")
            for name, value in row.get("float", {}).items()
        )
        cells = [
            model_type,
            class_name + (" (text only)" if row.get("text_only") else "") + (" *" if "faults" in row else ""),
            share,
            _error(row.get("dynamic", {})),
            _error(row.get("static", {})),
            " / ".join(_number(row.get(a, {}).get("fused")) for a in ("dynamic", "static")).strip(" /"),
            row.get("generate", "").partition(":")[0],
            left,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _error(found: dict[str, Any]) -> str:
    return f"{_number(found['error'])} / {_number(found['simulated'])}" if "error" in found else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}" if value else "0"


def _not_made(rows: dict[str, Any]) -> str:
    lines = [
        "## Not made in FP32\n",
        "No small configuration, or no inputs, were found by rule for these; the reasons are Transformers'.\n",
    ]
    lines += ["| class | why |", "|---|---|"]
    lines += [f"| {key} | {_cell(row['fp32'])} |" for key, row in rows.items()]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:200]
