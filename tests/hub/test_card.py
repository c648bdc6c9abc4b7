"""The model card says what the evaluation measured, and the client's validation accepts it."""

from __future__ import annotations

import pytest
from huggingface_hub import ModelCard

from optimum_int8.config import Int8Config
from optimum_int8.errors import ConfigError
from optimum_int8.hub.card import PIPELINE_TAGS, PIPELINES, CardInfo, pipeline_tag, render_card
from tests.hub.server import Hub

CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "quantization_config": {
        "config": Int8Config(approach="static").to_dict(),
        "modules": {"a": "linear", "b": "linear", "c": "embedding"},
        "fp32": {"bert.pooler.dense": "excluded by name"},
    },
}
REPORT = {
    "metric": "accuracy",
    "fp32": {"value": 0.9, "size_mb": 400.0, "latency_ms": 50.0},
    "int8": {"value": 0.891, "size_mb": 100.0, "latency_ms": 8.0},
    "relative_loss": 0.01,
    "compression_ratio": 4.0,
    "speedup": 6.25,
    "machine": {"cpu": "Test CPU", "isa_used": "amx", "threads": 2, "torch": "2", "commit": "abc"},
}
INFO = CardInfo(
    base_model="user/bert",
    license="apache-2.0",
    language="en",
    dataset="glue",
    dataset_config="sst2",
    dataset_split="validation",
    calibration_dataset="glue sst2 train",
    calibration_samples=128,
)


def test_metadata(hub: Hub) -> None:
    card = ModelCard(render_card("me/bert-int8", CONFIG, REPORT, INFO))
    card.validate()
    data = card.data.to_dict()
    assert data["library_name"] == "optimum_int8" and data["pipeline_tag"] == "text-classification"
    assert data["base_model"] == "user/bert" and data["base_model_relation"] == "quantized"
    assert data["license"] == "apache-2.0" and data["datasets"] == ["glue"] and data["metrics"] == ["accuracy"]
    values = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert values == {"accuracy (INT8)": 0.891, "accuracy (FP32)": 0.9}
    assert data["model-index"][0]["name"] == "bert-int8"


def test_text() -> None:
    text = render_card("me/bert-int8", CONFIG, REPORT, INFO)
    for piece in (
        "| accuracy | 0.8910 | 0.9000 | 1.00% worse |",
        "| size | 100.0 MB | 400.0 MB | 4.00x smaller |",
        "| latency | 8.00 ms | 50.00 ms | 6.25x faster |",
        "on Test CPU (instruction set amx, 2 threads), with torch 2, commit abc",
        'pipeline("text-classification", "me/bert-int8")',
        "`bert.pooler.dense`: excluded by name",
        "calibration: 128 examples of glue sst2 train",
        "1 embedding, 2 linear",
        'OptimizedModel.from_pretrained("me/bert-int8")',
    ):
        assert piece in text


def test_without_a_report_nothing_is_claimed(hub: Hub) -> None:
    text = render_card("me/bert-int8", CONFIG)
    ModelCard(text).validate()
    assert "accuracy" not in text and "latency" not in text and "model-index" not in text and "base_model" not in text


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ({"relative_loss": 0.0}, "| equal |"),
        ({"relative_loss": -0.02}, "| 2.00% better |"),
        ({"relative_loss": None}, "| undefined |"),
        ({"speedup": 0.5}, "| 2.00x slower |"),
    ],
)
def test_changes_in_words(change: dict, piece: str) -> None:
    assert piece in render_card("me/x", CONFIG, {**REPORT, **change}, INFO)


def test_a_licence_of_another_name(hub: Hub) -> None:
    info = CardInfo(license="other", license_name="mine", license_link="https://example.com")
    data = ModelCard(render_card("me/x", CONFIG, None, info)).data.to_dict()
    assert (data["license"], data["license_name"]) == ("other", "mine") and data["license_link"].endswith(".com")


def test_every_task_with_a_pipeline_is_one_of_transformers() -> None:
    from transformers.pipelines import SUPPORTED_TASKS

    assert set(PIPELINES) <= set(SUPPORTED_TASKS)
    missing = set(PIPELINE_TAGS.values()) - set(PIPELINES)
    assert not missing & set(SUPPORTED_TASKS)


def test_same_input_same_card() -> None:
    assert render_card("me/x", CONFIG, REPORT, INFO) == render_card("me/x", CONFIG, REPORT, INFO)


def test_incomplete_report() -> None:
    with pytest.raises(ConfigError, match="'machine'"):
        render_card("me/x", CONFIG, {key: value for key, value in REPORT.items() if key != "machine"})


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("GPT2LMHeadModel", "text-generation"),
        ("MarianMTModel", "translation"),
        ("BertModel", "feature-extraction"),
        ("T5ForConditionalGeneration", "text2text-generation"),
        ("Strange", None),
    ],
)
def test_pipeline_tag(name: str, tag: str | None) -> None:
    assert pipeline_tag({"architectures": [name]}) == tag


SPREAD = {"fp32_ms": [49.0, 51.0], "int8_ms": [7.9, 8.1], "speedup": [6.1, 6.4], "load": 0.4}


def test_the_spread_of_a_latency() -> None:
    text = render_card("me/bert-int8", CONFIG, {**REPORT, "spread": SPREAD}, INFO)
    assert "| latency | 8.00 ms | 50.00 ms | 6.25x faster |" in text
    assert "| quartiles | 7.90 to 8.10 ms | 49.00 to 51.00 ms | 6.10 to 6.40 |" in text
    assert "at a load average of 0.4" in text


def test_a_speedup_that_was_not_measurable() -> None:
    spread = {**SPREAD, "speedup": [2.9, 41.0], "load": None}
    text = render_card("me/bert-int8", CONFIG, {**REPORT, "speedup": None, "spread": spread}, INFO)
    assert "| not measurable: the machine was busy |" in text
    assert "x faster" not in text and "load average" not in text
