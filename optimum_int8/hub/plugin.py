"""The Transformers plug-in: after `import optimum_int8`, every `AutoModelForX.from_pretrained` loads our checkpoints.

Transformers picks the quantizer by `config.json["quantization_config"]["quant_method"]`, builds the model on the meta
device, calls the hook before loading (ours puts INT8 modules in place and checks the files), reads the tensors, and
calls the hook after loading (ours packs the weights). No FP32 weight of a quantized module ever exists.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from transformers.utils.quantization_config import QuantizationConfigMixin

from ..config import QUANT_METHOD
from ..errors import CheckpointError, ConfigError
from ..nn import Int8Module
from ..nn.dequantized import keeping_weights
from ..restore import ON_ACTIVATE, build_skeleton, expected_tensors, finish_loading
from . import adapt, binding, checkpoint, resize, ties
from .guards import MODULES_PER_TENSOR, check_config, check_device_map
from .integrity import check_blobs
from .rescaled import as_stored

logger = logging.getLogger(__name__)


class Int8QuantizationConfig(QuantizationConfigMixin):
    """`config.json["quantization_config"]` of an INT8 checkpoint, checked when it is made.

    Its attributes are the keys of the JSON object: `quant_method`, `format_version`, `config`, `modules`, `fp32`,
    and where there are such modules `per_token` and `unpacked`. In the configuration of a tower (`text_config`), from which
    that tower alone can be loaded, it only refers to the whole.
    """

    def __init__(self, **metadata: Any) -> None:
        if set(metadata) == set(checkpoint.part()):
            for key, value in checkpoint.part().items():
                setattr(self, key, value)
            return
        for key, value in checkpoint.check_metadata({"quant_method": QUANT_METHOD, **metadata}).items():
            setattr(self, key, value)


class Int8HfQuantizer(HfQuantizer):
    """Loads and saves INT8 checkpoints inside Transformers' `from_pretrained` and `save_pretrained`."""

    requires_calibration = True

    def __init__(self, quantization_config: QuantizationConfigMixin, **kwargs: Any) -> None:
        if not kwargs.get("pre_quantized", True):
            raise ConfigError(
                "from_pretrained(quantization_config=...) cannot quantize an FP32 model to optimum_int8; load it "
                "without and call optimum_int8.quantize(model, Int8Config(...))"
            )
        super().__init__(quantization_config, **kwargs)

    @property
    def metadata(self) -> dict[str, Any]:
        """The quantization metadata as a plain dict."""
        return self.quantization_config.to_dict()

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        """Refuse a device other than the CPU before anything is built."""
        check_device_map(device_map)

    def update_device_map(self, device_map: Any) -> Any:
        """`"auto"` would choose an accelerator where there is one; INT8 models run on the CPU."""
        return {"": "cpu"} if device_map is not None else None

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """What is not INT8 is float32: scales, biases and norms in half precision would change every result."""
        if dtype is not torch.float32:
            logger.warning(
                "the INT8 checkpoint is loaded in float32, not in %s; call .to(%s) on the model to narrow what is not INT8",
                dtype,
                dtype,
            )
        return torch.float32

    def update_attn_implementation(self, config: Any) -> Any:
        """The one hook that sees the configuration before the model is built: refuse sizes it cannot have."""
        check_config(config.to_dict())
        layers = _layers(config)
        modules = self.metadata.get("modules")
        if modules and type(layers) is int and layers > MODULES_PER_TENSOR * len(modules):
            raise CheckpointError(
                f"config.json describes {layers} layers; the checkpoint has {len(modules)} INT8 modules"
            )
        return config

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> None:
        if not checkpoint_files or not all(str(file).endswith(".safetensors") for file in checkpoint_files):
            raise CheckpointError(
                f"the weights are {checkpoint_files}; expected safetensors files: pass use_safetensors=True"
            )
        files = [Path(file) for file in checkpoint_files]
        headers = checkpoint.read_headers(files)
        stored, bound = _stored_config(files), binding.read(files)
        metadata = self.metadata
        if checkpoint.PART_OF in metadata:
            metadata = checkpoint.check_metadata(stored.get("quantization_config") or {})
        binding.check(bound, stored, model.config)
        if binding.is_as_saved(bound, stored, model):
            found = adapt.Adapted.unchanged(metadata, headers)
        else:
            found = adapt.adapt(model, metadata, headers)
        self._adapted = found
        build_skeleton(model, found.metadata)
        expected, tied = expected_tensors(model), dict(getattr(model, "all_tied_weights_keys", None) or {})
        self._ties = ties.take(model, found.headers)
        modules = found.metadata["modules"]
        lacking = _may_lack(model, found, metadata)
        checkpoint.check_headers(found.headers, expected, {**tied, **self._ties}, lacking, modules)
        surplus = {re.escape(name) + "$" for name in found.surplus}
        model._keys_to_ignore_on_load_unexpected = set(model._keys_to_ignore_on_load_unexpected or ()) | surplus
        check_blobs(files)
        adapt.refuse_lost(model, found, checkpoint.check_values(files, metadata["modules"]))
        _keep_int8_weights(model)

    def update_weight_conversions(self, weight_conversions: list[Any], model: PreTrainedModel) -> list[Any]:
        """The names in our files are the model's own, or were found out already."""
        return [adapt.ExactNames(self._adapted.names)]

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> None:
        ties.tie(model, self._ties)
        if not self._adapted.metadata["modules"]:
            self._leave_float(model)
            return
        finish_loading(model, self._adapted.metadata)
        self.quantization_config = Int8QuantizationConfig(**self._adapted.metadata)
        model.config.quantization_config = self.quantization_config

    def _leave_float(self, model: PreTrainedModel) -> None:
        """Make a model without INT8 modules one that Transformers knows nothing of quantization about."""
        logger.warning("no INT8 module of the checkpoint has a place in %s: it is an FP32 model", type(model).__name__)
        self.remove_quantization_config(model)
        for module in model.modules():
            if isinstance(module, PreTrainedModel):
                module.config._is_quantized = False
        _drop_references(model.config)

    def get_state_dict_and_metadata(self, model: PreTrainedModel) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
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

    def is_serializable(self) -> bool:
        """INT8 models can be saved."""
        return True

    @property
    def is_trainable(self) -> bool:
        """True, because `Trainer` asks for it even to evaluate and predict; the INT8 modules themselves do not learn."""
        return True

    @property
    def is_qat_trainable(self) -> bool:
        """As `is_trainable`."""
        return True


