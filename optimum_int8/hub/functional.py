"""What a checkpoint may say of functional ops and of stacks of experts, checked before it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..nn import CALLS, FUNCTIONAL
from ..sites import EXPERTS

_CALL_NAME = re.compile(r"(matmul|add|cat)(_-?\d+)+[a-z]?")


def is_functional(value: Any, modules: Mapping[str, str]) -> bool:
    """Whether a value is what `sites.describe_functional` makes."""
    if not isinstance(value, dict) or any(
        kind in (EXPERTS, *CALLS) and name not in value for name, kind in modules.items()
    ):
        return False
    for name, about in value.items():
        if name not in modules or not isinstance(about, dict) or about.get("op") not in (EXPERTS, *CALLS, *FUNCTIONAL):
            return False
        if (about["op"] == EXPERTS) != (modules[name] == EXPERTS):
            return False
        if about["op"] == EXPERTS:
            if set(about) != {"op", "transposed"} or type(about["transposed"]) is not bool:
                return False
            continue
        if about["op"] in CALLS:
            flags, fits = about.get("inputs_quantized"), isinstance(about.get("source"), str)
            if not fits or not isinstance(flags, list) or not all(type(f) is bool for f in flags):
                return False
            if type(about.get("output_quantized", False)) is not bool:
                return False
            if modules[name] != about["op"] or not _CALL_NAME.fullmatch(name.rpartition(".")[2]):
                return False
        elif name.rpartition(".")[2] != about["op"] or not all(map(_is_option, about.values())):
            return False
    return True


def _is_option(value: Any) -> bool:
    """Numbers of a convolution's geometry, or a name of padding."""
    if isinstance(value, (list, tuple)):
        return len(value) <= 2 and all(type(v) is int and 0 <= v < 1 << 20 for v in value)
    return isinstance(value, str) or (type(value) is int and 0 < value < 1 << 20)
