"""The Transformers plug-in: after `import optimum_int8`, every `AutoModelForX.from_pretrained` loads our checkpoints.

Transformers picks the quantizer by `config.json["quantization_config"]["quant_method"]`, builds the model on the meta
device, calls the hook before loading (ours puts INT8 modules in place and checks the files), reads the tensors, and
calls the hook after loading (ours packs the weights). No FP32 weight of a quantized module ever exists.

This file is imported with Transformers' quantizers, whatever is loaded: what takes torch or INT8 modules along is imported by
the methods, most of it from `hooks`.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from ..config import QUANT_METHOD
from ..errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from .hooks import Loading

logger = logging.getLogger(__name__)


class Int8QuantizationConfig(QuantizationConfigMixin):
    """`config.json["quantization_config"]` of an INT8 checkpoint, checked when it is made.

    Its attributes are the keys of the JSON object: `quant_method`, `format_version`, `config`, `modules`, `fp32`,
    and where there are such modules `per_token` and `unpacked`. In the configuration of a tower (`text_config`), from which
    that tower alone can be loaded, it only refers to the whole.
    """

    def __init__(self, **metadata: Any) -> None:
        from .metadata import check_metadata, part

        reference = part()
        is_part = set(metadata) == set(reference)
        found = reference if is_part else check_metadata({"quant_method": QUANT_METHOD, **metadata})
        for key, value in found.items():
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
        from .guards import check_device_map

        check_device_map(device_map)

    def update_device_map(self, device_map: Any) -> Any:
        """`"auto"` would choose an accelerator where there is one; INT8 models run on the CPU."""
        return {"": "cpu"} if device_map is not None else None

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """What is not INT8 is float32: scales, biases and norms in half precision would change every result."""
        import torch

        if dtype is not torch.float32:
            logger.warning(
                "the INT8 checkpoint is loaded in float32, not in %s; call .to(%s) on the model to narrow what is not INT8",
                dtype,
                dtype,
            )
        return torch.float32

    def update_attn_implementation(self, config: Any) -> Any:
        """The one hook that sees the configuration before the model is built: refuse sizes it cannot have."""
        from .hooks import check_sizes

        check_sizes(config, self.metadata.get("modules"))
        return config

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> None:
        from .hooks import Loading

        if not checkpoint_files or not all(str(file).endswith(".safetensors") for file in checkpoint_files):
            raise CheckpointError(
                f"the weights are {checkpoint_files}; expected safetensors files: pass use_safetensors=True"
            )
        skip_conversions()
        self._loading: Loading = Loading(model, self.metadata, [Path(file) for file in checkpoint_files])

    def update_weight_conversions(self, weight_conversions: list[Any], model: PreTrainedModel) -> list[Any]:
        """See `hooks.Loading.conversions`."""
        return self._loading.conversions()

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> None:
        from .hooks import mark_float

        metadata = self._loading.finish(model)
        if metadata is None:
            self.remove_quantization_config(model)
            mark_float(model)
            return
        self.quantization_config = Int8QuantizationConfig(**metadata)
        model.config.quantization_config = self.quantization_config

    def get_state_dict_and_metadata(self, model: PreTrainedModel) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """What `save_pretrained` writes: the tensors, and for the files' headers their checksums and settings."""
        from .hooks import state_and_metadata

        return state_and_metadata(model)

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


def skip_conversions() -> None:
    """Let Transformers not make its rules for names of its own files, 1,200 regular expressions, where an INT8 checkpoint is loaded:
    `update_weight_conversions` replaces them. For all other models the function does what it did."""
    from transformers import modeling_utils

    original = getattr(modeling_utils, "get_model_conversion_mapping", None)
    if original is None or hasattr(original, "skips_int8"):
        return

    @functools.wraps(original)
    def conversions(model: Any, key_mapping: Any = None, hf_quantizer: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(hf_quantizer, Int8HfQuantizer):
            return hf_quantizer.update_weight_conversions([], model)
        return original(model, key_mapping, hf_quantizer, *args, **kwargs)

    conversions.skips_int8 = True  # type: ignore[attr-defined]
    modeling_utils.get_model_conversion_mapping = conversions


def prepare_saving(model: PreTrainedModel) -> Int8QuantizationConfig:
    """Give an INT8 model what Transformers' own `save_pretrained` looks for, so that it too writes checksums.

    What is stored of `model.config` stays as it is. Its mark `_is_quantized`, which a loaded model has, makes FalconMamba
    and Jamba call a linear instead of reading its weight: a model gives the same values before it is saved and after.

    Returns:
        The quantization metadata.

    Raises:
        CheckpointError: the model has no `optimum_int8` quantization metadata.
    """
    from transformers.modeling_utils import PreTrainedModel

    found = getattr(model.config, "quantization_config", None)
    metadata = found if isinstance(found, dict) or found is None else found.to_dict()
    if metadata is None:
        raise CheckpointError(f"this {type(model).__name__} is not an INT8 model; quantize it first")
    config = Int8QuantizationConfig(**metadata)
    model.hf_quantizer = Int8HfQuantizer(config, pre_quantized=True)
    model.is_quantized = True
    model.quantization_method = QUANT_METHOD
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.config._is_quantized = True
    model._weight_conversions = []  # names stay the model's own, also where Transformers has older ones for its files
    return config


def attach(model: PreTrainedModel) -> Int8QuantizationConfig:
    """`prepare_saving`, and the checked metadata in the model's configuration; returns the metadata."""
    config = model.config.quantization_config = prepare_saving(model)
    return config
