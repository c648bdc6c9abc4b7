"""The small files that say to `sentence_transformers.SentenceTransformer` how a model's vectors are pooled, written and read.

The layout is that of Sentence Transformers since version 2, which later ones read: `modules.json` and a folder per module.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers.utils import cached_file

from ...errors import CheckpointError, ConfigError
from ...hub.restricted import load_pickled_tensors
from .loading import HUB_ARGUMENTS
from .sentence_modules import POOLINGS, STEPS, make_step

MODULES = "modules.json"
POOLING = "1_Pooling/config.json"
SETTINGS = "config_sentence_transformers.json"
LENGTH = "sentence_bert_config.json"
_LENGTHS = (
    LENGTH,
    *(f"sentence_{n}_config.json" for n in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")),
)
_ORDER = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""Of the parts of a vector that several poolings give, where the files do not say it."""

_KEYS = {
    mode: f"pooling_mode_{mode}" + ("" if mode in ("mean_sqrt_len_tokens", "lasttoken") else "_tokens")
    for mode in POOLINGS
}
_KEYS["cls"] = "pooling_mode_cls_token"
_INSTEAD = "quantize it with optimum_int8.quantize(SentenceTransformer(...)) and save that with its save_pretrained"


class ListedModule(NamedTuple):
    """An entry of `modules.json`: the name of a class, and the folder with its files."""

    kind: str
    folder: str


@dataclass
class Step:
    """A module behind the pooling: its class in Sentence Transformers, its settings, and itself."""

    kind: str
    config: dict[str, Any]
    module: nn.Module


@dataclass
class SentenceSettings:
    """What the files of Sentence Transformers say besides the pooling.

    Attributes:
        steps: modules between the pooling and a final normalization.
        prompts, default_prompt_name: texts that go in front of a text, by name, and the one that goes there by default.
        max_length: tokens that count; None leaves it to the tokenizer.
        lowercase: whether texts are lowercased first.
        include_prompt: whether the pooling counts the tokens of a prompt.
        transformer: of the model itself, as they stand in `sentence_bert_config.json`.
        whole: of the whole model, as they stand in `config_sentence_transformers.json`.
        subfolder: where the model lies.
    """

    steps: list[Step] = field(default_factory=list)
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    max_length: int | None = None
    lowercase: bool = False
    include_prompt: bool = True
    transformer: dict[str, Any] = field(default_factory=dict)
    whole: dict[str, Any] = field(default_factory=dict)
    subfolder: str = ""


def sentence_files(
    width: int,
    pooling: str | Sequence[str],
    normalize: bool,
    max_length: int | None,
    settings: SentenceSettings | None = None,
) -> dict[str, bytes]:
    """Name to content.

    Args:
        width: of a token's vector.
        pooling: one of `POOLINGS`, or several.
        max_length: tokens of a text that count; None leaves it to the tokenizer.
        settings: what else was read next to the FP32 model.
    """
    settings = settings or SentenceSettings()
    modes = [pooling] if isinstance(pooling, str) else list(pooling)
    pooled: dict[str, Any] = {"word_embedding_dimension": width, **{key: mode in modes for mode, key in _KEYS.items()}}
    if modes != sorted(modes, key=_ORDER.index):
        pooled["pooling_mode"] = modes
    if not settings.include_prompt:
        pooled["include_prompt"] = False
    kinds = ["Transformer", "Pooling", *(step.kind for step in settings.steps), *(["Normalize"] if normalize else [])]
    paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds) if i)]
    values: dict[str, Any] = {
        MODULES: [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
        ],
        POOLING: pooled,
        LENGTH: {"do_lower_case": settings.lowercase, **settings.transformer, "max_seq_length": max_length},
        **{f"{path}/config.json": step.config for path, step in zip(paths[2:], settings.steps, strict=False)},
    }
    if settings.whole or settings.prompts:
        prompts = {"prompts": settings.prompts, "default_prompt_name": settings.default_prompt_name}
        values[SETTINGS] = {**settings.whole, **prompts}
    files = {name: (json.dumps(value, indent=2) + "\n").encode() for name, value in values.items()}
    for path, step in zip(paths[2:], settings.steps, strict=False):
        if tensors := step.module.state_dict():
            files[f"{path}/model.safetensors"] = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    return files


def read_pooling(name: str | Path, **kwargs: Any) -> dict[str, Any]:
    """`pooling` and `normalize` as the files next to a model say; nothing where there are none.

    Raises:
        ConfigError: they say another pooling than those that are known here.
    """
    modules = _read_modules(name, kwargs)
    pools = [module.folder for module in modules if module.kind == "Pooling"]
    pooling = _read(name, f"{pools[0]}/config.json", kwargs) if pools else None
    if not isinstance(pooling, dict):
        return {}
    mode = pooling.get("pooling_mode")  # as version 6 writes it
    given = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value]
    chosen = [mode] if isinstance(mode, str) else list(mode or [n for n in _ORDER if _KEYS[n] in given])
    unknown = [n for n in chosen if n not in POOLINGS] + [key for key in given if key not in _KEYS.values()]
    if unknown or not chosen:
        found = ", ".join(map(str, unknown)) or "nothing"
        raise ConfigError(
            f"{str(name)!r} pools by {found}; expected one of {', '.join(POOLINGS)}: pass pooling=... to choose one"
        )
    return {"pooling": chosen[0] if len(chosen) == 1 else tuple(chosen), "normalize": modules[-1].kind == "Normalize"}


