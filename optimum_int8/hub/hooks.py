"""What the plug-in does inside Transformers' `from_pretrained` and `save_pretrained`: all that takes INT8 modules along."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import CheckpointError
from ..nn import Int8Module
from ..nn.dequantized import keeping_weights
from ..restore import build_skeleton, expected_tensors, finish_loading
from . import adapt, binding, checkpoint, programs, ties
from .guards import MODULES_PER_TENSOR, check_config
from .integrity import check_blobs
from .mapped import release_pages
from .rescaled import as_stored

logger = logging.getLogger(__name__)


def check_sizes(config: PreTrainedConfig, modules: dict[str, str] | None) -> None:
    """Refuse a configuration with sizes that the model cannot have.

    Args:
        modules: the INT8 modules that the checkpoint names.

    Raises:
        CheckpointError: naming the first such key, or the number of layers.
    """
    check_config(config.to_dict())
    layers = _layers(config)
    if modules and type(layers) is int and layers > MODULES_PER_TENSOR * len(modules):
        raise CheckpointError(f"config.json describes {layers} layers; the checkpoint has {len(modules)} INT8 modules")


class Loading:
    """One model on its way from the files into memory."""

    def __init__(self, model: PreTrainedModel, metadata: dict[str, Any], files: Sequence[Path]) -> None:
        """Check the files, and put INT8 modules on the meta device into the model, before the weights are read."""
        headers = checkpoint.read_headers(files)
        stored = _stored_config(files)
        bound = binding.read(files)
        if checkpoint.PART_OF in metadata:
            metadata = checkpoint.check_metadata(stored.get("quantization_config") or {})
        binding.check(bound, stored, model.config)
        if binding.is_as_saved(bound, stored, model):
            found = adapt.Adapted.unchanged(metadata, headers)
        else:
            found = adapt.adapt(model, metadata, headers)
        self._adapted = found
        self._files = files
        build_skeleton(model, found.metadata)
        expected = expected_tensors(model)
        tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
        self._ties = ties.take(model, found.headers)
        modules = found.metadata["modules"]
        lacking = _may_lack(model, found, metadata)
        checkpoint.check_headers(found.headers, expected, {**tied, **self._ties}, lacking, modules)
        surplus = {re.escape(name) + "$" for name in found.surplus}
        model._keys_to_ignore_on_load_unexpected = set(model._keys_to_ignore_on_load_unexpected or ()) | surplus
        check_blobs(files)
        adapt.refuse_lost(model, found, checkpoint.check_values(files, metadata["modules"]))
        _keep_int8_weights(model)

    def conversions(self) -> list[Any]:
        """In the place of Transformers' rules: the names in our files are the model's own, or were found out already."""
        return [adapt.ExactNames(self._adapted.names)]

    def finish(self, model: PreTrainedModel) -> dict[str, Any] | None:
        """Complete the model, once the weights are read.

        Returns:
            The metadata of what is INT8; None when nothing is, which leaves a float model.
        """
        ties.tie(model, self._ties)
        metadata = self._adapted.metadata
        if metadata["modules"]:
            finish_loading(model, metadata)
            release_pages(model, self._files)
            programs.attach(model, self._files[0].parent)
            return metadata
        logger.warning("no INT8 module of the checkpoint has a place in %s: it is an FP32 model", type(model).__name__)
        return None


def mark_float(model: PreTrainedModel) -> None:
    """Make a model without INT8 modules one that Transformers knows nothing of quantization about."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.config._is_quantized = False
    _drop_references(model.config)


def state_and_metadata(model: PreTrainedModel) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """What `save_pretrained` writes: the tensors, and for the files' headers their checksums and settings."""
    computed = set(getattr(model, "_keys_to_ignore_on_save", None) or ())  # Transformers leaves these out
    stored = {name: tensor for name, tensor in as_stored(model).items() if name not in computed}
    state = ties.without_copies(model, stored)
    _refer_to_the_whole(model.config)
    written = {**binding.as_json(model.config), binding.ARCHITECTURES: [type(model).__name__]}
    return state, {
        checkpoint.CHECKSUMS_KEY: checkpoint.checksums(state),
        binding.BINDING_KEY: binding.bind(written),
    }


def _keep_int8_weights(model: PreTrainedModel) -> None:
    """Let Transformers, once the tensors are read, initialize what it computes, and none of what is INT8."""
    initialize = model._initialize_missing_keys

    def initialize_the_rest(*args: Any, **kwargs: Any) -> None:
        del model._initialize_missing_keys
        with keeping_weights():
            initialize(*args, **kwargs)

    model._initialize_missing_keys = initialize_the_rest


def _layers(config: PreTrainedConfig) -> Any:
    """Of the text model; None where a configuration has several, which Transformers refuses to choose from (MusicGen)."""
    try:
        return getattr(config.get_text_config(), "num_hidden_layers", None)
    except ValueError:
        return None


def _refer_to_the_whole(config: Any) -> None:
    """Say in the parts of a configuration that their weights are INT8: `CLIPTextModel.from_pretrained` reads only its part."""
    for key in config.sub_configs:
        part = getattr(config, key, None)
        if isinstance(part, PreTrainedConfig):
            part.quantization_config = checkpoint.part()
            _refer_to_the_whole(part)


def _drop_references(config: PreTrainedConfig) -> None:
    """Undo `_refer_to_the_whole`."""
    for key in config.sub_configs:
        part = getattr(config, key, None)
        if isinstance(part, PreTrainedConfig):
            vars(part).pop("quantization_config", None)
            _drop_references(part)


def _stored_config(files: Sequence[Path]) -> dict[str, Any]:
    """The `config.json` next to the weights; nothing where there is none."""
    config_file = files[0].parent / checkpoint.CONFIG_NAME
    return checkpoint.read_json(config_file) if config_file.is_file() else {}


def _may_lack(model: PreTrainedModel, found: adapt.Adapted, metadata: dict[str, Any]) -> Collection[str]:
    """Tensors that the files need not have as the model has them: the float ones, when it is of a class the caller chose."""
    if found.metadata is metadata:
        return ()
    owned = {
        f"{name}.{key}"
        for name, module in model.named_modules()
        if isinstance(module, Int8Module)
        for key in module.state_dict()
    }
    return set(model.state_dict()) - owned
