"""INT8 inference for Hugging Face Transformers on x86 CPUs, inside PyTorch.

Importing the package registers its checkpoint format with Transformers: afterwards `AutoModelForX.from_pretrained` and
`pipeline` load the folders that `optimum_int8` writes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .config import Int8Config
from .deploy import load, save
from .errors import (
    CalibrationError,
    CheckpointError,
    ConfigError,
    DataError,
    KernelError,
    OptimumInt8Error,
    QuantizationError,
)
from .hub import OptimizedModel
from .hub import tasks as _tasks
from .hub.tasks import *  # noqa: F403

# Not lazy: the submodules have the functions' names, and importing them later would put the modules over the functions.
from .quantize import inspect, quantize
from .recipe import QuantConf, calibrate, convert
from .tune import tune

if TYPE_CHECKING:
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
    from .training import Int8Trainer, QatSettings, convert_qat, prepare_qat

__all__ = [
    "CalibrationError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "FeatureExtractionQuantizer",
    "ImageClassificationQuantizer",
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
    "save",
    "tune",
]

__all__ += _tasks.__all__

# Imported at first use: they bring datasets and scikit-learn.
_LAZY = {
    "FeatureExtractionQuantizer": "quantizers",
    "ImageClassificationQuantizer": "quantizers",
    "Int8Trainer": "training",
    "LanguageModelingQuantizer": "quantizers",
    "ObjectDetectionQuantizer": "quantizers",
    "MultipleChoiceQuantizer": "quantizers",
    "QatSettings": "training",
    "Quantizer": "quantizers",
    "QuestionAnsweringQuantizer": "quantizers",
    "SummarizationQuantizer": "quantizers",
    "TextClassificationQuantizer": "quantizers",
    "TokenClassificationQuantizer": "quantizers",
    "TranslationQuantizer": "quantizers",
    "convert_qat": "training",
    "prepare_qat": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _register() -> None:
    from .hub.plugin import register

    register()


_register()
