"""The token classification task: CoNLL files, tags by name and by number, words of several tokens, bad data."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertForTokenClassification, PreTrainedTokenizerFast, pipeline

from optimum_int8 import Int8Config, TokenClassificationQuantizer
from optimum_int8.errors import ConfigError, DataError
from optimum_int8.quantizers.steps.inputs import tokenize_words

from ..tiny import WORDS, make_config, make_folder, make_tokenizer

TAGS = {0: "O", 1: "B-place", 2: "I-place", 3: "B-name"}


def make_tagger() -> BertForTokenClassification:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertForTokenClassification(make_config(id2label=TAGS)).eval()


def make_rows(model: BertForTokenClassification, number: int = 24) -> dict[str, list[list[str]]]:
    """Sentences tagged by the FP32 model itself, one at a time, so that its F1 is 1. A word `a-b` has three tokens."""
    source, tokenizer = random.Random(0), make_tokenizer()
    rows: dict[str, list[list[str]]] = {"tokens": [], "ner_tags": []}
    for _ in range(number):
        words = ["-".join(source.choices(WORDS, k=source.choice((1, 1, 2)))) for _ in range(source.randint(1, 12))]
        encoded = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            found = model(**encoded).logits[0].argmax(-1).tolist()
        firsts = [encoded.word_ids().index(word) for word in range(len(words))]
        rows["tokens"].append(words)
        rows["ner_tags"].append([TAGS[found[position]] for position in firsts])
    return rows


def write_conll(path: Path, rows: dict[str, list[list[str]]]) -> Path:
    """As WNUT-17 writes it: tabs also on the empty lines, a byte order mark in the middle."""
    sentences = zip(rows["tokens"], rows["ner_tags"], strict=True)
    blocks = ["".join(f"{word}\t{tag}\n" for word, tag in zip(*pair, strict=True)) for pair in sentences]
    path.write_text("-DOCSTART- -X- O\n\n" + "\t\n".join(blocks) + "\ufeff\n")
    return path


@pytest.fixture
def quantizer() -> TokenClassificationQuantizer:
    made = TokenClassificationQuantizer(make_tagger(), make_tokenizer())
    made.quantize(Int8Config(approach="dynamic"))
    return made


@pytest.mark.slow
def test_from_a_conll_file(tmp_path: Path) -> None:
    model = make_tagger()
    model.save_pretrained(tmp_path / "fp32")
    make_tokenizer().save_pretrained(tmp_path / "fp32")
    rows = make_rows(model)
    file = write_conll(tmp_path / "train.conll", rows)
    made = TokenClassificationQuantizer.from_pretrained(tmp_path / "fp32")
    made.quantize(Int8Config(approach="static"), file, tmp_path / "int8")
    report = made.evaluate(file, batch_size=5, latency_rounds=1)
    assert (report.metric, report.fp32.value) == ("f1", 1.0)
    assert 0.5 < report.int8.value <= 1.0
    other = TokenClassificationQuantizer(make_tagger(), make_tokenizer())
    other.load_int8(tmp_path / "int8")
    assert other.evaluate(file, latency_rounds=1).int8.value == report.int8.value


def test_a_wrong_model_shows(quantizer: TokenClassificationQuantizer) -> None:
    data = datasets.Dataset.from_dict(make_rows(quantizer.model))
    wrong = make_tagger()
    with torch.no_grad():
        wrong.classifier.weight.neg_()
    quantizer.int8_model = wrong
    report = quantizer.evaluate(data, latency_rounds=1)
    assert report.fp32.value == 1.0 > report.int8.value + 0.3


@pytest.mark.slow
def test_numbers_stand_for_the_names_of_the_dataset(quantizer: TokenClassificationQuantizer) -> None:
    rows = make_rows(quantizer.model)
    names = ["B-NAME", "O", "I-place", "B-place"]  # another order, another case
    numbers = [[[name.casefold() for name in names].index(tag.casefold()) for tag in row] for row in rows["ner_tags"]]
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "labels": datasets.Sequence(datasets.ClassLabel(names=names)),
        }
    )
    data = datasets.Dataset.from_dict({"tokens": rows["tokens"], "labels": numbers}, features=features)
    assert quantizer.evaluate(data, latency_rounds=1).fp32.value == 1.0
    ours = [[list(TAGS.values()).index(tag) for tag in row] for row in rows["ner_tags"]]
    plain = datasets.Dataset.from_dict({"tokens": rows["tokens"], "tags": ours})
    assert quantizer.evaluate(plain, latency_rounds=1).fp32.value == 1.0


def test_words_beyond_the_limit_count_as_outside(quantizer: TokenClassificationQuantizer) -> None:
    quantizer.max_length = 4  # two words and the frame
    data = datasets.Dataset.from_dict({"tokens": [["word1", "word2", "word3", "word4"]]})
    (tags,) = quantizer.predictions(quantizer.model, quantizer.preprocess(data), 1, "")
    assert len(tags) == 4
    assert tags[2:] == ["O", "O"]


@pytest.mark.slow
def test_parts_of_speech_are_counted_by_word(quantizer: TokenClassificationQuantizer) -> None:
    rows = make_rows(quantizer.model)
    short = {number: tag.replace("-", "") for number, tag in TAGS.items()}
    quantizer.model.config.id2label = short
    tags = [[tag.replace("-", "") for tag in row] for row in rows["ner_tags"]]
    report = quantizer.evaluate(datasets.Dataset.from_dict({"words": rows["tokens"], "upos": tags}), latency_rounds=1)
    assert (report.metric, report.fp32.value) == ("token_accuracy", 1.0)


def test_predict_gives_what_the_pipeline_gives(quantizer: TokenClassificationQuantizer) -> None:
    texts = [" ".join(words) for words in make_rows(quantizer.model, 4)["tokens"]]
    pipe = pipeline(
        "token-classification", model=quantizer.model, tokenizer=make_tokenizer(), aggregation_strategy="simple"
    )
    assert str(quantizer.predict(texts, int8=False)) == str(pipe(texts))
    assert len(quantizer.predict(texts[0])) == 1


def test_byte_level_words_begin_with_a_space() -> None:
    vocabulary = {"<pad>": 0, "Ġ": 1, "a": 2, "b": 3}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>")
    (row,) = tokenize_words(tokenizer, [["a", "ab"]], None, make_config())
    assert row["input_ids"] == [1, 2, 1, 2, 3]
    assert (row["words"], row["word_count"]) == ([0, 0, 1, 1, 1], 2)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"sentence": ["word1"], "ner_tags": [["O"]]}, "no word column among sentence, ner_tags"),
        ({"tokens": [["word1"]]}, "no tag column among tokens"),
        ({"tokens": [["word1", "word2"]], "ner_tags": [["O"]]}, "row 1 of column 'ner_tags' has 1 tags; expected one"),
        ({"tokens": [["word1"]], "ner_tags": [["B-thing"]]}, "has the tag 'B-thing'; the model has the 4 tags O, B-pl"),
        ({"tokens": [["word1"]], "ner_tags": [[4]]}, "has the tag 4; the model has the 4 tags"),
        ({"tokens": ["word1"], "ner_tags": [["O"]]}, "is not a list of words"),
        ({"tokens": [], "ner_tags": []}, "has no rows"),
    ],
)
def test_data_that_does_not_fit(columns: dict[str, Any], message: str, quantizer: TokenClassificationQuantizer) -> None:
    with pytest.raises(DataError, match=message):
        quantizer.evaluate(datasets.Dataset.from_dict(columns))


def test_a_model_of_another_task(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a class that ends in ForTokenClassification"):
        TokenClassificationQuantizer.from_pretrained(make_folder(tmp_path))


def test_a_damaged_conll_file(tmp_path: Path, quantizer: TokenClassificationQuantizer) -> None:
    (tmp_path / "dev.conll").write_text("word1 O\nword2\n")
    with pytest.raises(DataError, match="line 2 of .* is 'word2'; expected a word and its tag"):
        quantizer.evaluate(tmp_path / "dev.conll")


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_wnut17(approach: str, shared_dir: Path, tmp_path: Path) -> None:
    made = TokenClassificationQuantizer.from_pretrained(shared_dir / "models" / "electra-minilm-wnut17")
    data = shared_dir / "data" / "wnut17"
    made.quantize(Int8Config(approach=approach), data / "wnut17train.conll", tmp_path)
    report = made.evaluate(data / "emerging.dev.conll", batch_size=16, latency_rounds=1)
    assert report.fp32.value == pytest.approx(0.5792, abs=1e-3)  # metrics.json of the model
    assert report.relative_loss is not None and report.relative_loss <= 0.01
    assert report.compression_ratio >= 3.8
