"""From a checkpoint's folder to a model: an INT8 one, one of other packages, or an FP32 one as it is."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from ..errors import CheckpointError, OptimumInt8Error
from . import binding, checkpoint, compressed_tensors, legacy
from .guards import check_config, check_device_map, check_quantization, is_legacy, limit_modules


def load_folder(folder: Path, name: str, kwargs: dict[str, Any], auto_class: str | None) -> PreTrainedModel:
    """Build the model from a local folder; every failure becomes one of our errors.

    Args:
        name: what the user asked for, which errors name.
        kwargs: of `OptimizedModel.from_pretrained`.
        auto_class: see `OptimizedModel`.
    """
    raw = checkpoint.read_json(folder / checkpoint.CONFIG_NAME)
    check_config(raw)
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{name!r} holds an adapter, which would load another model; merge it into its model first"
        )
    converter = _converter(raw, folder)
    if converter is not None:
        with tempfile.TemporaryDirectory(prefix="optimum-int8-") as scratch:
            return load_folder(converter(folder, Path(scratch) / "model"), name, kwargs, auto_class)
    quantized = check_quantization(raw)
    if quantized:
        # Dropped, since Transformers demands accelerate for any device_map; there is one device only.
        check_device_map(kwargs.pop("device_map", None))
    files = checkpoint.weight_files(folder)
    headers = checkpoint.read_headers(files)
    if not quantized and any(name.endswith(".weight_scale") for name in headers):
        raise CheckpointError(f"{name!r} holds INT8 weights and its config.json has no quantization_config")
    try:
        config, kwargs = _config(folder, kwargs)
        bound = binding.read(files) if quantized else None
        if quantized and auto_class is None:
            binding.check_architecture(bound, raw, config)
        model_class = _model_class(config, auto_class, binding.records_architecture(bound, config))
        with limit_modules(len(headers)):
            model = model_class.from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                **kwargs,
            )
    except OptimumInt8Error:
        raise
    except Exception as error:  # Transformers raises whatever a strange config.json leads to
        reason = f"{type(error).__name__}: {error}"
        if raw.get("auto_map"):
            reason = f"it wants code of its own, which never runs here ({type(error).__name__})"
        raise CheckpointError(f"{name!r} cannot be loaded: {reason}") from error
    loaded = model[0] if isinstance(model, tuple) else model  # output_loading_info=True
    loaded.name_or_path = loaded.config.name_or_path = name
    return model


def _converter(config: Mapping[str, Any], folder: Path) -> Callable[[Path, Path], Path] | None:
    """What turns another package's INT8 checkpoint into one of ours; None for ours and for FP32."""
    if is_legacy(config) and not (folder / checkpoint.WEIGHTS_NAME).is_file():
        return legacy.convert_folder
    return compressed_tensors.convert_folder if compressed_tensors.is_compressed_tensors(config) else None


def _config(folder: Path, kwargs: Mapping[str, Any]) -> tuple[PreTrainedConfig, dict[str, Any]]:
    """The configuration in `folder` with the settings among `kwargs`, and the other arguments, which the model takes.

    As Transformers' auto classes do it: a `dtype` is both a setting and an argument.
    """
    arguments = dict(kwargs)
    given = arguments.pop("config", None)
    if isinstance(given, PreTrainedConfig):
        return given, arguments
    place = folder if given is None else given
    arguments.setdefault("dtype", arguments.pop("torch_dtype", None))
    dtype = arguments.pop("dtype")
    settings = arguments if dtype in (None, "auto") else {**arguments, "dtype": dtype}
    config, unused = AutoConfig.from_pretrained(place, return_unused_kwargs=True, trust_remote_code=False, **settings)
    unused.pop("trust_remote_code", None)
    return config, unused if dtype is None else {**unused, "dtype": dtype}


def _model_class(config: PreTrainedConfig, auto_class: str | None, recorded: bool) -> Any:
    """The class to load with: the auto class asked for, or the one `config.architectures` names.

    Args:
        recorded: the weights record the same name: whatever its configuration is called, it was saved with it.

    Raises:
        CheckpointError: the name is not that of a model of Transformers, or of one made for another configuration.
    """
    if auto_class is not None:
        return getattr(transformers, auto_class)
    names = config.architectures or []
    if not names:
        return transformers.AutoModel
    found = getattr(transformers, names[0], None) if isinstance(names[0], str) and names[0].isidentifier() else None
    is_model = isinstance(found, type) and issubclass(found, PreTrainedModel)
    if not is_model or not (
        recorded or isinstance(config, found.config_class or ()) or _is_known_pair(config.model_type, names[0])  # type: ignore[union-attr]
    ):
        raise CheckpointError(
            f"config.json names the architecture {names[0]!r}; expected a model class of Transformers "
            f"{transformers.__version__} for {type(config).__name__}"
        )
    return found


def _is_known_pair(model_type: str, name: str) -> bool:
    """Whether Transformers builds the class `name` for configurations of another one: EXAONE is run by `LlamaForCausalLM`."""
    tables = [getattr(modeling_auto, key) for key in dir(modeling_auto) if key.endswith("_MAPPING_NAMES")]
    found = [table.get(model_type) for table in tables]
    return any(name == entry or (isinstance(entry, tuple | list) and name in entry) for entry in found)
