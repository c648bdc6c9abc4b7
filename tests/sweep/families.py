"""Which classes are tried: for each model type one class per family of tasks, in the order of Transformers' own tables."""

from __future__ import annotations

from dataclasses import dataclass

from transformers.models.auto import modeling_auto

FAMILIES: dict[str, tuple[str, ...]] = {
    "generation": (
        "SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ", "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM", "CAUSAL_LM", "CAUSAL_IMAGE_MODELING",
        "TABLE_RECOGNITION", "TEXT_RECOGNITION",
    ),
    "language": (
        "SEQUENCE_CLASSIFICATION", "TOKEN_CLASSIFICATION", "QUESTION_ANSWERING", "MASKED_LM", "MULTIPLE_CHOICE",
        "TABLE_QUESTION_ANSWERING", "DOCUMENT_QUESTION_ANSWERING", "NEXT_SENTENCE_PREDICTION",
    ),
    "vision": (
        "IMAGE_CLASSIFICATION", "OBJECT_DETECTION", "UNIVERSAL_SEGMENTATION", "SEMANTIC_SEGMENTATION", "INSTANCE_SEGMENTATION",
        "IMAGE_SEGMENTATION", "DEPTH_ESTIMATION", "NORMAL_ESTIMATION", "POINTMAP_ESTIMATION", "IMAGE_MATTING", "POSE_ESTIMATION",
        "MASK_GENERATION", "KEYPOINT_DETECTION", "KEYPOINT_MATCHING", "IMAGE_TO_IMAGE", "VIDEO_CLASSIFICATION",
        "MASKED_IMAGE_MODELING", "BACKBONE",
    ),
    "audio": (
        "CTC", "RNNT", "TDT", "AUDIO_CLASSIFICATION", "TEXT_TO_SPECTROGRAM", "TEXT_TO_WAVEFORM", "AUDIO_FRAME_CLASSIFICATION",
        "AUDIO_XVECTOR",
    ),
    "image and text": (
        "ZERO_SHOT_IMAGE_CLASSIFICATION", "ZERO_SHOT_OBJECT_DETECTION", "VISUAL_QUESTION_ANSWERING", "RETRIEVAL",
    ),
    "time series": ("TIME_SERIES_PREDICTION", "TIME_SERIES_CLASSIFICATION", "TIME_SERIES_REGRESSION"),
    "base": ("PRETRAINING", "TEXT_ENCODING", "IMAGE", ""),
}  # fmt: skip
"""Family to Transformers' tables (`MODEL_FOR_<name>_MAPPING_NAMES`; "" is the table of models without a head): the first that knows
the model type gives the class. The base class is tried where no family has one."""


@dataclass(frozen=True)
class Pair:
    """One class to try."""

    model_type: str
    class_name: str
    family: str
    task: str

    @property
    def key(self) -> str:
        """Its name in results and on the command line."""
        return f"{self.model_type}/{self.class_name}"


def find_pairs() -> list[Pair]:
    """All pairs of the installed Transformers, sorted by model type. A class that two model types or families name comes once."""
    tables = {task: _table(task) for tasks in FAMILIES.values() for task in tasks}
    found: dict[tuple[str, str], Pair] = {}
    for model_type in sorted({name for table in tables.values() for name in table}):
        of_type = []
        for family, tasks in FAMILIES.items():
            task = next((task for task in tasks if model_type in tables[task]), None)
            if task is None or (family == "base" and of_type):
                continue
            of_type.append(Pair(model_type, tables[task][model_type], family, task.lower().replace("_", "-") or "base"))
        for pair in of_type:
            found.setdefault((pair.model_type, pair.class_name), pair)
    return list(found.values())


def _table(task: str) -> dict[str, str]:
    """Model type to the name of its first class."""
    name = f"MODEL_FOR_{task}_MAPPING_NAMES" if task and task != "RETRIEVAL" else "MODEL_MAPPING_NAMES"
    name = "MODEL_FOR_RETRIEVAL_MAPPING_NAMES" if task == "RETRIEVAL" else name
    mapping = getattr(modeling_auto, name, {})
    return {model_type: value if isinstance(value, str) else value[0] for model_type, value in mapping.items()}
