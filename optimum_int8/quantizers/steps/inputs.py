"""From texts to model inputs: tokenizing, the length limit, padding."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokenizers import pre_tokenizers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ...errors import ConfigError, DataError
from ...evaluation.progress import progress_bar
from .batching import Features

if TYPE_CHECKING:
    import datasets

CHUNK = 1000
"""Examples tokenized at once: enough to keep the tokenizer busy, few enough for the progress bar to move."""

TARGETS = ("labels", "label", "label_ids", "start_positions", "end_positions", "next_sentence_label")
"""Arguments of a model's `forward` that are what is right, not what is given."""


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    columns: Sequence[Sequence[str]],
    max_length: int | None,
    config: PreTrainedConfig,
) -> list[Features]:
    """Token lists of single texts (one column) or pairs (two columns), not padded, with special tokens.

    Args:
        max_length: longer texts are cut to this many tokens; None takes `longest_input`.

    Raises:
        ConfigError: `max_length` is more than the model takes, or less than 1; or the tokenizer is another model's.
    """
    length = length_limit(tokenizer, max_length, config)
    features: list[Features] = []
    for start in progress_bar(range(0, len(columns[0]), CHUNK), "tokenizing"):
        chunk = [list(column[start : start + CHUNK]) for column in columns]
        encoded = tokenizer(*chunk, truncation=length is not None, max_length=length, return_attention_mask=True)
        features += [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
    check_vocabulary(features, config)
    return features


def tokenize_words(
    tokenizer: PreTrainedTokenizerBase, sentences: Sequence[list[str]], max_length: int | None, config: PreTrainedConfig
) -> list[Features]:
    """Token lists of sentences that are split into words.

    Besides the model's inputs, `words` is the word of each token (None for special ones) and `word_count` their number.

    Raises:
        ConfigError: as `tokenize`; or a tokenizer that does not tell which word a token is from.
    """
    require_fast(tokenizer)
    splitter = tokenizer.backend_tokenizer.pre_tokenizer
    # Byte-level tokenizers (RoBERTa, GPT-2) tell words apart by the space before them, and few add it themselves.
    space = " " if isinstance(splitter, pre_tokenizers.ByteLevel) and not splitter.add_prefix_space else ""
    length = length_limit(tokenizer, max_length, config)
    features: list[Features] = []
    for start in progress_bar(range(0, len(sentences), CHUNK), "tokenizing"):
        chunk = [[space + word for word in words] for words in sentences[start : start + CHUNK]]
        encoded = tokenizer(
            chunk,
            is_split_into_words=True,
            truncation=length is not None,
            max_length=length,
            return_attention_mask=True,
        )
        for row in range(len(chunk)):
            example = {name: values[row] for name, values in encoded.items()}
            features.append({**example, "words": encoded.word_ids(row), "word_count": len(chunk[row])})
    check_vocabulary(features, config)
    return features


def require_fast(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises `ConfigError` for a tokenizer that cannot trace tokens to the text."""
    if not tokenizer.is_fast:
        raise ConfigError(
            f"a {type(tokenizer).__name__} cannot tell where in the text a token is from; expected a fast tokenizer"
        )


def length_limit(tokenizer: PreTrainedTokenizerBase, max_length: int | None, config: PreTrainedConfig) -> int | None:
    """`max_length`, or the model's limit. Raises `ConfigError` when it is more than the model takes, or below 1."""
    limit = longest_input(tokenizer, config)
    if max_length is not None and not 1 <= max_length <= (limit or max_length):
        raise ConfigError(f"max_length is {max_length}; this model takes 1 to {limit or 'any number of'} tokens")
    return max_length or limit


def check_vocabulary(features: Sequence[Features], config: PreTrainedConfig) -> None:
    """Raises `ConfigError` for a token that the model does not know: the tokenizer is another model's."""
    highest = max((max(f["input_ids"], default=0) for f in features), default=0)
    if highest >= getattr(config, "vocab_size", highest + 1):
        raise ConfigError(
            f"the tokenizer gives token {highest} and the model knows {config.vocab_size}; "
            f"pass the tokenizer that belongs to the model"
        )


def longest_input(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> int | None:
    """How many tokens the model takes, or None when neither tokenizer nor model sets a limit."""
    limits = []
    if tokenizer.model_max_length < 1_000_000_000:  # Transformers stores "unknown" as 1e30
        limits.append(tokenizer.model_max_length)
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        # RoBERTa and its relatives number positions from pad_token_id + 1.
        shifted = config.model_type in ("roberta", "camembert", "xlm-roberta", "roberta-prelayernorm", "mpnet")
        limits.append(positions - (config.pad_token_id or 0) - 1 if shifted else positions)
    return min(limits, default=None)


def prepare_padding(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """Give a tokenizer without a padding token (GPT-2, Llama) its end token for it, and tell the model.

    Decoders that classify look for the last token that is not padding, by `config.pad_token_id`.

    Raises:
        ConfigError: there is no end token either.
    """
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ConfigError("the tokenizer has neither a padding nor an end token; set tokenizer.pad_token")
        tokenizer.pad_token = tokenizer.eos_token
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id
    return tokenizer


def model_input_columns(model: PreTrainedModel, dataset: datasets.Dataset) -> list[str]:
    """Columns that are arguments of `model.forward`, labels aside, if the model's main input is one; else none."""
    if model.main_input_name not in dataset.column_names:
        return []
    arguments = set(inspect.signature(model.forward).parameters) - {"labels", "label", "label_ids"}
    return [name for name in dataset.column_names if name in arguments]


def ready_examples(model: PreTrainedModel, dataset: datasets.Dataset) -> list[Features]:
    """Examples whose columns are the model's arguments already, what is right included.

    Raises:
        DataError: the dataset lacks the model's inputs or its labels.
    """
    arguments = set(inspect.signature(model.forward).parameters)
    names = [name for name in dataset.column_names if name in arguments]
    if model.main_input_name not in names or not any(name in TARGETS for name in names):
        raise DataError(
            f"training {type(model).__name__} takes the model's inputs and labels as columns; found "
            f"{', '.join(dataset.column_names)}. Tokenize the dataset first, or use Int8Trainer with a collator of your own"
        )
    return [{name: row[name] for name in names} for row in dataset]
