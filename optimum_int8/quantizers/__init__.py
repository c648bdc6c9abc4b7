"""One quantizer per task. A new task is one file in `tasks/` and one line in `QUANTIZERS`."""

from __future__ import annotations

from transformers import PreTrainedConfig

from ..errors import ConfigError
from .base import Quantizer
from .steps.loading import has_head
from .tasks.feature_extraction import FeatureExtractionQuantizer
from .tasks.image_classification import ImageClassificationQuantizer
from .tasks.language_modeling import LanguageModelingQuantizer
from .tasks.multiple_choice import MultipleChoiceQuantizer
from .tasks.object_detection import ObjectDetectionQuantizer
from .tasks.question_answering import QuestionAnsweringQuantizer
from .tasks.summarization import SummarizationQuantizer
from .tasks.text_classification import TextClassificationQuantizer
from .tasks.token_classification import TokenClassificationQuantizer
from .tasks.translation import TranslationQuantizer

QUANTIZERS: tuple[type[Quantizer], ...] = (
    TextClassificationQuantizer,
    TokenClassificationQuantizer,
    QuestionAnsweringQuantizer,
    SummarizationQuantizer,
    TranslationQuantizer,
    MultipleChoiceQuantizer,
    LanguageModelingQuantizer,
    FeatureExtractionQuantizer,
    ImageClassificationQuantizer,
    ObjectDetectionQuantizer,
)
"""The tasks that are known, each with its `task` name and the `head` that its model classes end in."""


def quantizer_for(config: PreTrainedConfig, task: str | None = None) -> type[Quantizer]:
    """The quantizer class of a task, or of the model class that `config.architectures` names.

    Returns:
        The generic `Quantizer` for models of no known task: it quantizes, but cannot evaluate.

    Raises:
        ConfigError: an unknown task name.
    """
    if task is not None:
        for quantizer in QUANTIZERS:
            if quantizer.task == task:
                return quantizer
        raise ConfigError(f"unknown task {task!r}; known ones are {', '.join(q.task for q in QUANTIZERS)}")
    for quantizer in QUANTIZERS:
        if quantizer.head and any(has_head(name, quantizer.head) for name in config.architectures or []):
            return quantizer
    return Quantizer


__all__ = [
    "QUANTIZERS",
    "FeatureExtractionQuantizer",
    "ImageClassificationQuantizer",
    "LanguageModelingQuantizer",
    "MultipleChoiceQuantizer",
    "ObjectDetectionQuantizer",
    "QuestionAnsweringQuantizer",
    "Quantizer",
    "SummarizationQuantizer",
    "TextClassificationQuantizer",
    "TokenClassificationQuantizer",
    "TranslationQuantizer",
    "quantizer_for",
]
