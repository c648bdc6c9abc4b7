"""Summarization and translation: columns, references, calibration on targets, generated texts."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from optimum_int8 import ConfigError, DataError, Int8Config, SummarizationQuantizer, TranslationQuantizer
from optimum_int8.evaluation import load_metric
from optimum_int8.quantizers import Quantizer, quantizer_for
from tests.quantizers.tiny import make_config

WORDS = [f"word{number}" for number in range(60)]
SHORT = {"max_new_tokens": 6}


def make_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: number for number, token in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=24, model_input_names=inputs, **names)


def make_marian() -> MarianMTModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
        heads = {
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "max_position_embeddings": 32,
            "init_std": 0.3,
        }
        tokens = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "forced_eos_token_id": None}
        return MarianMTModel(MarianConfig(vocab_size=63, **sizes, **heads, **tokens)).eval()


def make_t5(**changes: Any) -> T5ForConditionalGeneration:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"vocab_size": 63, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
        return T5ForConditionalGeneration(
            T5Config(**sizes, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, **changes)
        ).eval()


def rows(number: int = 6) -> datasets.Dataset:
    sources = [" ".join(WORDS[i : i + 4 + i % 3]) for i in range(number)]
    return datasets.Dataset.from_dict({"en": sources, "de": [" ".join(WORDS[i + 9 : i + 12]) for i in range(number)]})


def translator(**options: Any) -> TranslationQuantizer:
    given = {"text_column": "en", "label_column": "de", **SHORT, **options}
    return TranslationQuantizer(make_marian(), make_tokenizer(), **given)


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["dynamic", "static"])
def test_translates_evaluates_and_saves(approach: str, tmp_path: Path) -> None:
    quantizer = translator()
    data = rows()
    quantizer.quantize(
        Int8Config(approach=approach, fuse=False), data if approach == "static" else None, tmp_path / "m", 4
    )
    found = quantizer.predict(data["en"], batch_size=3)
    assert [set(item) for item in found] == [{"translation_text"}] * len(data)
    assert found[1] == quantizer.predict(data["en"][1])[0]
    # the FP32 model's own texts as references: its BLEU is then 100
    own = [item["translation_text"] for item in quantizer.predict(data["en"], int8=False)]
    data = data.remove_columns("de").add_column("de", own)
    report = quantizer.evaluate(data, latency_rounds=1)
    assert report.metric == "sacrebleu" and report.fp32.value == pytest.approx(100.0)
    again = translator()
    again.load_int8(tmp_path / "m")
    assert again.predict(list(data["en"])) == found


def test_targets_teach_the_decoder_and_their_padding_does_not() -> None:
    quantizer = translator()
    (batch,) = quantizer.calibration_batches(rows(3), 4)
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    tokenizer = make_tokenizer()
    texts = [tokenizer.decode([t for t in row if t >= 0], skip_special_tokens=True) for row in batch["labels"].tolist()]
    assert sorted(texts) == sorted(rows(3)["de"])
    longer = datasets.Dataset.from_dict({"en": ["word1", "word2"], "de": ["word3", "word4 word5 word6"]})
    (batch,) = quantizer.calibration_batches(longer, 4)
    assert sorted(batch["labels"].eq(-100).sum(1).tolist()) == [0, 2]


def test_without_targets_the_models_own_texts_teach_it() -> None:
    quantizer = translator(label_column=None)
    (batch,) = quantizer.calibration_batches(rows(3).remove_columns("de"), 4)
    assert {"decoder_input_ids", "decoder_attention_mask"} <= set(batch)
    quantizer.quantize(Int8Config(approach="static", fuse=False), rows(3).remove_columns("de"))
    assert "never reached" not in str(quantizer.int8_model.config.quantization_config["fp32"])


def test_the_hubs_translation_column() -> None:
    nested = datasets.Dataset.from_dict({"translation": [{"en": r["en"], "de": r["de"]} for r in rows()]})
    quantizer = translator()
    assert quantizer.references(nested) == [[text] for text in rows()["de"]]
    assert quantizer.preprocess(nested) == quantizer.preprocess(rows())
    with pytest.raises(DataError, match="languages en, de; pass text_column"):
        translator(text_column=None, label_column=None).preprocess(nested)


def test_a_models_own_settings_for_the_task_are_the_pipelines() -> None:
    own = {"prefix": "word7 ", "num_beams": 2, "min_length": 3, "max_length": 9, "vocabulary": "ignored"}
    model = make_t5(task_specific_params={"summarization": own, "translation_en_to_de": {**own, "prefix": "word8 "}})
    summarizer = SummarizationQuantizer(model, make_tokenizer())
    assert summarizer.generation == {"num_beams": 2, "min_length": 3, "max_length": 9}
    inputs = make_tokenizer()("word7 word1 word2", return_tensors="pt")
    tokens = model.generate(**inputs, num_beams=2, min_length=3, max_length=9)
    expected = make_tokenizer().decode(tokens[0], skip_special_tokens=True)
    assert summarizer.predict("word1 word2", int8=False) == [{"summary_text": expected.strip()}]
    assert SummarizationQuantizer(model, make_tokenizer(), **SHORT).generation == {
        **SHORT,
        "num_beams": 2,
        "min_length": 3,
    }
    named = TranslationQuantizer(model, make_tokenizer(), text_column="en", label_column="de")
    assert named.prefix == "word8 " and named.generation["max_length"] == 9
    other = TranslationQuantizer(model, make_tokenizer(), text_column="en", label_column="fr")
    assert other.prefix == "" and other.generation == {"max_new_tokens": 128}


def test_the_models_own_length() -> None:
    model = make_marian()
    model.generation_config.max_length = 20
    quantizer = TranslationQuantizer(model, make_tokenizer())
    assert quantizer.generation == {}
    (batch,) = TranslationQuantizer(model, make_tokenizer(), text_column="en").calibration_batches(
        rows(3).remove_columns("de"), 4
    )
    assert "decoder_input_ids" in batch


def test_languages_of_a_model_that_knows_several() -> None:
    tokenizer = make_tokenizer()
    tokenizer.src_lang = tokenizer.tgt_lang = None
    quantizer = TranslationQuantizer(make_marian(), tokenizer, src_lang="word3", tgt_lang="word4", **SHORT)
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("word3", "word4")
    assert quantizer.generation["forced_bos_token_id"] == tokenizer.get_vocab()["word4"]
    assert quantizer.predict("word1", int8=False)[0]["translation_text"].startswith("word4")
    with pytest.raises(ConfigError, match="tgt_lang is 'klingon', which is no language of the tokenizer"):
        TranslationQuantizer(make_marian(), tokenizer, tgt_lang="klingon")
    with pytest.raises(ConfigError, match="has no languages; leave it out"):
        TranslationQuantizer(make_marian(), make_tokenizer(), src_lang="word3")


def test_summaries_have_several_references_and_a_prefix() -> None:
    model = make_t5(task_specific_params={"summarization": {"prefix": "word7 "}})
    quantizer = SummarizationQuantizer(model, make_tokenizer(), **SHORT)
    data = datasets.Dataset.from_dict(
        {"dialogue": ["word1 word2", "word3"], "summary": [["word1", "word2"], ["word3"]]}
    )
    assert quantizer.references(data) == [["word1", "word2"], ["word3"]]
    features = quantizer.preprocess(data)
    assert make_tokenizer().decode(features[0]["input_ids"]).startswith("word7 word1")
    quantizer.quantize(Int8Config(fuse=False))
    assert set(quantizer.predict("word4 word5")[0]) == {"summary_text"}
    assert 0 <= quantizer.evaluate(data, latency_rounds=1).int8.value <= 1


def test_metrics_agree_with_their_libraries() -> None:
    bleu = load_metric("sacrebleu").compute(
        predictions=["a b c d e", "f g h i"], references=[["a b c d e"], ["x", "f g h i"]]
    )
    assert bleu["sacrebleu"] == pytest.approx(100.0)
    rouge = load_metric("rouge").compute(predictions=["the cat sat"], references=[["dogs", "the cat sat down"]])
    assert rouge["rougeL"] == pytest.approx(2 * 3 / 7)
    assert rouge["rouge2"] == pytest.approx(2 * 2 / 5)


@pytest.mark.parametrize(("metric", "module"), [("sacrebleu", "sacrebleu"), ("rouge", "rouge_score")])
def test_a_missing_metric_package_is_one_clear_error(metric: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"not installed: pip install 'optimum-int8\[generation\]'"):
        load_metric(metric).compute(predictions=["a"], references=[["a"]])


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (
            {"a": ["x"], "b": ["y"], "c": ["z"]},
            {"text_column": None, "label_column": None},
            "cannot tell sources and targets",
        ),
        ({"en": ["x"]}, {}, "no label column 'de'"),
        ({"de": ["x"]}, {}, "no text column 'en'"),
        ({"en": ["x"], "de": [None]}, {}, "row 1 of column 'de'"),
        ({"en": [1], "de": ["y"]}, {}, "column 'en' holds '1'"),
        ({"en": [], "de": []}, {}, "no rows"),
    ],
)
def test_wrong_data_is_one_clear_error(data: dict[str, list[Any]], options: dict[str, Any], message: str) -> None:
    quantizer = translator(**options)
    quantizer.quantize(Int8Config(fuse=False))
    with pytest.raises(DataError, match=message):
        quantizer.evaluate(datasets.Dataset.from_dict(data))


def test_wrong_use_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_new_tokens is 0"):
        translator(max_new_tokens=0)
    with pytest.raises(ConfigError, match="max_new_tokens is 33; expected at least 1, and at most the 32 that"):
        translator(max_new_tokens=33)
    with pytest.raises(ConfigError, match="max_new_tokens is 40; expected"):
        translator().predict("word1", max_new_tokens=40, int8=False)
    assert translator(max_new_tokens=None).generation == {"max_new_tokens": 32}
    assert SummarizationQuantizer(make_t5(), make_tokenizer()).generation == {"max_new_tokens": 128}
    with pytest.raises(ConfigError, match="no INT8 model yet"):
        translator().predict("word1")
    for nothing in ([], [" "]):
        with pytest.raises(DataError, match="expected at least one text"):
            translator().predict(nothing, int8=False)
    make_marian().save_pretrained(tmp_path / "marian")
    with pytest.raises(ConfigError, match="MarianMTModel; expected a class that ends in"):
        SummarizationQuantizer.from_pretrained(tmp_path / "marian")


def test_is_found_by_task_and_by_class() -> None:
    assert quantizer_for(make_marian().config, "translation") is TranslationQuantizer
    marian, t5 = make_marian().config, make_t5().config
    marian.architectures, t5.architectures = ["MarianMTModel"], ["T5ForConditionalGeneration"]
    assert quantizer_for(marian) is TranslationQuantizer
    assert quantizer_for(t5) is SummarizationQuantizer
    assert issubclass(quantizer_for(make_config()), Quantizer)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("approach", ["dynamic", "static"])
def test_bleu_on_multi30k(shared_dir: Path, approach: str) -> None:
    """On a few sentences BLEU moves by chance, so the bound is wide; the whole test set is measured by the benchmark."""

    def read(split: str, number: int) -> datasets.Dataset:
        folder = shared_dir / "data" / "multi30k"
        lines = {
            c: gzip.decompress((folder / f"{split}.{c}.gz").read_bytes()).decode("utf-8").splitlines()
            for c in ("en", "de")
        }
        return datasets.Dataset.from_dict({c: texts[:number] for c, texts in lines.items()})

    quantizer = TranslationQuantizer.from_pretrained(
        shared_dir / "models" / "marian-small-multi30k-en-de", text_column="en", label_column="de"
    )
    quantizer.quantize(Int8Config(approach=approach), read("train", 64) if approach == "static" else None)
    report = quantizer.evaluate(read("test_2016_flickr", 60), batch_size=30, latency_rounds=1)
    assert report.fp32.value > 25
    assert report.int8.value > 0.95 * report.fp32.value
