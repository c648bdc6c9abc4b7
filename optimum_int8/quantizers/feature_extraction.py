"""Feature extraction: a vector for a text, for search and for comparing texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import datasets
import torch
from transformers import PreTrainedModel

from ..errors import ConfigError, DataError
from ..evaluation.columns import label_column, score_labels, text_columns, texts
from .base import Quantizer
from .batching import Batch, Features, run_batches
from .inputs import length_limit, model_input_columns
from .loading import HEADLESS
from .sentence_files import read_pooling, sentence_files

POOLINGS = ("mean", "cls")

Q = TypeVar("Q", bound="FeatureExtractionQuantizer")


class FeatureExtractionQuantizer(Quantizer):
    """Quantizes models without a head (`BertModel`); the metric is Spearman's correlation on pairs with a score (STS).

    Saved INT8 folders also load with `sentence_transformers.SentenceTransformer(folder)`, after `import optimum_int8`, and give the same
    vectors there.

    Args:
        pooling: `"mean"` of the tokens, or the vector of the first one, `"cls"`.
        normalize: scale vectors to length 1. `from_pretrained` takes both from the files of Sentence Transformers, where there are some.

    Example:
        >>> quantizer = FeatureExtractionQuantizer.from_pretrained("my-encoder")  # doctest: +SKIP
        >>> quantizer.quantize(Int8Config(approach="dynamic"), save_directory="my-int8")  # doctest: +SKIP
        >>> quantizer.encode(["a text", "another one"]).shape  # doctest: +SKIP
        torch.Size([2, 384])
    """

    task = "feature-extraction"
    head = HEADLESS
    auto_class = "AutoModel"
    own_options = ("pooling", "normalize")

    def __init__(self, *arguments: Any, pooling: str = "mean", normalize: bool = True, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if pooling not in POOLINGS:
            raise ConfigError(f"pooling is {pooling!r}; expected one of {', '.join(POOLINGS)}")
        self.pooling = pooling
        self.normalize = normalize

    @classmethod
    def from_pretrained(cls: type[Q], name_or_path: str | Path, **kwargs: Any) -> Q:
        """As the other quantizers'; `pooling` and `normalize` that are not given come from the files beside the model."""
        found = {} if "pooling" in kwargs else read_pooling(name_or_path, **kwargs)
        return super().from_pretrained(name_or_path, **{**found, **kwargs})

    def extra_files(self) -> dict[str, bytes]:
        """What Sentence Transformers reads, beside the sensitivity report."""
        limit = length_limit(self.tokenizer, self.max_length, self.model.config) if self.tokenizer else self.max_length
        files = sentence_files(self.model.config.hidden_size, self.pooling, self.normalize, limit)
        return {**super().extra_files(), **files}

    @property
    def metric(self) -> str:
        """`"spearmanr"`."""
        return "spearmanr"

    def preprocess(self, dataset: datasets.Dataset) -> list[Features]:
        """All first texts, then all second ones, each alone; or the model's inputs that the dataset has."""
        if model_input_columns(self.model, dataset):
            return super().preprocess(dataset)
        names = text_columns(dataset, self.text_column)
        return self.tokenize([[text for name in names for text in texts(dataset, name)]])

    def references(self, dataset: datasets.Dataset) -> list[Any]:
        """Scores of the pairs. Raises `DataError` without two text columns and one of numbers."""
        names = text_columns(dataset, self.text_column)
        if len(names) != 2:
            raise DataError(
                f"one text column, {names[0]!r}; expected two and a score, or use similarity_to_fp32(texts)"
            )
        return score_labels(dataset, label_column(dataset, self.label_column))

    def predictions(
        self, model: PreTrainedModel, features: Sequence[Features], batch_size: int, description: str
    ) -> list[Any]:
        """Cosine of each pair: of the first half of `features` with the second."""
        vectors = self._embed(model, features, batch_size, description)
        first, second = vectors.chunk(2)
        return torch.nn.functional.cosine_similarity(first, second).tolist()

    def encode(self, inputs: str | Sequence[str], *, batch_size: int = 8, int8: bool = True) -> torch.Tensor:
        """Vectors of texts, `[texts, width]` in float32; `[width]` for one text.

        Args:
            int8: use the INT8 model; False uses the FP32 one.

        Raises:
            ConfigError: `int8` before anything was quantized.
            DataError: no texts.
        """
        items = [inputs] if isinstance(inputs, str) else list(inputs)
        if not items or not all(isinstance(item, str) for item in items):
            raise DataError(f"{len(items)} inputs given; expected at least one, all of them texts")
        model = self._require_int8() if int8 else self.model
        vectors = self._embed(model, self.tokenize([items]), batch_size, "encoding")
        return vectors[0] if isinstance(inputs, str) else vectors

    predict = encode

    def similarity_to_fp32(self, inputs: Sequence[str], *, batch_size: int = 8) -> dict[str, float]:
        """How near the INT8 vectors are to the FP32 ones: `mean` and `minimum` of their cosines over texts."""
        int8, fp32 = (self.encode(list(inputs), batch_size=batch_size, int8=choice) for choice in (True, False))
        cosines = torch.nn.functional.cosine_similarity(int8, fp32)
        return {"mean": float(cosines.mean()), "minimum": float(cosines.min())}

    def pool(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Vectors `[batch, width]` from hidden states `[batch, tokens, width]` and the mask `[batch, tokens]`."""
        if self.pooling == "cls":
            pooled = states[torch.arange(len(states)), mask.int().argmax(dim=1)]  # the first that is not padding
        else:
            weights = mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
        return torch.nn.functional.normalize(pooled, dim=-1) if self.normalize else pooled

    def _embed(
        self, model: PreTrainedModel, features: Sequence[Features], batch_size: int, description: str
    ) -> torch.Tensor:
        def forward(batch: Batch) -> Sequence[Any]:
            states = self.forward(model, batch).last_hidden_state.float()
            return list(self.pool(states, batch["attention_mask"]))

        rows = run_batches(features, self.collate, forward, batch_size=batch_size, description=description)
        return torch.stack(rows)
