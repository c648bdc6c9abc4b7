"""`OptimizedModel`: load an INT8 model (or an FP32 one, as it is) in one call, from a folder or from the Hub."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from ..errors import CheckpointError, ConfigError, OptimumInt8Error
from . import binding, checkpoint, compressed_tensors, legacy
from .download import fetch
from .guards import check_config, check_device_map, check_quantization, is_legacy, limit_modules
from .push import Pushed, push_to_hub
from .save import save_pretrained


class OptimizedModel:
    """Loads and saves INT8 Transformers models; what it returns is the plain Transformers class, never a wrapper.

    Example:
        >>> model = OptimizedModel.from_pretrained("sst2-int8-static")  # doctest: +SKIP
        >>> type(model).__name__  # doctest: +SKIP
        'DistilBertForSequenceClassification'
    """

    auto_class: str | None = None
    """Name of the Transformers auto class to load with; None takes the class that `config.json` names."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        name = type(self).__name__
        raise ConfigError(f"{name} is not made by calling it; use {name}.from_pretrained(folder_or_repository)")

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        subfolder: str = "",
        **kwargs: Any,
    ) -> PreTrainedModel:
        """Load a checkpoint. An INT8 one becomes an INT8 model; an FP32 one is loaded as it is.

        Args:
            model_id: a folder, or a repository of the Hub (`"user/name"`).
            revision, cache_dir, token, local_files_only, force_download, subfolder: as the Hub's client names them.
            kwargs: passed on to Transformers, which takes settings of the configuration too: `num_labels=2`,
                `output_attentions=True`, `dtype`, `attn_implementation`, `config`, `output_loading_info`, ...

        Returns:
            The model in evaluation mode, of the class that `config.json` names.

        Raises:
            CheckpointError: damaged, foreign, newer than this package, or out of reach; the message says which, the
                `__cause__` is what the client or Transformers raised.
        """
        if kwargs.pop("trust_remote_code", False):
            raise ConfigError("trust_remote_code is refused: a checkpoint never runs code of its own here")
        if not kwargs.pop("use_safetensors", True):
            raise ConfigError("use_safetensors=False is refused: pickled weights can run code")
        folder = fetch(
            model_id,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            force_download=force_download,
            subfolder=subfolder,
        )
        return cls._load(folder, str(model_id), kwargs)

    @classmethod
    def _load(cls, folder: Path, name: str, kwargs: dict[str, Any]) -> PreTrainedModel:
        """Build the model from a local folder; every failure becomes one of our errors."""
        raw = checkpoint.read_json(folder / checkpoint.CONFIG_NAME)
        check_config(raw)
        if (folder / "adapter_config.json").is_file():
            raise CheckpointError(
                f"{name!r} holds an adapter, which would load another model; merge it into its model first"
            )
        converter = _converter(raw, folder)
        if converter is not None:
            with tempfile.TemporaryDirectory(prefix="optimum-int8-") as scratch:
                return cls._load(converter(folder, Path(scratch) / "model"), name, kwargs)
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
            if quantized and cls.auto_class is None:
                binding.check_architecture(bound, raw, config)
            model_class = _model_class(config, cls.auto_class, binding.records_architecture(bound, config))
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

    @staticmethod
    def save_pretrained(
        model: PreTrainedModel,
        save_directory: str | os.PathLike[str],
        *,
        tokenizer: Any = None,
        max_shard_size: int | str = "5GB",
    ) -> Path:
        """Write an INT8 model as a checkpoint folder, complete or not at all; see `hub.save.save_pretrained`."""
        return save_pretrained(model, save_directory, tokenizer=tokenizer, max_shard_size=max_shard_size)

    @staticmethod
    def push_to_hub(model: PreTrainedModel, repo_id: str, **options: Any) -> Pushed:
        """Save an INT8 model with a model card and publish it; see `hub.push.push_to_hub` for the options."""
        return push_to_hub(model, repo_id, **options)


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
