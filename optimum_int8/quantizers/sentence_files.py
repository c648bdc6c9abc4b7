"""The small files that say to `sentence_transformers.SentenceTransformer` how a model's vectors are pooled, written and read.

The layout is that of Sentence Transformers since version 2, which later ones read: `modules.json` and a folder per module.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from ..errors import ConfigError
from .loading import HUB_ARGUMENTS

MODULES, POOLING, LENGTH = "modules.json", "1_Pooling/config.json", "sentence_bert_config.json"
_KEYS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
_TYPES = ("Transformer", "Pooling", "Normalize")


def sentence_files(width: int, pooling: str, normalize: bool, max_length: int | None) -> dict[str, bytes]:
    """Name to content.

    Args:
        width: of the vectors.
        pooling: `"mean"` or `"cls"`.
        max_length: tokens of a text that count; None leaves it to the tokenizer.
    """
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(_TYPES if normalize else _TYPES[:2])
    ]
    modes = {key: name == pooling for name, key in _KEYS.items()}
    values: dict[str, Any] = {
        MODULES: modules,
        POOLING: {"word_embedding_dimension": width, **modes},
        LENGTH: {"max_seq_length": max_length, "do_lower_case": False},
    }
    return {name: (json.dumps(value, indent=2) + "\n").encode() for name, value in values.items()}


def read_pooling(name: str | Path, **kwargs: Any) -> dict[str, Any]:
    """`pooling` and `normalize` as the files beside a model say; nothing where there are none.

    Raises:
        ConfigError: they say another pooling than those that are known here.
    """
    pooling, modules = (_read(name, file, kwargs) for file in (POOLING, MODULES))
    if not isinstance(pooling, dict) or not isinstance(modules, list):
        return {}
    mode = pooling.get("pooling_mode")  # as version 6 writes it
    chosen = [n for n, key in _KEYS.items() if pooling.get(key) or mode in (n, [n])]
    others = [
        key for key, value in pooling.items() if key.startswith("pooling_mode_") and value and key not in _KEYS.values()
    ]
    if len(chosen) != 1 or others:
        given = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value]
        found = ", ".join(given) or mode or "nothing"
        raise ConfigError(
            f"{str(name)!r} pools by {found}; expected one of {', '.join(_KEYS)}: pass pooling=... to choose one"
        )
    normalize = any(isinstance(m, dict) and str(m.get("type", "")).endswith(".Normalize") for m in modules)
    return {"pooling": chosen[0], "normalize": normalize}


def _read(name: str | Path, file: str, kwargs: dict[str, Any]) -> Any:
    places = {key: value for key, value in kwargs.items() if key in HUB_ARGUMENTS and key != "trust_remote_code"}
    try:
        path = cached_file(
            str(name), file, **places, _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False, _raise_exceptions_for_gated_repo=False,
        )  # fmt: skip
        return json.loads(Path(path).read_text(encoding="utf-8")) if path else None
    except (OSError, ValueError):
        return None
