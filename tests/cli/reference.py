"""For each recipe of tasks/ a small random model of its architecture, and data in the columns that its dataset has on the Hub."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value
from PIL import Image

from tests import zoo
from tests.quantizers.tasks import test_object_detection as detection
from tests.quantizers.tasks.test_text_to_text import make_tokenizer as make_generating_tokenizer
from tests.quantizers.tiny import make_sentences, make_tokenizer

TAGS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
CPPE5 = ["Coverall", "Face_Shield", "Gloves", "Goggles", "Mask"]
MRPC = ["not_equivalent", "equivalent"]

MODELS: dict[str, tuple[str, str, list[str] | None]] = {
    "albert-base-v2-sst2-static": ("albert", "ForSequenceClassification", ["negative", "positive"]),
    "bart-large-mrpc-dynamic": ("bart", "ForSequenceClassification", MRPC),
    "bert-base-mrpc-dynamic": ("bert", "ForSequenceClassification", MRPC),
    "bert-base-mrpc-qat": ("bert", "ForSequenceClassification", MRPC),
    "bert-base-mrpc-static": ("bert", "ForSequenceClassification", MRPC),
    "bert-base-swag-static": ("bert", "ForMultipleChoice", None),
    "bert-base-wikitext2-static": ("bert", "ForMaskedLM", None),
    "camembert-base-mrpc-dynamic": ("camembert", "ForSequenceClassification", MRPC),
    "detr-resnet50-cppe5-static": ("detr", "ForObjectDetection", CPPE5),
    "distilbart-cnn-dynamic": ("bart", "ForConditionalGeneration", None),
    "distilbert-conll03-static": ("distilbert", "ForTokenClassification", TAGS),
    "distilbert-squad-static": ("distilbert", "ForQuestionAnswering", None),
    "distilbert-sst2-static": ("distilbert", "ForSequenceClassification", ["NEGATIVE", "POSITIVE"]),
    "electra-small-mrpc-static": ("electra", "ForSequenceClassification", MRPC),
    "gpt2-wikitext2-dynamic": ("gpt2", "LMHeadModel", None),
    "marian-en-ro-dynamic": ("marian", "MTModel", None),
    "minilm-l6-stsb-dynamic": ("bert", "Model", None),
    "pegasus-xsum-dynamic": ("pegasus", "ForConditionalGeneration", None),
    "roberta-base-mrpc-static": ("roberta", "ForSequenceClassification", MRPC),
    "roberta-base-squad2-dynamic": ("roberta", "ForQuestionAnswering", None),
    "t5-small-cnn-dynamic": ("t5", "ForConditionalGeneration", None),
    "vit-base-beans-static": ("vit", "ForImageClassification", ["angular_leaf_spot", "bean_rust", "healthy"]),
    "xlnet-base-mrpc-static": ("xlnet", "ForSequenceClassification", MRPC),
}
"""Recipe to an architecture of `zoo`, the head of its class, and what its classes are called."""

GENERATING = ("ForConditionalGeneration", "MTModel")
WITH_TOKEN_TYPES = ("bert", "albert", "electra", "xlnet")


def save_model(recipe: str, folder: Path) -> None:
    """The FP32 model of a recipe and its tokenizer or image processor."""
    name, head, labels = MODELS[recipe]
    if name == "detr":
        model = detection.make_model(name, dict(enumerate(labels or [])))
        model.save_pretrained(folder)
        return detection.make_processor(name).save_pretrained(folder)
    base, values = zoo.ZOO[name]
    config_class = getattr(transformers, base).config_class
    model_class = getattr(transformers, config_class.__name__.removesuffix("Config") + head)
    generating = head in GENERATING
    tokens = {"pad_token_id": 0, "eos_token_id": 1 if generating else 3, "bos_token_id": None if generating else 2}
    own = {"vocab_size": 63 if generating else 64, **tokens} if name != "vit" else {}
    if labels:
        own |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config_class(**{**values, "num_labels": len(labels or "01"), **own})).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    if generating:  # a random model seldom ends a text
        model.generation_config.max_length = 8
    model.save_pretrained(folder)
    _processor(name, head).save_pretrained(folder)


def _processor(name: str, head: str) -> Any:
    if name == "vit":
        return transformers.ViTImageProcessorPil(size={"height": 16, "width": 16})
    if head in GENERATING:
        return make_generating_tokenizer()
    tokenizer = make_tokenizer()
    if head == "ForMaskedLM":
        tokenizer.mask_token = "[UNK]"
    if name not in WITH_TOKEN_TYPES:
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def save_data(dataset: str, config: str | None, folder: Path) -> None:
    """A small copy of a dataset of the Hub: its splits, columns and types."""
    splits = {}
    for seed, split in enumerate(("train", "validation", "test")):
        splits[split] = DATASETS[f"{dataset}/{config}" if config else dataset](random.Random(seed), 8)
    DatasetDict(splits).save_to_disk(folder)


def _texts(source: random.Random, number: int) -> list[str]:
    return make_sentences(number, source.randint(0, 10**6))


def _labelled(source: random.Random, number: int, texts: tuple[str, ...], labels: list[str]) -> Dataset:
    columns: dict[str, Any] = {name: _texts(source, number) for name in texts}
    columns |= {"label": [row % len(labels) for row in range(number)], "idx": list(range(number))}
    return Dataset.from_dict(columns).cast_column("label", ClassLabel(names=labels))


def _conll(source: random.Random, number: int) -> Dataset:
    rows = [text.split() for text in _texts(source, number)]
    tags = [[source.randrange(len(TAGS)) for _ in words] for words in rows]
    types = Features({"tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=TAGS))})
    return Dataset.from_dict({"tokens": rows, "ner_tags": tags}, features=types)


def _squad(source: random.Random, number: int, lacking: bool) -> Dataset:
    contexts = [" ".join(_texts(source, 12)) for _ in range(number)]
    answers = [
        {"text": [], "answer_start": []}
        if lacking and row % 4 == 0
        else {"text": [context.split()[0]], "answer_start": [0]}
        for row, context in enumerate(contexts)
    ]
    questions = [text[:20] for text in _texts(source, number)]
    names = [str(row) for row in range(number)]
    return Dataset.from_dict(
        {"id": names, "title": names, "context": contexts, "question": questions, "answers": answers}
    )


def _swag(source: random.Random, number: int) -> Dataset:
    names = ("video-id", "startphrase", "sent1", "sent2", "gold-source", *(f"ending{choice}" for choice in range(4)))
    columns: dict[str, Any] = {name: [text[:20] for text in _texts(source, number)] for name in names}
    columns |= {"fold-ind": ["0"] * number, "label": [row % 4 for row in range(number)]}
    return Dataset.from_dict(columns).cast_column("label", ClassLabel(names=["0", "1", "2", "3"]))


def _pairs(source: random.Random, number: int, text: str, target: str) -> Dataset:
    return Dataset.from_dict({text: _texts(source, number), target: _texts(source, number), "id": ["x"] * number})


def _wmt(source: random.Random, number: int) -> Dataset:
    pairs = zip(_texts(source, number), _texts(source, number), strict=True)
    return Dataset.from_dict({"translation": [{"ro": right, "en": left} for left, right in pairs]})


def _stsb(source: random.Random, number: int) -> Dataset:
    scores = [source.random() for _ in range(number)]
    return Dataset.from_dict(
        {"sentence1": _texts(source, number), "sentence2": _texts(source, number), "score": scores}
    )


def _wikitext(source: random.Random, number: int) -> Dataset:
    return Dataset.from_dict({"text": ["", *(f" {text} \n" for text in _texts(source, number)), ""]})


def _beans(source: random.Random, number: int) -> Dataset:
    images = [Image.new("RGB", (20, 20), tuple(source.randrange(256) for _ in range(3))) for _ in range(number)]
    columns = {"image_file_path": ["x.jpg"] * number, "image": images, "labels": [row % 3 for row in range(number)]}
    types = {"image_file_path": Value("string"), "image": datasets.Image()}
    labels = ClassLabel(names=["angular_leaf_spot", "bean_rust", "healthy"])
    return Dataset.from_dict(columns, features=Features({**types, "labels": labels}))


def _cppe5(source: random.Random, number: int) -> Dataset:
    images = [Image.new("RGB", (60, 40), tuple(source.randrange(256) for _ in range(3))) for _ in range(number)]
    objects = [
        {"id": [0], "area": [50], "bbox": [[5.0, 5.0, 10.0, 5.0]], "category": [row % 5]} for row in range(number)
    ]
    feature = {"id": Sequence(Value("int64")), "area": Sequence(Value("int64"))}
    feature |= {"bbox": Sequence(Sequence(Value("float32"), 4)), "category": Sequence(ClassLabel(names=CPPE5))}
    columns = {"image_id": list(range(number)), "image": images, "width": [60] * number, "height": [40] * number}
    whole = {name: Value("int64") for name in ("image_id", "width", "height")}
    types = Features({**whole, "image": datasets.Image(), "objects": feature})
    return Dataset.from_dict({**columns, "objects": objects}, features=types)


DATASETS: dict[str, Any] = {
    "nyu-mll/glue/sst2": lambda s, n: _labelled(s, n, ("sentence",), ["negative", "positive"]),
    "nyu-mll/glue/mrpc": lambda s, n: _labelled(s, n, ("sentence1", "sentence2"), MRPC),
    "lhoestq/conll2003": _conll,
    "rajpurkar/squad": lambda s, n: _squad(s, n, lacking=False),
    "rajpurkar/squad_v2": lambda s, n: _squad(s, n, lacking=True),
    "allenai/swag/regular": _swag,
    "abisee/cnn_dailymail/3.0.0": lambda s, n: _pairs(s, n, "article", "highlights"),
    "EdinburghNLP/xsum": lambda s, n: _pairs(s, n, "document", "summary"),
    "wmt/wmt16/ro-en": _wmt,
    "sentence-transformers/stsb": _stsb,
    "Salesforce/wikitext/wikitext-2-raw-v1": _wikitext,
    "AI-Lab-Makerere/beans": _beans,
    "cppe-5": _cppe5,
}
"""Dataset (and configuration) of the Hub to a maker of `n` rows."""
