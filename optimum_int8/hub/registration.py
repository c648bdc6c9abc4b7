"""What `import optimum_int8` does to torch and Transformers, without importing them or the rest of this package.

Each part waits for the module that it changes, so that a program pays for what it uses: the command line for nothing, a program
that runs float models for the operators and three short functions.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..config import QUANT_METHOD
from ..lazy import when_imported

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MARK = "optimum_int8"
_TAUGHT = ("_get_resized_embeddings", "_get_resized_lm_head", "tie_weights")
_INT8_MODULES = "optimum_int8.nn"
"""Before this package is imported, no model holds a module of it."""


def register() -> None:
    """Make Transformers load, save and resize INT8 models, from now on or once it is imported. Calling it again changes nothing."""
    when_imported("torch", _define_operators)
    when_imported("transformers.quantizers.auto", register_quantizer)
    when_imported("transformers.modeling_utils", teach_resizing)
    when_imported("optimum_int8.restore", _prepare_saving_of_made_models)


def _define_operators() -> None:
    """`torch.ops.optimum_int8`, which graphs that torch loads name; 60 ms."""
    from .. import operators  # noqa: F401


def register_quantizer() -> None:
    """Make Transformers know `quant_method: "optimum_int8"`."""
    from transformers.quantizers import auto

    from .plugin import Int8HfQuantizer, Int8QuantizationConfig

    if QUANT_METHOD not in auto.AUTO_QUANTIZATION_CONFIG_MAPPING:
        auto.register_quantization_config(QUANT_METHOD)(Int8QuantizationConfig)
    if QUANT_METHOD not in auto.AUTO_QUANTIZER_MAPPING:
        auto.register_quantizer(QUANT_METHOD)(Int8HfQuantizer)


def teach_resizing() -> None:
    """Give three methods of `PreTrainedModel` a case for INT8 modules, which `resize` holds."""
    from transformers.modeling_utils import PreTrainedModel

    for name in _TAUGHT:
        original = getattr(PreTrainedModel, name)
        if not hasattr(original, _MARK):
            setattr(PreTrainedModel, name, _with_case(original, name))


def _with_case(original: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        if _INT8_MODULES not in sys.modules:
            return original(self, *args, **kwargs)
        from .resize import CASES

        return CASES[name](original, self, *args, **kwargs)

    setattr(method, _MARK, True)
    return method


def _prepare_saving_of_made_models() -> None:
    from ..restore import ON_ACTIVATE

    if _prepare_saving not in ON_ACTIVATE:
        ON_ACTIVATE.append(_prepare_saving)


def _prepare_saving(model: PreTrainedModel) -> None:
    from .plugin import prepare_saving

    prepare_saving(model)
