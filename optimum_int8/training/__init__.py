"""Quantization-aware training: fake quantization, `Int8Trainer`, and the way from a trained model to INT8."""

from .prepare import convert_qat, prepare_qat
from .settings import QatSettings
from .trainer import Int8Trainer

__all__ = ["Int8Trainer", "QatSettings", "convert_qat", "prepare_qat"]
