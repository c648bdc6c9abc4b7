"""XLNet's and DeBERTa's attention, unpacked into sites: same function, every way to call it, saved and loaded to the bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from optimum_int8 import CheckpointError, Int8Config, OptimizedModel, quantize
from optimum_int8.nn import Int8Attention, Int8Linear, Int8Scores
from optimum_int8.nn.families import unpack_relative, unpacked
from optimum_int8.quantization import prepare_copy
from optimum_int8.training import convert_qat, prepare_qat
from optimum_int8.tuning.sensitivity import measure_sensitivity
from tests import zoo

NAMES = ("xlnet", "deberta-v2")
SITES = {
    "xlnet": {"linear": ["q.linear", "k.linear", "v.linear", "r.linear", "o.linear"], "scores": ["positions"]},
    "deberta-v2": {
        "linear": ["query_proj", "key_proj", "value_proj"],
        "scores": ["content_to_position", "position_to_content"],
    },
}


def data(model: Any) -> list[dict[str, Tensor]]:
    return [zoo.inputs(model, 4, 12, seed) for seed in (2, 3)]


def made(name: str, approach: str, **settings: Any) -> tuple[Any, Any]:
    model = zoo.make(name)
    batches = None if approach == "dynamic" else data(model)
    return model, quantize(model, Int8Config(approach=approach, fuse=False, **settings), batches, progress=False)


def token_types(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    types = torch.zeros_like(batch["input_ids"])
    types[:, 5:] = 1
    return {**batch, "token_type_ids": types}


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_unpacking_changes_nothing(name: str) -> None:
    model = zoo.make(name)
    plain = copy.deepcopy(model)
    assert unpack_relative(model) is model and len(unpacked(model)) == 2
    assert all(isinstance(m, type(plain.get_submodule(n))) for n, m in model.named_modules() if n in unpacked(model))
    for batch in (zoo.inputs(model), token_types(zoo.inputs(model, 3, 11)), zoo.inputs(model, 1, 1)):
        torch.testing.assert_close(model(**batch).logits, plain(**batch).logits, rtol=1e-5, atol=1e-6)
    batch = zoo.inputs(model)
    for x, y in zip(*(m(**batch, output_attentions=True).attentions for m in (model, plain)), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)
    again = copy.deepcopy(model)
    assert torch.equal(again(**batch).logits, model(**batch).logits)


@torch.no_grad()
def test_xlnets_memory_and_second_stream() -> None:
    model = zoo.make("xlnet").transformer
    plain = copy.deepcopy(model)
    unpack_relative(model)
    ids = zoo.inputs(model)["input_ids"]
    permutation = torch.zeros(2, 9, 9)
    permutation[:, :, -1] = 1.0
    target = torch.zeros(2, 1, 9)
    target[:, 0, -1] = 1.0
    for inputs in (
        {"perm_mask": permutation, "target_mapping": target},
        {"mems": plain(ids, use_mems=True, mem_len=4).mems},
    ):
        found, expected = (m(ids, **inputs)[0] for m in (model, plain))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("approach", ["static", "dynamic"])
@pytest.mark.parametrize("name", NAMES)
def test_every_product_is_int8(name: str, approach: str, tmp_path: Path) -> None:
    model, int8 = made(name, approach)
    for path in unpacked(int8):
        owner = int8.get_submodule(path)
        assert isinstance(owner.int8_attention, Int8Attention)
        for kind, cls in (("linear", Int8Linear), ("scores", Int8Scores)):
            assert all(isinstance(owner.get_submodule(n), cls) for n in SITES[name][kind])
    batch = token_types(zoo.inputs(model))
    found, expected = zoo.logits(int8, batch), zoo.logits(model, batch)
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.08
    OptimizedModel.save_pretrained(int8, tmp_path)
    assert torch.equal(zoo.logits(OptimizedModel.from_pretrained(tmp_path), batch), found)


@pytest.mark.parametrize("name", NAMES)
def test_what_stays_float_is_saved_too(name: str, tmp_path: Path) -> None:
    model = zoo.make(name)
    first, second = unpacked(unpack_relative(copy.deepcopy(model)))
    scores = SITES[name]["scores"][0]
    _, int8 = made(name, "static", exclude=(first, f"{second}.{scores}"), exclude_attention=(second,))
    reasons = int8.config.quantization_config["fp32"]
    assert reasons[f"{second}.{scores}"] == "excluded by name" and reasons[second] == "its core is excluded by name"
    OptimizedModel.save_pretrained(int8, tmp_path)
    batch = zoo.inputs(model)
    assert torch.equal(zoo.logits(OptimizedModel.from_pretrained(tmp_path), batch), zoo.logits(int8, batch))


@pytest.mark.parametrize("name", NAMES)
def test_a_headless_model_takes_its_part(name: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    model, int8 = made(name, "static")
    OptimizedModel.save_pretrained(int8, tmp_path)
    batch = zoo.inputs(model)
    with torch.no_grad():
        body = AutoModel.from_pretrained(tmp_path)(**batch).last_hidden_state
        assert torch.equal(body, int8.base_model(**batch).last_hidden_state)


@pytest.mark.parametrize("names", [["transformer.layer.0"], ["no.such"], "transformer", [3]])
def test_a_damaged_list_is_refused(names: Any, tmp_path: Path) -> None:
    _, int8 = made("xlnet", "dynamic")
    int8.config.quantization_config["unpacked"] = names
    with pytest.raises(CheckpointError, match="unpacked|attention with relative positions"):
        OptimizedModel.save_pretrained(int8, tmp_path)
        OptimizedModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_training_with_fake_quantization(name: str) -> None:
    model = zoo.make(name)
    prepared = prepare_qat(model, Int8Config(approach="qat", fuse=False), data(model), progress=False)
    batch = zoo.inputs(model)
    prepared(**batch).logits.square().sum().backward()
    int8 = convert_qat(prepared.eval())
    assert any("stay float in training" in reason for reason in int8.config.quantization_config["fp32"].values())
    exact = zoo.logits(model, batch)
    assert float((zoo.logits(int8, batch) - exact).norm() / exact.norm()) < 0.08


@pytest.mark.parametrize("name", NAMES)
def test_sensitivity_knows_the_products(name: str) -> None:
    model = zoo.make(name)
    prepared = prepare_copy(model, Int8Config(approach="static"), data(model), progress=False)
    rows = {row.name: row for row in measure_sensitivity(prepared, data(model), distributions=True, progress=False)}
    products = [f"{path}.{leaf}" for path in unpacked(prepared.model) for leaf in SITES[name]["scores"]]
    for product in products:
        assert rows[product].kind == "scores" and 0 < rows[product].macs < 0.2
        assert 0 < rows[product].site_error < 0.2 and set(rows[product].distributions or ()) == {"query", "key"}


def test_other_products_read_a_projection_as_the_parameter_it_was() -> None:
    model = zoo.make("xlnet")
    parameter = next(p for n, p in model.named_parameters() if n.endswith("rel_attn.q")).detach()
    weight = unpack_relative(model).get_submodule(unpacked(model)[0]).q
    assert weight.shape == parameter.shape
    assert weight.dtype == parameter.dtype
    assert torch.equal(torch.sum(weight, 1), parameter.sum(1))
    x = torch.randn(2, 2, 64)
    assert torch.equal(torch.einsum("ibh,hnd->bind", x, weight), torch.einsum("ibh,hnd->bind", x, parameter))
