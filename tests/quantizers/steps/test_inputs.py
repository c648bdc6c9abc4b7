"""Tokenizing, the length limit, padding."""

from __future__ import annotations

import datasets
import pytest
from transformers import GPT2Config, RobertaConfig, T5Config

from optimum_int8.errors import ConfigError
from optimum_int8.quantizers.steps.inputs import longest_input, model_input_columns, prepare_padding, tokenize

from ..tiny import make_config, make_model, make_tokenizer


def test_single_texts_and_pairs() -> None:
    single = tokenize(make_tokenizer(), [["word0 word1", "word2"]], None, make_config())
    assert single[0] == {"input_ids": [2, 4, 5, 3], "token_type_ids": [0] * 4, "attention_mask": [1] * 4}
    assert single[1]["input_ids"] == [2, 6, 3]
    pair = tokenize(make_tokenizer(), [["word0"], ["word1"]], None, make_config())
    assert pair == [{"input_ids": [2, 4, 3, 5, 3], "token_type_ids": [0, 0, 0, 1, 1], "attention_mask": [1] * 5}]


def test_more_than_one_chunk() -> None:
    texts = [f"word{number % 60}" for number in range(2500)]
    features = tokenize(make_tokenizer(), [texts], None, make_config())
    assert [f["input_ids"][1] for f in features] == [4 + number % 60 for number in range(2500)]


def test_cut_to_the_limit() -> None:
    text = " ".join(["word0"] * 100)
    for max_length, expected in ((None, 40), (7, 7)):
        features = tokenize(make_tokenizer(), [[text]], max_length, make_config())
        assert len(features[0]["input_ids"]) == expected
    with pytest.raises(ConfigError, match="max_length is 41; this model takes 1 to 40 tokens"):
        tokenize(make_tokenizer(), [[text]], 41, make_config())


def test_the_tokenizer_of_another_model() -> None:
    with pytest.raises(ConfigError, match="gives token 20 and the model knows 20; pass the tokenizer that belongs"):
        tokenize(make_tokenizer(), [["word0", "word16"]], None, make_config(vocab_size=20))
    assert len(tokenize(make_tokenizer(), [["word0", "word16"]], None, make_config(vocab_size=21))) == 2


def test_longest_input() -> None:
    tokenizer = make_tokenizer()
    assert longest_input(tokenizer, make_config(max_position_embeddings=30)) == 30
    tokenizer.model_max_length = int(1e30)
    assert longest_input(tokenizer, RobertaConfig(max_position_embeddings=514)) == 512
    assert longest_input(tokenizer, T5Config()) is None


def test_padding_with_the_end_token() -> None:
    tokenizer, config = make_tokenizer(), GPT2Config()
    tokenizer.pad_token = None
    with pytest.raises(ConfigError, match="neither a padding nor an end token"):
        prepare_padding(tokenizer, config)
    tokenizer.eos_token = "[SEP]"
    assert prepare_padding(tokenizer, config).pad_token == "[SEP]"
    assert config.pad_token_id == 3


def test_columns_that_are_model_inputs() -> None:
    columns = {"idx": [0], "input_ids": [[2, 3]], "attention_mask": [[1, 1]], "labels": [0], "sentence": ["x"]}
    model = make_model()
    assert model_input_columns(model, datasets.Dataset.from_dict(columns)) == ["input_ids", "attention_mask"]
    del columns["input_ids"]
    assert model_input_columns(model, datasets.Dataset.from_dict(columns)) == []
