"""What the weights were made under, kept in their own header, so that an edited `config.json` is found.

`config.json` lies in a file of its own and is easily changed or mixed up: eight activation bits become four, the number
of heads another one of the same shape, the head of the model disappears with `"architectures": []`. So each weight file
carries the settings that decide a value, by their path in `config.json`. A setting that differs is refused, unless the
caller chose it (`config=...`, or a keyword of `from_pretrained`). Files of earlier versions have no such list.

As with the checksums, this guards against damage and mistakes, not against malice.
"""

from __future__ import annotations

import copy
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import CheckpointError
from . import checkpoint

BINDING_KEY = "optimum_int8_config"
"""Key in the header of a weight file; its value is a CRC-32 of the rest, a space, and a JSON object: path to value."""

HARMLESS = frozenset(
    {
        *("_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "transformers_weights"),
        *("dtype", "torch_dtype", "attn_implementation", "_attn_implementation", "experts_implementation"),
        *("id2label", "label2id", "problem_type", "finetuning_task", "task_specific_params"),
        *("output_attentions", "output_hidden_states", "return_dict", "use_cache"),
        *("tokenizer_class", "processor_class", "auto_map"),
        *("accuracy_budget", "max_trials", "timeout"),
    }
)
"""Settings that change no value of an INT8 model, wherever in `config.json` they are: they may be edited freely."""

ARCHITECTURES = "architectures"
_VERSION = "transformers_version"
_NULL = "null"
_WHOLE = ("modules", "fp32", "functional", "per_token", "unpacked", "remedies", "tuning")
"""Parts of `quantization_config` that are compared as a whole; they may have thousands of entries."""

_LONGEST = 80
"""Longer values are bound by their sum, as `sha256:` and 32 digits."""


def bind(config: Mapping[str, Any]) -> str:
    """The header's value for the model whose `config.json` is `config`."""
    text = json.dumps({**flatten(config), _VERSION: str(config.get(_VERSION))}, separators=(",", ":"), sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x} {text}"


def flatten(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a `config.json` that decide a value: path to canonical value. Null is the same as absent.

    Example:
        >>> flatten({"n_heads": 2.0, "dtype": "float32", "text_config": {"act": "gelu", "bias": None}})
        {'n_heads': '2', 'text_config.act': '"gelu"'}
    """
    return dict(_settings(config, ""))


def read(files: Sequence[Path]) -> dict[str, str] | None:
    """What the weights in `files` were made under; None for a checkpoint of an earlier version.

    Raises:
        CheckpointError: a damaged header, or files of different models.
    """
    found: list[tuple[str, str | None]] = []
    checkpoint.for_each_file(
        files, lambda file, handle: found.append((file.name, _value(file, handle.metadata() or {})))
    )
    (first, value), *others = found
    for name, other in others:
        if other != value:
            raise CheckpointError(f"{name} and {first} were made under different settings; fetch the checkpoint again")
    return None if value is None else _parse(first, value)


def check(bound: Mapping[str, str] | None, stored: Mapping[str, Any], used: PreTrainedConfig) -> None:
    """Refuse a `config.json` that is not the one the weights were made under; `check_architecture` looks at the class.

    Args:
        bound: from `read`.
        stored: `config.json` of the checkpoint.
        used: the configuration that the model is built from; where it differs from `stored`, the caller chose so.

    Raises:
        CheckpointError: naming the first setting that differs.
    """
    if bound is None:
        return
    there = flatten(stored)
    expected = {path: value for path, value in bound.items() if path not in (_VERSION, ARCHITECTURES)}
    if bound.get(_VERSION) != str(stored.get(_VERSION)):  # another Transformers wrote it anew, with its own additions
        there = {path: value for path, value in there.items() if path in expected}
    there.pop(ARCHITECTURES, None)
    differing = [path for path in sorted({*expected, *there}) if expected.get(path) != there.get(path)]
    if not differing:
        return
    part = _part(stored, used)
    plain = _as_read(type(used), stored[part] if part else stored)
    taken = flatten(as_json(used))
    for path in differing:
        inner = path.removeprefix(f"{part}.") if part else path
        now = there.get(path, plain.get(inner, _NULL))
        before = expected.get(path, _NULL)
        chosen = (not part or inner != path) and taken.get(inner, _NULL) != now
        if before != now and not chosen:
            raise _mismatch(path, now, before)


def check_architecture(bound: Mapping[str, str] | None, stored: Mapping[str, Any], used: PreTrainedConfig) -> None:
    """Refuse that `config.json` names another class than the one whose weights these are, or none.

    Args:
        bound, stored, used: as `check` takes them.

    Raises:
        CheckpointError: the names differ, and the caller chose none.
    """
    now, taken = (flatten({ARCHITECTURES: names}) for names in (stored.get(ARCHITECTURES), used.architectures))
    before = (bound or now).get(ARCHITECTURES, _NULL)
    if before != now.get(ARCHITECTURES, _NULL) and taken == now:
        raise _mismatch(ARCHITECTURES, now.get(ARCHITECTURES, _NULL), before)
    if not used.architectures:
        raise CheckpointError(
            "config.json names no architecture; without it the head of the model would be lost. Fetch the checkpoint again, "
            "or load it by its task: OptimizedModelForSequenceClassification, ..."
        )


def records_architecture(bound: Mapping[str, str] | None, used: PreTrainedConfig) -> bool:
    """Whether the weights record that they are of the class that `used` names."""
    return bound is not None and bound.get(ARCHITECTURES) == flatten({ARCHITECTURES: used.architectures}).get(
        ARCHITECTURES
    )


def is_as_saved(bound: Mapping[str, str] | None, stored: Mapping[str, Any], model: PreTrainedModel) -> bool:
    """Whether a model is built as the one was that was saved: of its class, with its settings. Else the caller chose so.

    Args:
        bound, stored: as `check` takes them.
        model: the skeleton.
    """
    recorded = bound.get(ARCHITECTURES) if bound is not None else None
    architectures = json.loads(recorded) if recorded is not None else stored.get(ARCHITECTURES)
    if architectures and type(model).__name__ not in architectures:
        return False
    config = model.config
    if not stored or stored.get("model_type") != config.model_type:
        return True
    plain = type(config).from_dict(_floats(dict(stored)))
    return plain.num_labels == config.num_labels and flatten(as_json(plain)) == flatten(as_json(config))


def as_json(config: PreTrainedConfig) -> dict[str, Any]:
    """A configuration as `config.json` holds it."""
    values: dict[str, Any] = json.loads(config.to_json_string())
    return values


def _part(stored: Mapping[str, Any], used: PreTrainedConfig) -> str:
    """Key of the part of `config.json` that a tower (`CLIPTextModel`) is built from; "" for the whole."""
    if stored.get("model_type") == used.model_type:
        return ""
    parts = [key for key, value in stored.items() if isinstance(value, Mapping)]
    return next((key for key in parts if stored[key].get("model_type") == used.model_type), "")


def _as_read(config_class: type[PreTrainedConfig], stored: Mapping[str, Any]) -> dict[str, str]:
    """The settings with the class's defaults for those that `stored` does not have."""
    try:
        return flatten(as_json(config_class.from_dict(_floats(dict(stored)))))
    except Exception:  # the caller may have replaced what the class refuses
        return {}


def _floats(value: Any) -> Any:
    """A copy of what `config.json` holds with the floats that JSON cannot write, which Transformers stores as `{"__float__": "Infinity"}`."""
    if isinstance(value, dict):
        if set(value) == {"__float__"} and value["__float__"] in ("NaN", "Infinity", "-Infinity"):
            return float(value["__float__"])
        return {key: _floats(item) for key, item in value.items()}
    return [_floats(item) for item in value] if isinstance(value, list) else copy.copy(value)


def _mismatch(path: str, now: str, before: str) -> CheckpointError:
    return CheckpointError(
        f"config.json says {path}: {_show(now)}, and the weights were made under {_show(before)}; restore it, or fetch "
        f"the checkpoint again. To use another value all the same, pass it to from_pretrained (config=..., or a keyword)"
    )


def _settings(values: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{path}{key}"
        if key in HARMLESS or value is None:
            continue
        whole = path.endswith("quantization_config.") and key in _WHOLE
        if isinstance(value, Mapping) and value and not whole:
            yield from _settings(value, f"{name}.")
            continue
        text = json.dumps(_canonical(value), separators=(",", ":"), sort_keys=True)
        yield name, text if len(text) <= _LONGEST else f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _canonical(value: Any) -> Any:
    """JSON writes 2 and 2.0 for the same setting, and a tuple as a list."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _value(file: Path, metadata: Mapping[str, str]) -> str | None:
    """The header's value. A damaged key looks like an absent one, so an unknown key does not pass for an absent one."""
    unknown = set(metadata) - {"format", checkpoint.CHECKSUMS_KEY}
    if BINDING_KEY not in metadata and unknown:
        raise CheckpointError(
            f"the header of {file.name} has {sorted(unknown)[0]!r}; expected {BINDING_KEY!r}: save the model again"
        )
    return metadata.get(BINDING_KEY)


def _parse(name: str, value: str) -> dict[str, str]:
    digits, _, text = value.partition(" ")
    try:
        found = json.loads(text) if digits == f"{zlib.crc32(text.encode()):08x}" else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(item, str) for item in found.values()):
        raise CheckpointError(f"the header of {name} is damaged: {BINDING_KEY!r} cannot be read; fetch the file again")
    return found


def _show(value: str) -> str:
    return "another list" if value.startswith("sha256:") else value
