"""Saving, loading and sharing INT8 checkpoints."""

from .card import CardInfo, render_card
from .legacy import convert_legacy
from .modeling import OptimizedModel
from .plugin import register
from .push import Pushed, push_folder, push_to_hub
from .save import save_pretrained
from .tasks import (
    OptimizedModelForCausalLM,
    OptimizedModelForFeatureExtraction,
    OptimizedModelForImageClassification,
    OptimizedModelForMaskedLM,
    OptimizedModelForMultipleChoice,
    OptimizedModelForObjectDetection,
    OptimizedModelForQuestionAnswering,
    OptimizedModelForSeq2SeqLM,
    OptimizedModelForSequenceClassification,
    OptimizedModelForTokenClassification,
)

__all__ = [
    "CardInfo",
    "OptimizedModel",
    "OptimizedModelForCausalLM",
    "OptimizedModelForFeatureExtraction",
    "OptimizedModelForImageClassification",
    "OptimizedModelForMaskedLM",
    "OptimizedModelForMultipleChoice",
    "OptimizedModelForObjectDetection",
    "OptimizedModelForQuestionAnswering",
    "OptimizedModelForSeq2SeqLM",
    "OptimizedModelForSequenceClassification",
    "OptimizedModelForTokenClassification",
    "Pushed",
    "convert_legacy",
    "push_folder",
    "push_to_hub",
    "register",
    "render_card",
    "save_pretrained",
]
