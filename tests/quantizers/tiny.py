"""A tiny random classifier, its tokenizer and its sentences, made on the spot."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import datasets
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

WORDS = [f"word{number}" for number in range(60)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, in BERT's frame."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=40, model_input_names=inputs, **names)


def make_config(**changes: Any) -> BertConfig:
    """BERT, 2 layers, 32 wide, with the classes NEGATIVE and POSITIVE."""
    values: dict[str, Any] = {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 40,
        "id2label": {0: "NEGATIVE", 1: "POSITIVE"},
        "initializer_range": 0.3,  # the default leaves logits so close that rounding decides
    }
    return BertConfig(**{**values, **changes})


def make_model(**changes: Any) -> BertForSequenceClassification:
    """A random classifier, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertForSequenceClassification(make_config(**changes)).eval()


def make_folder(path: Path, **changes: Any) -> Path:
    """The classifier and its tokenizer, saved."""
    make_model(**changes).save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


def make_sentences(number: int, seed: int = 0) -> list[str]:
    """Sentences of 1 to 20 words."""
    source = random.Random(seed)
    return [" ".join(source.choices(WORDS, k=source.randint(1, 20))) for _ in range(number)]


def own_labels(model: BertForSequenceClassification, sentences: list[str]) -> list[int]:
    """What the FP32 model answers, one sentence at a time without padding."""
    tokenizer = make_tokenizer()
    with torch.no_grad():
        return [int(model(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text in sentences]


def make_dataset(model: BertForSequenceClassification, number: int = 24, seed: int = 0) -> datasets.Dataset:
    """Sentences labelled by the FP32 model itself, so that its accuracy is 1."""
    sentences = make_sentences(number, seed)
    return datasets.Dataset.from_dict({"sentence": sentences, "label": own_labels(model, sentences)})
