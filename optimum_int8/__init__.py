"""INT8 inference for Hugging Face Transformers on x86 CPUs, inside PyTorch.

Importing the package registers its checkpoint format with Transformers: afterwards `AutoModelForX.from_pretrained` and
`pipeline` load the folders that `optimum_int8` writes. It imports neither torch nor Transformers: what its attributes need
is imported at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._version import __version__
from .config import Int8Config
from .errors import (
    CalibrationError,
    CheckpointError,
    ConfigError,
    DataError,
    KernelError,
    OptimumInt8Error,
    QuantizationError,
)
from .hub import tasks as _tasks
from .hub.modeling import OptimizedModel
from .hub.registration import register as _register
from .hub.tasks import *  # noqa: F403
from .lazy import lazy_attributes

if TYPE_CHECKING:
    from .cache import Int8Cache
    from .deploy import load, save
    from .memory import release_memory
    from .quantization import inspect, quantize
    from .quantizers import (
        FeatureExtractionQuantizer,
        ImageClassificationQuantizer,
        LanguageModelingQuantizer,
        MultipleChoiceQuantizer,
        ObjectDetectionQuantizer,
        Quantizer,
        QuestionAnsweringQuantizer,
        SummarizationQuantizer,
        TextClassificationQuantizer,
        TokenClassificationQuantizer,
        TranslationQuantizer,
    )
    from .recipe import QuantConf, calibrate, convert
    from .training import Int8Trainer, QatSettings, convert_qat, prepare_qat
    from .tuning import tune
    from .warm import warmup

__all__ = [
    "CalibrationError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "FeatureExtractionQuantizer",
    "ImageClassificationQuantizer",
    "Int8Cache",
    "Int8Config",
    "Int8Trainer",
    "KernelError",
    "LanguageModelingQuantizer",
    "MultipleChoiceQuantizer",
    "ObjectDetectionQuantizer",
    "OptimizedModel",
    "OptimumInt8Error",
    "QatSettings",
    "QuantConf",
    "QuantizationError",
    "Quantizer",
    "QuestionAnsweringQuantizer",
    "SummarizationQuantizer",
    "TextClassificationQuantizer",
    "TokenClassificationQuantizer",
    "TranslationQuantizer",
    "__version__",
    "calibrate",
    "convert",
    "convert_qat",
    "inspect",
    "load",
    "prepare_qat",
    "quantize",
    "release_memory",
    "save",
    "tune",
    "warmup",
]

__all__ += _tasks.__all__

_PLACES = {
    **dict.fromkeys((name for name in __all__ if name.endswith("Quantizer")), "quantizers"),
    **dict.fromkeys(["Int8Trainer", "QatSettings", "convert_qat", "prepare_qat"], "training"),
    **dict.fromkeys(["QuantConf", "calibrate", "convert"], "recipe"),
    **dict.fromkeys(["inspect", "quantize"], "quantization"),
    **dict.fromkeys(["load", "save"], "deploy"),
    "Int8Cache": "cache",
    "release_memory": "memory",
    "tune": "tuning",
    "warmup": "warm",
}

__getattr__ = lazy_attributes(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted(__all__)


_register()