def register() -> None:
    """Make Transformers know `quant_method: "optimum_int8"`. Calling it again changes nothing."""
    if QUANT_METHOD not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        register_quantization_config(QUANT_METHOD)(Int8QuantizationConfig)
    if QUANT_METHOD not in AUTO_QUANTIZER_MAPPING:
        register_quantizer(QUANT_METHOD)(Int8HfQuantizer)
    if prepare_saving not in ON_ACTIVATE:
        ON_ACTIVATE.append(prepare_saving)
    resize.teach()


def _keep_int8_weights(model: PreTrainedModel) -> None:
    """Let Transformers, once the tensors are read, initialize what it computes, and none of what is INT8."""
    initialize = model._initialize_missing_keys

    def initialize_the_rest(*args: Any, **kwargs: Any) -> None:
        del model._initialize_missing_keys
        with keeping_weights():
            initialize(*args, **kwargs)

    model._initialize_missing_keys = initialize_the_rest


def prepare_saving(model: PreTrainedModel) -> Int8QuantizationConfig:
    """Give an INT8 model what Transformers' own `save_pretrained` looks for, so that it too writes checksums.

    What is stored of `model.config` stays as it is. Its mark `_is_quantized`, which a loaded model has, makes FalconMamba
    and Jamba call a linear instead of reading its weight: a model gives the same values before it is saved and after.

    Returns:
        The quantization metadata.

    Raises:
        CheckpointError: the model has no `optimum_int8` quantization metadata.
    """
    found = getattr(model.config, "quantization_config", None)
    metadata = found if isinstance(found, dict) or found is None else found.to_dict()
    if metadata is None:
        raise CheckpointError(f"this {type(model).__name__} is not an INT8 model; quantize it first")
    config = Int8QuantizationConfig(**metadata)
    model.hf_quantizer = Int8HfQuantizer(config, pre_quantized=True)
    model.is_quantized, model.quantization_method = True, QUANT_METHOD
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.config._is_quantized = True
    model._weight_conversions = []  # names stay the model's own, also where Transformers has older ones for its files
    return config


def attach(model: PreTrainedModel) -> Int8QuantizationConfig:
    """`prepare_saving`, and the checked metadata in the model's configuration; returns the metadata."""
    config = model.config.quantization_config = prepare_saving(model)
    return config


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
    """The `config.json` beside the weights; nothing where there is none."""
    beside = files[0].parent / checkpoint.CONFIG_NAME
    return checkpoint.read_json(beside) if beside.is_file() else {}


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


register()
