"""`optimum-int8 env`: what this machine offers, what is used, and why something is missing."""

from __future__ import annotations

import argparse
import os
from typing import Any

from .result import Result

NAME = "env"
HELP = "show processor, instruction sets, threads and versions"

PACKAGES = ("datasets", "evaluate", "huggingface_hub", "safetensors", "tokenizers", "scikit-learn", "numpy")
VARIABLES = ("OPTIMUM_INT8_ISA", "OMP_NUM_THREADS", "HF_HUB_OFFLINE")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command takes none of its own."""


def run(args: argparse.Namespace) -> Result:
    """Look, without computing anything."""
    from ..evaluation.machine import describe_machine, kernel_info, package_version

    machine = describe_machine()
    kernels = kernel_info()
    versions = {name: package_version(name) for name in PACKAGES}
    variables = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    values = {
        "machine": machine,
        "library": kernels["library"],
        "reason": kernels["reason"],
        "versions": versions,
        "variables": variables,
    }
    return Result(values, [_table(values)])


def _table(values: dict[str, Any]) -> Any:
    from rich.table import Table

    machine = values["machine"]
    library = "loaded" if values["library"] else "missing; computing with the PyTorch definition, which is slower"
    rows = {
        "processor": f"{machine['cpu']} ({machine['cores']} usable cores, {machine['platform']})",
        "ISA found": ", ".join(machine["isa_found"]) or "none",
        "ISA used": machine["isa_used"],
        "native kernels": library,
        "reason": values["reason"],
        "threads": str(machine["threads"]),
        "optimum_int8": machine["optimum_int8"] + (f" ({machine['commit']})" if machine["commit"] else ""),
        "python": machine["python"],
        "torch": machine["torch"],
        "transformers": machine["transformers"],
        **{name: version or "not installed" for name, version in values["versions"].items()},
        **values["variables"],
    }
    table = Table(title="optimum_int8 on this machine", show_header=False)
    for name, text in rows.items():
        if text is not None:
            table.add_row(name, text)
    return table
