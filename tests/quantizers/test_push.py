"""`Quantizer.push_to_hub` over the local Hub: what arrives, and what the card says about data and results."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
import torch
import yaml
from huggingface_hub import HfApi

from optimum_int8 import Int8Config, OptimizedModel
from optimum_int8.errors import CheckpointError, ConfigError
from optimum_int8.hub import CardInfo, push_folder
from optimum_int8.quantizers import TextClassificationQuantizer
from optimum_int8.quantizers.steps.provenance import DataSource, complete_data
from tests.hub.server import Hub

from .tiny import make_dataset, make_model, make_tokenizer

STATIC = Int8Config(approach="static", fuse=False)
SST2 = {"hf://datasets/nyu-mll/glue@0123abc/sst2/train-0.parquet": {"num_bytes": 1, "checksum": None}}


@pytest.fixture
def quantizer() -> TextClassificationQuantizer:
    return TextClassificationQuantizer(make_model(), make_tokenizer())


def from_hub(dataset: datasets.Dataset, split: str) -> datasets.Dataset:
    """The dataset with the description that `datasets` gives what it loads from the Hub."""
    info = datasets.DatasetInfo(features=dataset.features, config_name="sst2", download_checksums=SST2)
    return datasets.Dataset(dataset.data, info=info, split=datasets.NamedSplit(split))


def card(hub: Hub, name: str = "alice/int8") -> tuple[dict[str, Any], str]:
    """Metadata and text of the card that arrived."""
    text = hub.store.repositories[name].files()["README.md"].data.decode()
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_model_tokenizer_and_report_arrive(hub: Hub, quantizer: TextClassificationQuantizer) -> None:
    data = from_hub(make_dataset(quantizer.model, 20), "train")
    quantizer.quantize(STATIC, data.select(range(12)))
    validation = from_hub(make_dataset(quantizer.model, 6, seed=1), "validation")
    report = quantizer.evaluate(validation, latency_rounds=2)
    pushed = quantizer.push_to_hub(
        "alice/int8", private=True, commit_message="First", card_info=CardInfo(license="mit")
    )
    repository = hub.store.repositories["alice/int8"]
    assert repository.private and repository.titles[pushed.commit] == "First"
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(repository.files())
    metadata, body = card(hub)
    assert "calibration: 12 examples of nyu-mll/glue sst2 train" in body
    assert "## INT8 next to FP32 on nyu-mll/glue sst2 validation" in body
    assert metadata["datasets"] == ["nyu-mll/glue"] and metadata["license"] == "mit"
    (result,) = metadata["model-index"][0]["results"]
    assert result["dataset"] == {
        "name": "nyu-mll/glue",
        "type": "nyu-mll/glue",
        "config": "sst2",
        "split": "validation",
    }
    assert [metric["value"] for metric in result["metrics"]] == [report.int8.value, report.fp32.value]

    inputs = make_tokenizer()("word1 word2", return_tensors="pt")
    with torch.no_grad():
        loaded = OptimizedModel.from_pretrained("alice/int8")(**inputs).logits
        assert torch.equal(loaded, quantizer.int8_model(**inputs).logits)


def test_a_new_int8_model_makes_no_claim_of_the_old_one(
    hub: Hub, quantizer: TextClassificationQuantizer, tmp_path: Any
) -> None:
    data = make_dataset(quantizer.model, 6)
    quantizer.quantize(STATIC, data, tmp_path / "int8")
    quantizer.evaluate(data, latency_rounds=2)
    assert quantizer.report is not None
    quantizer.quantize(STATIC, data.select(range(4)))
    assert quantizer.report is None
    quantizer.push_to_hub("alice/int8")
    metadata, body = card(hub)
    assert "calibration: 4 examples of unnamed data" in body and "INT8 next to FP32" not in body
    assert "model-index" not in metadata and "datasets" not in metadata
    quantizer.load_int8(tmp_path / "int8")
    quantizer.push_to_hub("alice/loaded")
    assert "calibration: data not recorded" in card(hub, "alice/loaded")[1]


def named(quantizer: TextClassificationQuantizer, name: str) -> None:
    """As if the FP32 model had been loaded from this repository."""
    quantizer.model.name_or_path = quantizer.model.config.name_or_path = name


def test_base_model_is_the_fp32_one(hub: Hub, quantizer: TextClassificationQuantizer) -> None:
    quantizer.quantize(STATIC, make_dataset(quantizer.model, 4))
    named(quantizer, "runs/gone")  # a folder that was there once, no repository
    quantizer.push_to_hub("alice/int8")
    assert "base_model" not in card(hub)[0]
    HfApi().create_repo("alice/base")
    quantizer.load_int8("alice/int8")
    named(quantizer, "alice/base")
    quantizer.push_to_hub("alice/again")
    OptimizedModel.push_to_hub(OptimizedModel.from_pretrained("alice/again"), "alice/third")
    for name in ("alice/again", "alice/third"):
        metadata = card(hub, name)[0]
        assert metadata["base_model"] == "alice/base" and metadata["base_model_relation"] == "quantized"


def test_a_saved_checkpoint_is_pushed_with_its_evaluation(
    hub: Hub, quantizer: TextClassificationQuantizer, tmp_path: Any
) -> None:
    api = HfApi()
    api.create_repo("alice/base")
    api.upload_file(path_or_fileobj=b"---\nlicense: mit\n---\n", path_in_repo="README.md", repo_id="alice/base")
    named(quantizer, "alice/base")
    data = from_hub(make_dataset(quantizer.model, 8), "train")
    quantizer.quantize(STATIC, data.select(range(5)), tmp_path / "int8")
    push_folder(tmp_path / "int8", "alice/int8")
    assert "INT8 next to FP32" not in card(hub)[1] and card(hub)[0]["license"] == "mit"
    report = quantizer.evaluate(from_hub(make_dataset(quantizer.model, 6, seed=1), "validation"), latency_rounds=2)
    push_folder(tmp_path / "int8", "alice/int8")
    metadata, body = card(hub)
    assert metadata["base_model"] == "alice/base" and metadata["license"] == "mit"
    assert "calibration: 5 examples of nyu-mll/glue sst2 train" in body
    assert "## INT8 next to FP32 on nyu-mll/glue sst2 validation" in body and 'from_pretrained("alice/int8")' in body
    values = [metric["value"] for metric in metadata["model-index"][0]["results"][0]["metrics"]]
    assert values == [report.int8.value, report.fp32.value]
    quantizer.load_int8(tmp_path / "int8")
    quantizer.evaluate(from_hub(make_dataset(quantizer.model, 4), "test"), latency_rounds=2)
    push_folder(tmp_path / "int8", "alice/int8")
    assert "on nyu-mll/glue sst2 test" in card(hub)[1] and "calibration: 5 examples" in card(hub)[1]
    quantizer.quantize(STATIC, data.select(range(4)), tmp_path / "int8")
    push_folder(tmp_path / "int8", "alice/int8")
    assert "calibration: 4 examples" in card(hub)[1] and "INT8 next to FP32" not in card(hub)[1]
    (tmp_path / "int8" / "int8_card.json").write_text('{"info": {"run": 1}, "evaluation": null}')
    with pytest.raises(CheckpointError, match="int8_card.json is damaged"):
        push_folder(tmp_path / "int8", "alice/int8")


def test_pull_request_and_branch(hub: Hub, quantizer: TextClassificationQuantizer) -> None:
    quantizer.quantize(Int8Config(fuse=False))
    HfApi().create_repo("alice/int8")
    with pytest.raises(CheckpointError, match="no right"):
        quantizer.push_to_hub("alice/int8", token="hf_bob")
    pushed = quantizer.push_to_hub("alice/int8", token="hf_bob", create_pr=True)
    assert pushed.pull_request == f"{hub.url}/alice/int8/discussions/1"
    quantizer.push_to_hub("alice/int8", revision="v1")
    files = hub.store.repositories["alice/int8"].files
    assert "config.json" in files("v1") and "config.json" not in files("main")


def test_nothing_to_push(hub: Hub, quantizer: TextClassificationQuantizer) -> None:
    with pytest.raises(ConfigError, match="no INT8 model yet"):
        quantizer.push_to_hub("alice/int8")
    assert hub.log == []


def test_data_source(quantizer: TextClassificationQuantizer) -> None:
    plain = make_dataset(quantizer.model, 4)
    assert DataSource.of(plain) == DataSource(None, None, None, 4)
    loaded = from_hub(plain, "train").select(range(3)).map(lambda row: {"n": 1})
    assert DataSource.of(loaded) == DataSource("nyu-mll/glue", "sst2", "train", 3)
    mixed = from_hub(plain, "train")
    mixed.info.download_checksums = {**SST2, "hf://datasets/other/data@1/x.csv": {}}
    assert DataSource.of(mixed).name is None
    told = CardInfo(calibration_dataset="mine", dataset="theirs", dataset_split="test")
    assert complete_data(told, DataSource.of(loaded), DataSource.of(loaded)) == told
