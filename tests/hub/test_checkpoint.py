"""Each check of a checkpoint by itself: the message names what was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from optimum_int8.config import FORMAT_VERSION, Int8Config
from optimum_int8.errors import CheckpointError
from optimum_int8.hub import checkpoint
from optimum_int8.hub.download import check_revision
from optimum_int8.hub.guards import check_config, limit_modules

GOOD: dict[str, Any] = {
    "quant_method": "optimum_int8",
    "format_version": FORMAT_VERSION,
    "config": Int8Config().to_dict(),
    "modules": {"layer": "linear"},
    "fp32": {"head": "last layer"},
}


def test_good_metadata_passes() -> None:
    assert checkpoint.check_metadata(GOOD) == GOOD


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("quant_method", "gptq", "'gptq'"),
        ("quant_method", None, "None"),
        ("format_version", FORMAT_VERSION + 1, "upgrade optimum_int8"),
        ("format_version", 0, "format_version is 0"),
        ("format_version", True, "format_version is True"),
        ("format_version", "1", "format_version is '1'"),
        ("config", {"approach": "magic"}, "'magic'"),
        ("config", {"no_such_setting": 1}, "no_such_setting"),
        ("config", None, "config"),
        ("modules", {}, "modules"),
        ("modules", ["layer"], "modules"),
        ("modules", {"layer": "conv9d"}, "conv9d"),
        ("modules", {"layer": ["linear"]}, "linear"),
        ("fp32", {"head": 1}, "fp32"),
        ("fp32", None, "fp32"),
        ("per_token", "layer", "per_token"),
        ("per_token", ["other"], "per_token"),
        ("per_token", [["layer"]], "per_token"),
    ],
)
def test_bad_metadata(key: str, value: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        checkpoint.check_metadata({**GOOD, key: value})


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, '{"a": 1', "\x00", '{"a": ' + "9" * 5000 + "}"])
def test_bad_json(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        checkpoint.read_json(tmp_path / "config.json")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        checkpoint.read_json(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        checkpoint.weight_files(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="pickled weights are refused"):
        checkpoint.weight_files(tmp_path)


@pytest.mark.parametrize(
    "shard",
    ["../other.safetensors", "/etc/other.safetensors", "a/b.safetensors", "..\\x.safetensors", "model.bin", 3, ""],
)
def test_index_cannot_point_outside(shard: object, tmp_path: Path) -> None:
    save_file({"t": torch.zeros(1)}, tmp_path.parent / "other.safetensors")
    index = {"metadata": {}, "weight_map": {"t": shard}}
    (tmp_path / checkpoint.INDEX_NAME).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="names the shard"):
        checkpoint.weight_files(tmp_path)


@pytest.mark.parametrize(
    "index", [{}, {"weight_map": {}}, {"weight_map": {"t": "x"}}, {"weight_map": [], "metadata": {}}]
)
def test_bad_index(index: dict, tmp_path: Path) -> None:
    (tmp_path / checkpoint.INDEX_NAME).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="index"):
        checkpoint.weight_files(tmp_path)


def test_tensor_in_two_shards(tmp_path: Path) -> None:
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file in files:
        save_file({"t": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match=r"both in a\.safetensors and in b\.safetensors"):
        checkpoint.read_headers(files)


HEADERS = {
    "a.weight": checkpoint.TensorInfo(Path("m"), torch.int8, (4, 3, 1)),
    "a.weight_scale": checkpoint.TensorInfo(Path("m"), torch.float32, (4,)),
}
EXPECTED = {"a.weight": (torch.int8, (4, 3, 1)), "a.weight_scale": (torch.float32, (4,))}


def test_headers_as_expected_pass() -> None:
    checkpoint.check_headers(HEADERS, EXPECTED, {})
    tied = {**EXPECTED, "b.weight": (torch.int8, (4, 3, 1)), "b.weight_scale": (torch.float32, (4,))}
    checkpoint.check_headers(HEADERS, tied, {"b.weight": "a.weight"})


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({**EXPECTED, "b.weight": (torch.int8, (1,))}, "'b.weight' is missing"),
        ({"a.weight": EXPECTED["a.weight"]}, "'a.weight_scale' in m has no place"),
        ({**EXPECTED, "a.weight": (torch.int8, (3, 4, 1))}, r"int8 \[4, 3, 1\]; expected int8 \[3, 4, 1\]"),
        ({**EXPECTED, "a.weight_scale": (torch.float16, (4,))}, r"float32 \[4\]; expected float16 \[4\]"),
    ],
)
def test_headers_that_differ(expected: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        checkpoint.check_headers(HEADERS, expected, {})


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("a.weight_scale", torch.tensor([1.0, 0.0]), "above 0"),
        ("a.weight_scale", torch.tensor([1.0, -1.0]), "above 0"),
        ("a.input_scale", torch.tensor(float("nan")), "NaN"),
        ("a.input_scale", torch.tensor(float("inf")), "NaN or infinity"),
        ("a.input_zero_point", torch.tensor(256, dtype=torch.int32), "256"),
        ("a.input_zero_point", torch.tensor(-1, dtype=torch.int32), "-1"),
        ("a.bias", torch.tensor([float("nan")]), "NaN"),
    ],
)
def test_values_that_cannot_be(name: str, values: torch.Tensor, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        checkpoint.check_tensor(name, values)


def test_values_at_the_edge_pass() -> None:
    checkpoint.check_tensor("a.weight", torch.tensor([-128, 127], dtype=torch.int8))
    checkpoint.check_tensor("a.input_zero_point", torch.tensor([0, 255], dtype=torch.int32))
    checkpoint.check_tensor("a.weight_scale", torch.tensor([1e-30]))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float32, torch.bfloat16, torch.bool])
def test_checksum_is_crc32_of_the_bytes(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[1, 0], [0, 1]]).to(dtype)
    changed = tensor.clone()
    changed[0, 1] = 1
    assert checkpoint.checksum(tensor) != checkpoint.checksum(changed)
    assert checkpoint.checksum(tensor.T) == checkpoint.checksum(tensor.T.contiguous())
    assert checkpoint.checksum(torch.tensor([49, 50, 51, 52, 53, 54, 55, 56, 57], dtype=torch.int8)) == "cbf43926"


@pytest.mark.parametrize(
    "values",
    [
        {"hidden_size": 1 << 40},
        {"text_config": {"vocab_size": -(1 << 40)}},
        {"num_labels": 1 << 30},
        {"attn_implementation": "evil/kernel"},
        {"transformers_weights": "../x.safetensors"},
    ],
)
def test_config_that_is_refused(values: dict) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json sets"):
        check_config(values)


def test_config_that_passes() -> None:
    check_config({"hidden_size": 1 << 20, "attn_implementation": "sdpa", "text_config": {"num_labels": 2}})


def test_module_limit() -> None:
    with limit_modules(1):
        torch.nn.Sequential(*(torch.nn.Identity() for _ in range(1000)))
    with pytest.raises(CheckpointError, match="1 tensors"), limit_modules(1):
        torch.nn.Sequential(*(torch.nn.Identity() for _ in range(2000)))
    torch.nn.Sequential(*(torch.nn.Identity() for _ in range(2000)))


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/12", "int8/static", "a" * 40])
def test_revisions_that_are_fine(revision: str) -> None:
    assert check_revision(revision) == revision
