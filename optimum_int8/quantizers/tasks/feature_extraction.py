"""Feature extraction: a vector for a text, for search and for comparing texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from transformers import PreTrainedModel

from ...errors import ConfigError, DataError
from ...evaluation.columns import label_column, score_labels, text_columns, texts
from ..base import Quantizer
from ..steps.batching import Batch, Features, run_batches
from ..steps.inputs import length_limit, longest_input, model_input_columns
from ..steps.loading import HEADLESS
from ..steps.sentence_files import SentenceSettings, read_pooling, read_settings, sentence_files
from ..steps.sentence_modules import POOLINGS, pool_tokens

if TYPE_CHECKING:
    import datasets

Q = TypeVar("Q", bound="FeatureExtractionQuantizer")


class FeatureExtractionQuantizer(Quantizer):
    """Quantizes models without a head (`BertModel`); the metric is Spearman's correlation on pairs with a score (STS).

    Saved INT8 folders also load with `sentence_transformers.SentenceTransformer(folder)`, after `import optimum_int8`, and give the same
    vectors there. What else such a model consists of is kept: prompts, modules behind the pooling (`Dense`, `LayerNorm`), settings.

    Args:
        pooling: `"mean"` of the tokens, or the vector of the first one, `"cls"`; or another of `sentence_modules.POOLINGS`, or several.
        normalize: scale vectors to length 1.
        sentence: what files of Sentence Transformers say besides these two; `from_pretrained` takes all three from them, where there are some.

    Example:
        >>> quantizer = FeatureExtractionQuantizer.from_pretrained("my-encoder")  # doctest: +SKIP
        >>> quantizer.quantize(Int8Config(approach="dynamic"), save_directory="my-int8")  # doctest: +SKIP
        >>> quantizer.encode(["a text", "another one"]).shape  # doctest: +SKIP
        torch.Size([2, 384])
    """

    task = "feature-extraction"
    head = HEADLESS
    auto_class = "AutoModel"
    own_options = ("pooling", "normalize", "sentence")

    def __init__(
        self,
        *arguments: Any,
        pooling: str | Sequence[str] = "mean",
        normalize: bool = True,
        sentence: SentenceSettings | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        modes = (pooling,) if isinstance(pooling, str) else tuple(pooling)
        if not modes or not set(modes) <= set(POOLINGS):
            raise ConfigError(f"pooling is {pooling!r}; expected one of {', '.join(POOLINGS)}")
        self.pooling = pooling
        self.normalize = normalize
        self.sentence = sentence or SentenceSettings()
        if self.max_length is None and self.sentence.max_length is not None:
            limit = longest_input(self.tokenizer, self.model.config) if self.tokenizer else None
            self.max_length = min(self.sentence.max_length, limit or self.sentence.max_length)

    @classmethod
    def from_pretrained(cls: type[Q], name_or_path: str | Path, **kwargs: Any) -> Q:
        """As the other quantizers'; `pooling`, `normalize` and `sentence` that are not given come from the files next to the model.

        Raises:
            ConfigError: these files describe something that a quantizer cannot carry: a module of the model's own class, another one than
                those of `sentence_modules.STEPS` behind the pooling, a model that gives no vector per text.
        """
        found = {} if "pooling" in kwargs else read_pooling(name_or_path, **kwargs)
        if "sentence" not in kwargs:
            found["sentence"] = read_settings(name_or_path, **kwargs)
            if found["sentence"].subfolder:
                found["subfolder"] = found["sentence"].subfolder
        return super().from_pretrained(name_or_path, **{**found, **kwargs})

    def extra_files(self) -> dict[str, bytes]:
        """What Sentence Transformers reads, and the sensitivity report."""
        limit = length_limit(self.tokenizer, self.max_length, self.model.config) if self.tokenizer else self.max_length
        files = sentence_files(self.model.config.hidden_size, self.pooling, self.normalize, limit, self.sentence)
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
        return self._tokenize([text for name in names for text in texts(dataset, name)], self._prompt())

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
        vectors = self._embed(model, features, batch_size, description, self._prompt())
        first, second = vectors.chunk(2)
        return torch.nn.functional.cosine_similarity(first, second).tolist()

    def encode(
        self,
        inputs: str | Sequence[str],
        *,
        batch_size: int = 8,
        int8: bool = True,
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> torch.Tensor:
        """Vectors of texts, `[texts, width]` in float32; `[width]` for one text.

        Args:
            int8: use the INT8 model; False uses the FP32 one.
            prompt_name: the model's prompt to put in front of each text; None takes its default one, where it has one.
            prompt: such a text itself.

        Raises:
            ConfigError: `int8` before anything was quantized; a prompt that the model does not have.
            DataError: no texts.
        """
        items = [inputs] if isinstance(inputs, str) else list(inputs)
        if not items or not all(isinstance(item, str) for item in items):
            raise DataError(f"{len(items)} inputs given; expected at least one, all of them texts")
        model = self._require_int8() if int8 else self.model
        prompt = self._prompt(prompt_name) if prompt is None else prompt
        vectors = self._embed(model, self._tokenize(items, prompt), batch_size, "encoding", prompt)
        return vectors[0] if isinstance(inputs, str) else vectors

    predict = encode

    def similarity_to_fp32(self, inputs: Sequence[str], *, batch_size: int = 8) -> dict[str, float]:
        """How near the INT8 vectors are to the FP32 ones: `mean` and `minimum` of their cosines over texts."""
        int8, fp32 = (self.encode(list(inputs), batch_size=batch_size, int8=choice) for choice in (True, False))
        cosines = torch.nn.functional.cosine_similarity(int8, fp32)
        return {"mean": float(cosines.mean()), "minimum": float(cosines.min())}

    def pool(self, states: torch.Tensor, mask: torch.Tensor, skipped: int = 0) -> torch.Tensor:
        """Vectors `[batch, width]` from hidden states `[batch, tokens, width]` and the mask `[batch, tokens]`.

        Args:
            skipped: tokens at the start of each text that do not count.
        """
        modes = (self.pooling,) if isinstance(self.pooling, str) else self.pooling
        vectors = pool_tokens(states, mask, modes, skipped)
        for step in self.sentence.steps:
            vectors = step.module(vectors)
        return torch.nn.functional.normalize(vectors, dim=-1) if self.normalize else vectors

    def _prompt(self, name: str | None = None) -> str:
        """The prompt of this name, or the default one. Raises `ConfigError` for a name that the model does not have."""
        name = self.sentence.default_prompt_name if name is None else name
        if name is not None and name not in self.sentence.prompts:
            known = ", ".join(self.sentence.prompts) or "none"
            raise ConfigError(f"the model has no prompt {name!r}; it has {known}: pass prompt=... for another")
        return "" if name is None else self.sentence.prompts[name]

    def _tokenize(self, items: Sequence[str], prompt: str) -> list[Features]:
        lines = [prompt + item for item in items]
        return self.tokenize([[line.lower() for line in lines] if self.sentence.lowercase else lines])

    def _skipped(self, prompt: str) -> int:
        """Tokens of a prompt that the pooling passes over."""
        if not prompt or self.sentence.include_prompt:
            return 0
        tokens = self._tokenize([""], prompt)[0]["input_ids"]
        return len(tokens) - (tokens[-1] in self.require_tokenizer().all_special_ids)

    def _embed(
        self, model: PreTrainedModel, features: Sequence[Features], batch_size: int, description: str, prompt: str = ""
    ) -> torch.Tensor:
        skipped = self._skipped(prompt)

        def forward(batch: Batch) -> Sequence[Any]:
            states = self.forward(model, batch).last_hidden_state.float()
            return list(self.pool(states, batch["attention_mask"], skipped))

        rows = run_batches(features, self.collate, forward, batch_size=batch_size, description=description)
        return torch.stack(rows)