def read_settings(name: str | Path, **kwargs: Any) -> SentenceSettings:
    """What else the files of Sentence Transformers next to a model say; defaults where there are none.

    Raises:
        ConfigError: a module or a setting whose vectors could not be given here.
    """
    modules = _read_modules(name, kwargs)
    if not modules:
        return SentenceSettings()
    whole = _object(_read(name, SETTINGS, kwargs))
    kind = whole.get("model_type") or "SentenceTransformer"
    kinds = [module.kind for module in modules]
    behind = modules[2:-1] if kinds[-1] == "Normalize" else modules[2:]
    wrong = [k for k, expected in zip(kinds, ("Transformer", "Pooling"), strict=False) if k != expected]
    wrong += [module.kind for module in behind if module.kind not in STEPS]
    if kind != "SentenceTransformer" or wrong or len(kinds) < 2:
        found = f"a {kind}" if kind != "SentenceTransformer" else f"made of {', '.join(kinds)}"
        raise ConfigError(
            f"{str(name)!r} is {found}; expected Transformer, Pooling, then any of {', '.join(STEPS)}: {_INSTEAD}"
        )
    folder = modules[0].folder
    prefix = f"{folder}/" if folder else ""
    transformer = next((values for file in _LENGTHS if (values := _object(_read(name, prefix + file, kwargs)))), {})
    _require_hidden_states(name, transformer)
    pooling = _object(_read(name, f"{modules[1].folder}/config.json", kwargs))
    prompts = {str(key): str(value or "") for key, value in _object(whole.get("prompts")).items()}
    default = whole.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ConfigError(f"the default prompt of {str(name)!r} is {default!r}; expected one of {', '.join(prompts)}")
    length = transformer.get("max_seq_length")
    return SentenceSettings(
        steps=[_read_step(name, module, kwargs) for module in behind],
        prompts=prompts,
        default_prompt_name=default,
        max_length=length if type(length) is int else None,
        lowercase=bool(transformer.get("do_lower_case", False)),
        include_prompt=bool(pooling.get("include_prompt", True)),
        transformer=transformer,
        whole=whole,
        subfolder=folder,
    )


def _require_hidden_states(name: str | Path, found: dict[str, Any]) -> None:
    """Refuse a model that Sentence Transformers asks for something else than a vector per token of a text."""
    task = found.get("transformer_task", "feature-extraction")
    text = _object(_object(found.get("modality_config")).get("text"))
    output = text.get("method_output_name", "last_hidden_state")
    if task != "feature-extraction" or output not in ("last_hidden_state", ["last_hidden_state"]):
        raise ConfigError(
            f"{str(name)!r} takes {output!r} of the task {task!r}; expected last_hidden_state of feature-extraction: {_INSTEAD}"
        )


def _read_modules(name: str | Path, kwargs: dict[str, Any]) -> list[ListedModule]:
    """The modules in order; nothing without such a file. Raises `ConfigError` for classes of a model's own."""
    modules = _read(name, MODULES, kwargs)
    if not isinstance(modules, list) or not all(isinstance(m, dict) for m in modules):
        return []
    for module in modules:
        if not str(module.get("type", "")).startswith("sentence_transformers."):
            raise ConfigError(
                f"{str(name)!r} has a module of its own class {module.get('type')!r}, whose code would have to run; {_INSTEAD}"
            )
    return [ListedModule(str(m["type"]).rpartition(".")[2], str(m.get("path", ""))) for m in modules]


def _read_step(name: str | Path, module: ListedModule, kwargs: dict[str, Any]) -> Step:
    kind, path = module
    config = _object(_read(name, f"{path}/config.json", kwargs))
    weights: dict[str, Tensor] = {}
    if kind in ("Dense", "LayerNorm"):
        plain, pickled = (_find(name, f"{path}/{file}", kwargs) for file in ("model.safetensors", "pytorch_model.bin"))
        try:
            weights = load_file(plain) if plain else load_pickled_tensors(Path(pickled)) if pickled else {}
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"the {kind} of {str(name)!r} cannot be read: {error}") from error
    try:
        return Step(kind, config, make_step(kind, config, weights))
    except ConfigError as error:
        raise ConfigError(f"{str(name)!r}: {error}; {_INSTEAD}") from error


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read(name: str | Path, file: str, kwargs: dict[str, Any]) -> Any:
    path = _find(name, file, kwargs)
    try:
        return json.loads(Path(path).read_text(encoding="utf-8")) if path else None
    except (OSError, ValueError):
        return None


def _find(name: str | Path, file: str, kwargs: dict[str, Any]) -> str | None:
    places = {key: value for key, value in kwargs.items() if key in HUB_ARGUMENTS and key != "trust_remote_code"}
    try:
        return cached_file(
            str(name), file, **places, _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False, _raise_exceptions_for_gated_repo=False,
        )  # fmt: skip
    except (OSError, ValueError):
        return None
