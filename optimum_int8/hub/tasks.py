"""`OptimizedModel` for one task: the class is chosen by the task, whatever `config.json` names, as Optimum's users expect."""

from __future__ import annotations

from .modeling import OptimizedModel

__all__ = [
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
]
"""The one list of these classes: `optimum_int8` and `optimum_int8.hub` take what it names."""


class OptimizedModelForSequenceClassification(OptimizedModel):
    """`OptimizedModel` for classifying text."""

    auto_class = "AutoModelForSequenceClassification"


class OptimizedModelForTokenClassification(OptimizedModel):
    """`OptimizedModel` for classifying tokens."""

    auto_class = "AutoModelForTokenClassification"


class OptimizedModelForQuestionAnswering(OptimizedModel):
    """`OptimizedModel` for extracting answers."""

    auto_class = "AutoModelForQuestionAnswering"


class OptimizedModelForMultipleChoice(OptimizedModel):
    """`OptimizedModel` for choosing one of several texts."""

    auto_class = "AutoModelForMultipleChoice"


class OptimizedModelForMaskedLM(OptimizedModel):
    """`OptimizedModel` for filling in masked tokens."""

    auto_class = "AutoModelForMaskedLM"


class OptimizedModelForCausalLM(OptimizedModel):
    """`OptimizedModel` for generating text."""

    auto_class = "AutoModelForCausalLM"


class OptimizedModelForSeq2SeqLM(OptimizedModel):
    """`OptimizedModel` for translating and summarizing."""

    auto_class = "AutoModelForSeq2SeqLM"


class OptimizedModelForFeatureExtraction(OptimizedModel):
    """`OptimizedModel` for hidden states, without a head."""

    auto_class = "AutoModel"


class OptimizedModelForImageClassification(OptimizedModel):
    """`OptimizedModel` for classifying images."""

    auto_class = "AutoModelForImageClassification"


class OptimizedModelForObjectDetection(OptimizedModel):
    """`OptimizedModel` for finding objects in images."""

    auto_class = "AutoModelForObjectDetection"
