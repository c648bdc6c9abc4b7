"""What a model card is rendered from, kept next to the weights until the name of the repository is known."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from ..errors import CheckpointError
from .card import LIBRARY, CardInfo
from .checkpoint import read_json
from .failures import CLIENT_ERRORS

NAME = "int8_card.json"


def write(folder: Path, report: Mapping[str, Any] | None, info: CardInfo) -> None:
    """Write the evaluation and what else a card says into the checkpoint `folder`, over what is there."""
    values = {"evaluation": report, "info": {k: v for k, v in dataclasses.asdict(info).items() if v is not None}}
    try:
        (folder / NAME).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"cannot write {str(folder / NAME)!r}: {error}") from error


def read(folder: Path) -> tuple[dict[str, Any] | None, CardInfo]:
    """The evaluation, if there was one, and what else a card says. Raises `CheckpointError` when it is damaged."""
    if not (folder / NAME).is_file():
        return None, CardInfo()
    values = read_json(folder / NAME)
    try:
        return values["evaluation"], CardInfo(**values["info"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{NAME} is damaged ({error!r}); delete it and evaluate again") from error


def add(folder: Path | None, report: Mapping[str, Any], info: CardInfo) -> None:
    """Put an evaluation next to a checkpoint, if it has a folder; of `info`, what is known replaces what was."""
    if folder is None:
        return
    before = read(folder)[1]
    known = {key: value for key, value in dataclasses.asdict(info).items() if value is not None}
    write(folder, report, dataclasses.replace(before, **known))


def base_of(source: str | None) -> str | None:
    """`source` when it can be a repository and is no folder here: then it is what an INT8 model was made from."""
    return source if source and re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not Path(source).exists() else None


def complete(info: CardInfo, source: str | None, token: str | bool | None) -> CardInfo:
    """Fill in the base model, if `source` names a repository of the Hub, and its licence, if its card tells.

    The base of an INT8 model of ours is its base's, and what the Hub does not know is not named: it may be a folder of
    yours that is gone.
    """
    base = info.base_model or base_of(source)
    if base is None or (info.base_model and info.license):
        return info
    try:
        card = HfApi(token=token).model_info(base, timeout=10).card_data
    except RepositoryNotFoundError:
        return info
    except CLIENT_ERRORS:
        return dataclasses.replace(info, base_model=base)
    found: dict[str, Any] = {} if card is None else card.to_dict()
    if info.base_model is None and found.get("library_name") == LIBRARY:
        base = found["base_model"] if isinstance(found.get("base_model"), str) else None
    if info.license is None:
        keys = ("license", "license_name", "license_link")
        info = dataclasses.replace(info, **{key: found[key] for key in keys if isinstance(found.get(key), str)})
    return dataclasses.replace(info, base_model=base)
