"""The Transformers plug-in: after `import optimum_int8`, every `AutoModelForX.from_pretrained` loads our checkpoints.

Transformers picks the quantizer by `config.json["quantization_config"]["quant_method"]`, builds the model on the meta
device, calls the hook before loading (ours puts INT8 modules in place and checks the files), reads the tensors, and
calls the hook after loading (ours packs the weights). No FP32 weight of a quantized module ever exists.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from transformers.utils.quantization_config import QuantizationConfigMixin

from ..config import QUANT_METHOD
from ..errors import CheckpointError, ConfigError
from ..restore import ON_ACTIVATE, build_skeleton, expected_tensors, finish_loading
from . import binding, checkpoint, ties
from .guards import MODULES_PER_TENSOR, check_config, check_device_map
from .integrity import check_blobs

logger = logging.getLogger(__name__)


class Int8QuantizationConfig(QuantizationConfigMixin):
    """`config.json["quantization_config"]` of an INT8 checkpoint, checked when it is made.

    Its attributes are the keys of the JSON object: `quant_method`, `format_version`, `config`, `modules`, `fp32`,
    and where there are such modules `per_token` and `unpacked`.
    """

    def __init__(self, **metadata: Any) -> None:
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
            logger.info("the INT8 checkpoint is loaded in float32, not in %s", dtype)
        return torch.float32

    def update_attn_implementation(self, config: Any) -> Any:
        """The one hook that sees the configuration before the model is built: refuse sizes it cannot have."""
        check_config(config.to_dict())
        layers = getattr(config.get_text_config(), "num_hidden_layers", None)
        if type(layers) is int and layers > MODULES_PER_TENSOR * len(self.metadata["modules"]):
            raise CheckpointError(
                f"config.json describes {layers} layers; the checkpoint has {len(self.metadata['modules'])} INT8 modules"
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
        _check_binding(model, files)
        metadata, headers = _without_head(model, self.metadata, headers)
        self._loading = metadata
        build_skeleton(model, metadata)
        tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
        checkpoint.check_headers(headers, expected_tensors(model), tied)
        self._ties = ties.take(model, headers)
        check_blobs(files)
        checkpoint.check_values(files)

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> None:
        ties.tie(model, self._ties)
        finish_loading(model, self._loading)
        self.quantization_config = Int8QuantizationConfig(**self._loading)
        model.config.quantization_config = self.quantization_config

    def get_state_dict_and_metadata(self, model: PreTrainedModel) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """What `save_pretrained` writes: the tensors, and for the files' headers their checksums and settings."""
        state = ties.without_copies(model, model.state_dict())
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


def prepare_saving(model: PreTrainedModel) -> Int8QuantizationConfig:
    """Give an INT8 model what Transformers' own `save_pretrained` looks for, so that it too writes checksums.

    `model.config` stays as it is.

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
    model._weight_conversions = []  # names stay the model's own, also where Transformers has older ones for its files
    return config


def attach(model: PreTrainedModel) -> Int8QuantizationConfig:
    """`prepare_saving`, and the checked metadata in the model's configuration; returns the metadata."""
    config = model.config.quantization_config = prepare_saving(model)
    return config


def _check_binding(model: PreTrainedModel, files: Sequence[Path]) -> None:
    """Compare the `config.json` beside the weights with the settings they were made under."""
    bound, beside = binding.read(files), files[0].parent / checkpoint.CONFIG_NAME
    if bound is not None and beside.is_file():
        binding.check(bound, checkpoint.read_json(beside), model.config)


def _without_head(
    model: PreTrainedModel, metadata: dict[str, Any], headers: dict[str, checkpoint.TensorInfo]
) -> tuple[dict[str, Any], dict[str, checkpoint.TensorInfo]]:
    """The part of a task checkpoint that a headless model (`AutoModel`) needs, under the headless model's names."""
    prefix = f"{model.base_model_prefix}."
    if (
        prefix == "."
        or hasattr(model, model.base_model_prefix)
        or not any(n.startswith(prefix) for n in metadata["modules"])
    ):
        return metadata, headers

    def keep(values: dict[str, Any]) -> dict[str, Any]:
        return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}

    kept: dict[str, Any] = {key: keep(metadata[key]) for key in ("modules", "fp32", "functional") if key in metadata}
    found = {**metadata, **kept}
    lists = [key for key in ("per_token", "unpacked") if key in metadata]
    found |= {key: list(keep(dict.fromkeys(metadata[key]))) for key in lists}
    return found, keep(headers)


register()
