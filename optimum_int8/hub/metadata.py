"""`config.json["quantization_config"]`, checked before anything is built by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config import FORMAT_VERSION, QUANT_METHOD, Int8Config
from ..errors import CheckpointError, ConfigError
from ..sites import KINDS

CONFIG_NAME = "config.json"
PROGRAMS_NAME = "int8_programs.json"
"""Captured graphs, see `programs`."""

METADATA_KEYS = frozenset(
    {
        *("quant_method", "format_version", "config", "modules", "fp32", "functional", "per_token", "unpacked"),
        *("remedies", "tuning"),
    }
)
"""All that `quantization_config` may hold; what writes more into it adds its key here."""

PART_OF = "part_of"
"""Key of the `quantization_config` of a part of `config.json` (`text_config`); its value is `CONFIG_NAME`."""


def part() -> dict[str, Any]:
    """The `quantization_config` of a part of `config.json`, which refers to the whole."""
    return {"quant_method": QUANT_METHOD, "format_version": FORMAT_VERSION, PART_OF: CONFIG_NAME}


def check_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Check `config.json["quantization_config"]` and return it as a plain dict.

    Raises:
        CheckpointError: another quantization method, a newer format, an unknown setting, or a malformed module list.
    """
    found = dict(metadata)
    if found.get("quant_method") != QUANT_METHOD:
        raise CheckpointError(f"quant_method is {found.get('quant_method')!r}; expected {QUANT_METHOD!r}")
    version = found.get("format_version")
    if type(version) is not int or version < 1:
        raise CheckpointError(f"format_version is {version!r}; expected a whole number from 1 to {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"format_version is {version} and this optimum_int8 reads up to {FORMAT_VERSION}; upgrade optimum_int8"
        )
    unknown = sorted(map(str, set(found) - METADATA_KEYS))
    if unknown:
        raise CheckpointError(
            f"quantization_config holds the unknown key {unknown[0]!r}; known ones are {', '.join(sorted(METADATA_KEYS))}"
        )
    try:
        Int8Config.from_dict(found.get("config"))  # type: ignore[arg-type]
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"quantization_config['config'] cannot be used: {error}") from error
    modules = found.get("modules")
    fp32 = found.get("fp32")
    if not isinstance(modules, dict) or not modules:
        raise CheckpointError("quantization_config['modules'] names no INT8 module; expected name: kind pairs")
    for name, kind in modules.items():
        if not isinstance(kind, str) or kind not in KINDS:
            raise CheckpointError(f"module {name!r} has the kind {kind!r}; expected one of {', '.join(KINDS)}")
    if not _describes(found.get("functional", {}), modules):
        raise CheckpointError(
            "quantization_config['functional'] is malformed; expected name: settings of functional ops"
        )
    if not isinstance(fp32, dict) or not all(isinstance(reason, str) for reason in fp32.values()):
        raise CheckpointError("quantization_config['fp32'] is malformed; expected name: reason pairs")
    unpacked = found.get("unpacked", [])
    if not isinstance(unpacked, list) or not all(isinstance(n, str) for n in unpacked) or _repeats(unpacked):
        raise CheckpointError("quantization_config['unpacked'] is malformed; expected names of attention modules")
    per_token = found.get("per_token", [])
    allowed = {name for name, kind in modules.items() if KINDS[kind].may_measure_per_token}
    known = isinstance(per_token, list) and all(isinstance(name, str) and name in allowed for name in per_token)
    if not known or _repeats(per_token):
        raise CheckpointError("quantization_config['per_token'] is malformed; expected names of INT8 linears")
    return found


def _repeats(names: Sequence[str]) -> bool:
    return len(set(names)) < len(names)


def _describes(value: Any, modules: Mapping[str, str]) -> bool:
    """Whether a value describes sites that are no modules in the model's own code: all those that need it, and no others."""
    if not isinstance(value, dict) or not all(n in modules and isinstance(about, dict) for n, about in value.items()):
        return False
    return all(KINDS[kind].accepts_description(name, value.get(name)) for name, kind in modules.items())
