"""Load the FP32 model and its tokenizer; every failure becomes one of our errors, with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from ...config import QUANT_METHOD
from ...errors import CheckpointError, ConfigError, OptimumInt8Error

HUB_ARGUMENTS = (
    "revision", "cache_dir", "token", "subfolder", "local_files_only", "force_download", "trust_remote_code",
)  # fmt: skip
"""Arguments of `from_pretrained` that say where files come from; model, configuration and tokenizer share them."""

HEADLESS = "Model"
NAMED_HEADS = ("HeadModel", "HeadsModel", "MTModel", "PreTrainingModel")
"""Endings of classes that have a head although they end in `HEADLESS`."""


class LoadedProcessor(NamedTuple):
    """What makes model inputs from examples, and otherwise why there is none."""

    processor: Any
    problem: str | None = None


def load_config(name: str | Path, **kwargs: Any) -> PreTrainedConfig:
    """`config.json` of a model folder or Hub repository. Raises `CheckpointError` when it cannot be read."""
    _require_folder(name, kwargs.get("subfolder") or "")
    try:
        return AutoConfig.from_pretrained(name, **_hub_arguments(kwargs))
    except Exception as error:  # the Hub client and Transformers raise many unrelated types here
        raise CheckpointError(f"cannot load the model {str(name)!r}: {_brief(error)}") from error


def load_fp32_model(
    name: str | Path, *, auto_class: str | None = None, head: str | tuple[str, ...] | None = None, **kwargs: Any
) -> PreTrainedModel:
    """The model in evaluation mode, in float32 unless `dtype` says otherwise.

    Args:
        name: folder or Hub repository.
        auto_class: Transformers auto class to load with; None takes the class that `config.json` names.
        head: how the class named in `config.json` must end (`"ForSequenceClassification"`).
        kwargs: passed on to Transformers' `from_pretrained`: where the files come from, `dtype`, `attn_implementation`,
            `device_map`, settings of the configuration. Of `output_loading_info` nothing is returned.

    Raises:
        ConfigError: the model is already INT8, or of another task.
        CheckpointError: it cannot be read, or lacks weights that Transformers would fill with random numbers.
    """
    config = kwargs.get("config")
    if not isinstance(config, PreTrainedConfig):
        config = load_config(name, **kwargs)
    if is_int8(config):
        raise ConfigError(f"{str(name)!r} is already an INT8 model; give the FP32 model it was made from")
    names = config.architectures or []
    if head and names and not any(has_head(architecture, head) for architecture in names):
        endings = head if isinstance(head, str) else " or ".join(head)
        raise ConfigError(f"{str(name)!r} is a {names[0]}; expected a class that ends in {endings}")
    loader = getattr(transformers, auto_class or (names[0] if names else "AutoModel"), transformers.AutoModel)
    if "dtype" not in kwargs and "torch_dtype" not in kwargs:
        kwargs["dtype"] = torch.float32
    try:
        model, info = loader.from_pretrained(name, **{**kwargs, "output_loading_info": True})
    except OptimumInt8Error:
        raise
    except Exception as error:  # as above
        raise CheckpointError(f"cannot load the model {str(name)!r}: {_brief(error)}") from error
    missing = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if missing:
        raise CheckpointError(
            f"{str(name)!r} lacks {len(missing)} tensors of a {type(model).__name__} ({missing[0]}, ...), which would be "
            f"random numbers; give a model that was fine-tuned for this task"
        )
    return model.eval()


def has_head(architecture: str, head: str | tuple[str, ...]) -> bool:
    """Whether a model class ends so. `"Model"` means no head at all: `GPT2LMHeadModel` and `MarianMTModel` have one."""
    return architecture.endswith(head) and (head != HEADLESS or not architecture.endswith(NAMED_HEADS))


def load_tokenizer(name: str | Path, **kwargs: Any) -> LoadedProcessor:
    """The tokenizer next to the model.

    Not an error: a vision model has no tokenizer, and a dynamic model is made without one.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **_hub_arguments(kwargs))
    except Exception as error:  # as above
        return LoadedProcessor(None, _brief(error))
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        # Transformers makes an empty tokenizer of the model's usual class when the files are missing.
        return LoadedProcessor(None, f"{str(name)!r} has no tokenizer files")
    return LoadedProcessor(tokenizer)


def load_image_processor(name: str | Path, **kwargs: Any) -> LoadedProcessor:
    """The image processor next to the model.

    The one that runs on Pillow and NumPy, so that results do not depend on whether torchvision is installed.
    """
    try:
        return LoadedProcessor(AutoImageProcessor.from_pretrained(name, backend="pil", **_hub_arguments(kwargs)))
    except Exception as error:  # as above
        return LoadedProcessor(None, _brief(error))


def is_int8(config: PreTrainedConfig) -> bool:
    """Whether this is the configuration of a model that this package quantized."""
    found = getattr(config, "quantization_config", None)
    method = found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", None)
    return method == QUANT_METHOD


def _hub_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key in HUB_ARGUMENTS}


def _require_folder(name: str | Path, subfolder: str = "") -> None:
    path = Path(name).expanduser()
    looks_local = isinstance(name, Path) or path.is_absolute() or str(name).startswith((".", "~"))
    if (looks_local or str(name).count("/") > 1) and not path.is_dir():
        raise CheckpointError(f"no such folder: {str(name)!r}; expected a saved model, or the name of one on the Hub")
    if path.is_dir() and not (path / subfolder / "config.json").exists():
        found = str(path / subfolder) if subfolder else str(name)
        raise CheckpointError(f"the folder {found!r} has no config.json; expected a model written by save_pretrained")


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def load_int8_model(name_or_path: str | Path, class_name: str, **kwargs: Any) -> PreTrainedModel:
    """Load an INT8 model of the class `class_name`.

    Raises:
        ConfigError: it is not an INT8 model, or of another class.
        CheckpointError: it cannot be read.
    """
    from ...hub import OptimizedModel

    model = OptimizedModel.from_pretrained(name_or_path, **kwargs)
    if not is_int8(model.config):
        raise ConfigError(f"{str(name_or_path)!r} is not an INT8 model; make one with quantize(...)")
    theirs = type(model).__name__
    if theirs != class_name:
        raise ConfigError(
            f"{str(name_or_path)!r} is a {theirs} and the FP32 model a {class_name}; expected the same class"
        )
    return model
