"""Language modelling: how well a model knows the next token (causal) or hidden ones (masked)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import FillMaskPipeline, PreTrainedModel, TextGenerationPipeline

from ...errors import ConfigError, DataError
from ...evaluation.columns import text_columns, texts
from ..base import Quantizer
from ..steps.batching import IGNORED, Batch, Features, run_batches, without
from ..steps.inputs import check_vocabulary, length_limit, model_input_columns

if TYPE_CHECKING:
    import datasets

BLOCK = 512
"""Tokens per block of a causal model unless the user says otherwise: enough context, and small logits."""


class LanguageModelingQuantizer(Quantizer):
    """Quantizes `...ForCausalLM`, `...LMHeadModel` and `...ForMaskedLM` models; the metric is perplexity.

    Causal: texts are joined and cut into blocks of `max_length` tokens (512 by default), and every token but the first
    of a block counts. Masked: each text stands alone, and a fixed random choice of its tokens is masked and counts.

    Args:
        masked_share: share of the tokens that a masked model has to find; at least one per text.
        seed: of that choice; FP32 and INT8 always have the same.

    Example:
        >>> quantizer = LanguageModelingQuantizer.from_pretrained("my-gpt2")  # doctest: +SKIP
        >>> quantizer.quantize(Int8Config(approach="dynamic"), save_directory="my-int8")  # doctest: +SKIP
        >>> quantizer.predict("Once upon a", max_new_tokens=5)  # doctest: +SKIP
    """

    task = "language-modeling"
    head = ("ForCausalLM", "LMHeadModel", "ForMaskedLM")
    own_options = ("masked_share", "seed")
    greater_is_better = False

    def __init__(self, *arguments: Any, masked_share: float = 0.15, seed: int = 42, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if not 0 < masked_share <= 1:
            raise ConfigError(f"masked_share is {masked_share}; expected more than 0 and at most 1")
        self.masked_share = masked_share
        self.seed = seed

    @property
    def is_masked(self) -> bool:
        """Whether the model finds masked tokens, and not the next one."""
        return type(self.model).__name__.endswith("ForMaskedLM")

    @property
    def metric(self) -> str:
        """`"perplexity"`."""
        return "perplexity"

    def preprocess(self, dataset: datasets.Dataset) -> list[Features]:
        """Blocks (causal) or texts (masked), with `labels`; or the model's inputs that the dataset has."""
        if model_input_columns(self.model, dataset):
            return super().preprocess(dataset)
        names = text_columns(dataset, self.text_column)
        if len(names) != 1:
            raise DataError(f"text columns {', '.join(names)}; expected one: name it (text_column=...)")
        # Line by line files have empty ones between paragraphs.
        kept = [text for text in texts(dataset, names[0]) if text.strip()]
        features = self._masked(kept) if self.is_masked else self._blocks(kept)
        if not features:
            raise DataError(f"column {names[0]!r} holds too little text; expected at least two tokens")
        return features

    def collate(self, features: Sequence[Features]) -> Batch:
        """Padded batch of the model's inputs, without `labels`, which would make the model compute its own loss."""
        return super().collate(without(features, "labels"))

    def references(self, dataset: datasets.Dataset) -> list[Any]:
        """How many tokens of each block or text count."""
        features = self.preprocess(dataset)
        if "labels" not in features[0]:
            raise DataError("the dataset has tokens and no text; perplexity needs a column of texts")
        return [sum(label != IGNORED for label in example["labels"]) for example in features]

    def predictions(
        self, model: PreTrainedModel, features: Sequence[Features], batch_size: int, description: str
    ) -> list[Any]:
        """Summed negative log likelihood of the tokens that count, per block or text."""
        left = self.require_tokenizer().padding_side == "left"

        def collate(examples: Sequence[Features]) -> Batch:
            batch = self.collate(examples)
            rows = torch.full_like(batch["input_ids"], IGNORED)
            for row, example in zip(rows, examples, strict=True):
                length = len(example["labels"])
                row[slice(-length, None) if left else slice(length)] = torch.tensor(example["labels"])
            return {**batch, "labels": rows}

        def forward(batch: Batch) -> Sequence[Any]:
            labels = batch.pop("labels")
            logits = self.forward(model, batch).logits
            pairs = zip(logits, labels, strict=True)
            return [float(torch.nn.functional.cross_entropy(x.float(), y, reduction="sum")) for x, y in pairs]

        return run_batches(features, collate, forward, batch_size=batch_size, description=description)

    def predict(self, inputs: str | Sequence[str], *, int8: bool = True, **kwargs: Any) -> Any:
        """What `pipeline("text-generation")` or `pipeline("fill-mask")` gives for texts.

        Args:
            int8: use the INT8 model; False uses the FP32 one.
            kwargs: for the pipeline: `max_new_tokens`, `top_k`, ...

        Raises:
            ConfigError: `int8` before anything was quantized.
        """
        pipe = FillMaskPipeline if self.is_masked else TextGenerationPipeline
        model = self._require_int8() if int8 else self.model
        items = inputs if isinstance(inputs, str) else list(inputs)
        return pipe(model=model, tokenizer=self.require_tokenizer())(items, **kwargs)

    def _blocks(self, kept: list[str]) -> list[Features]:
        tokenizer = self.require_tokenizer()
        length = min(length_limit(tokenizer, self.max_length, self.model.config) or BLOCK, self.max_length or BLOCK)
        encoded = tokenizer(kept, add_special_tokens=False, return_attention_mask=False)["input_ids"] if kept else []
        tokens = [token for text in encoded for token in text]
        begin = tokenizer("a")["input_ids"][:1]
        begin = begin if begin == [tokenizer.bos_token_id] else []  # Llama wants it in front of every input
        size = length - len(begin)
        features: list[Features] = []
        for start in range(0, len(tokens), size):
            block = begin + tokens[start : start + size]
            if len(block) > 1:
                # The label of a position is the token behind it.
                features.append(
                    {"input_ids": block, "attention_mask": [1] * len(block), "labels": [*block[1:], IGNORED]}
                )
        check_vocabulary(features, self.model.config)
        return features

    def _masked(self, kept: list[str]) -> list[Features]:
        tokenizer = self.require_tokenizer()
        if tokenizer.mask_token_id is None:
            raise ConfigError(f"a {type(self.model).__name__} needs a tokenizer with a mask token; this one has none")
        special = set(tokenizer.all_special_ids)
        generator = torch.Generator().manual_seed(self.seed)
        features = []
        for example in self.tokenize([kept]) if kept else []:
            tokens = list(example["input_ids"])
            usable = [position for position, token in enumerate(tokens) if token not in special]
            if not usable:
                continue
            number = max(1, round(self.masked_share * len(usable)))
            labels = [IGNORED] * len(tokens)
            for index in torch.randperm(len(usable), generator=generator)[:number].tolist():
                position = usable[index]
                labels[position] = tokens[position]
                tokens[position] = tokenizer.mask_token_id
            features.append({**example, "input_ids": tokens, "labels": labels})
        return features
