"""A result as the suite writes it, with made-up numbers."""

from __future__ import annotations

import copy
from typing import Any

import pytest

MACHINE = {
    "cpu": "Test CPU", "cores": 2, "isa_used": "amx", "threads": 2, "torch": "2.13.0", "transformers": "5.0",
    "optimum_int8": "0.1.0", "commit": "abc", "load_average": [0.1, 0.2, 0.3],
}  # fmt: skip

RESULT = {
    "schema": 1, "kind": "latency", "name": "tiny", "model": {"parameters": 2_000_000}, "machine": MACHINE,
    "settings": {"threads": 2, "seconds": 1.0}, "baseline": "int8_static",
    "engines": {
        "int8_static": {"title": "optimum_int8 static", "status": "ok", "versions": {}, "relative_error": 0.01},
        "eager_fp32": {"title": "eager FP32", "status": "ok", "versions": {}, "relative_error": 0.0},
        "openvino_int8": {"title": "OpenVINO INT8", "status": "skipped", "versions": {}, "reason": "nncf not installed"},
    },
    "limits": {"int8_ops": 7e12, "read_bytes": 16e9, "isa": "amx", "threads": 2},
    "rows": [
        {
            "shape": "1x16", "tokens": 16, "baseline_ms": 1.23456789,
            "engines": {
                "eager_fp32": {
                    "first_ms": 1.2, "ms": 12.3456789, "ratio": 10.04, "ratio_quartiles": [9.0, 11.0], "rounds": 5,
                }
            },
            "limit": {"floor_ms": 0.5, "compute_ms": 0.4, "memory_ms": 0.5, "share": 0.405},
        }
    ],
}  # fmt: skip


@pytest.fixture
def result() -> dict[str, Any]:
    return copy.deepcopy(RESULT)
