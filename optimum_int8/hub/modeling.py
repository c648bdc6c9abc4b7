"""`OptimizedModel`: load an INT8 model (or an FP32 one, as it is) in one call, from a folder or from the Hub.

This file is imported with the package: what takes torch and Transformers along is imported by the methods.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .push import Pushed


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
        from .download import fetch
        from .loading import load_folder

        folder = fetch(
            model_id,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            force_download=force_download,
            subfolder=subfolder,
        )
        return load_folder(folder, str(model_id), kwargs, cls.auto_class)

    @staticmethod
    def save_pretrained(
        model: PreTrainedModel,
        save_directory: str | os.PathLike[str],
        *,
        tokenizer: Any = None,
        max_shard_size: int | str = "5GB",
    ) -> Path:
        """Write an INT8 model as a checkpoint folder, complete or not at all; see `hub.save.save_pretrained`."""
        from .save import save_pretrained

        return save_pretrained(model, save_directory, tokenizer=tokenizer, max_shard_size=max_shard_size)

    @staticmethod
    def push_to_hub(model: PreTrainedModel, repo_id: str, **options: Any) -> Pushed:
        """Save an INT8 model with a model card and publish it; see `hub.push.push_to_hub` for the options."""
        from .push import push_to_hub

        return push_to_hub(model, repo_id, **options)
