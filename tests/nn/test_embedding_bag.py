"""`Int8EmbeddingBag`: the calls of torch's layer on an int8 table."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimum_int8 import Int8Config, deploy, numerics, quantize
from optimum_int8.nn import Int8EmbeddingBag
from optimum_int8.nn.embedding_bag import embedding_bag_obstacle

IDS = torch.tensor([3, 0, 5, 5, 9, 1, 0, 0])
OFFSETS = torch.tensor([0, 3, 3, 6])


def make(mode: str, **settings: Any) -> tuple[nn.EmbeddingBag, Int8EmbeddingBag]:
    """A table of whole multiples of its scales, so that INT8 holds it exactly."""
    torch.manual_seed(0)
    module = nn.EmbeddingBag(11, 19, mode=mode, **settings)
    q, scale = numerics.quantize_weight(module.weight)
    with torch.no_grad():
        module.weight.copy_(q * scale.unsqueeze(1))
    return module, Int8EmbeddingBag.from_float(module)


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape and float((found - expected).abs().max()) < 1e-5
    assert float(expected.abs().max()) > 0.1


@torch.no_grad()
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 0])
def test_as_torch(mode: str, padding: int | None) -> None:
    module, int8 = make(mode, padding_idx=padding)
    assert_same(int8(IDS, OFFSETS), module(IDS, OFFSETS))
    assert not int8(IDS, OFFSETS)[1].any()  # an empty bag
    assert_same(int8(IDS.view(2, 4)), module(IDS.view(2, 4)))
    assert_same(int8(IDS.int(), OFFSETS.int()), module(IDS, OFFSETS))
    assert_same(int8(IDS, offsets=OFFSETS + 0), module(IDS, OFFSETS))


@torch.no_grad()
def test_weights_of_samples_and_a_last_offset() -> None:
    module, int8 = make("sum", include_last_offset=True)
    ends, weights = torch.tensor([0, 3, 3, 8]), torch.randn(8)
    assert_same(int8(IDS, ends, weights), module(IDS, ends, weights))
    wanted = int8(IDS, ends)
    assert not torch.equal(int8(IDS, ends, weights), wanted)
    with pytest.raises(ValueError, match="mode 'mean'"):
        make("mean")[1](IDS, OFFSETS, weights)
    with pytest.raises(ValueError, match="expected the shape"):
        int8(IDS, ends, weights[:4])


def test_gradient_of_the_weights_of_samples() -> None:
    module, int8 = make("sum")
    found = []
    for one in (module, int8):
        weights = torch.linspace(-1, 1, 8, requires_grad=True)
        one(IDS, OFFSETS, weights).square().sum().backward()
        found.append(weights.grad)
    assert found[0] is not None and found[1] is not None
    assert torch.allclose(found[0], found[1], atol=1e-4) and bool(found[0].any())


def test_wrong_calls_are_refused() -> None:
    _, int8 = make("mean")
    with pytest.raises(IndexError):
        int8(torch.tensor([[1, 11]]))
    with pytest.raises(IndexError):
        int8(torch.tensor([[1, -1]]))
    for ids, offsets in ((IDS, None), (IDS.view(2, 4), OFFSETS), (IDS.view(2, 2, 2), None)):
        with pytest.raises(ValueError, match="expected 2 axes"):
            int8(ids, offsets)
    for wrong in ([1, 3], [0, 5, 3], [0, 9]):
        with pytest.raises(ValueError, match="rising places"):
            int8(IDS, torch.tensor(wrong))


@torch.no_grad()
def test_stored_loaded_and_read() -> None:
    module, int8 = make("max")
    stored = int8.state_dict()
    assert {key: (value.dtype, tuple(value.shape)) for key, value in stored.items()} == {
        "weight": (torch.int8, (11, 19, 1)),
        "weight_scale": (torch.float32, (11,)),
    }
    empty = Int8EmbeddingBag.like(module)
    empty.load_state_dict(stored)
    for other in (empty, copy.deepcopy(int8)):
        assert torch.equal(other(IDS, OFFSETS), int8(IDS, OFFSETS))
    assert torch.allclose(int8.weight, module.weight, atol=1e-6) and int8.weight.shape == (11, 19)
    assert int8.to(torch.bfloat16)(IDS, OFFSETS).dtype == torch.bfloat16


@torch.no_grad()
def test_a_model_with_bags() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag, self.head = nn.EmbeddingBag(50, 32), nn.Linear(32, 4)

        def forward(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
            return self.head(self.bag(ids, offsets))

    torch.manual_seed(0)
    model = Model().eval()
    ids = torch.randint(0, 50, (6, 5))
    int8 = quantize(model, Int8Config(approach="static"), [ids], progress=False)
    assert type(int8.bag) is Int8EmbeddingBag
    for arguments in ((ids,), (ids[:2, :3],), (ids.flatten(), torch.tensor([0, 4, 20]))):
        assert float((int8(*arguments) - model(*arguments)).norm() / model(*arguments).norm()) < 0.1
    kept = quantize(model, Int8Config(quantize_embeddings=False))
    assert type(kept.bag) is nn.EmbeddingBag and "quantize_embeddings" in kept.int8_metadata["fp32"]["bag"]


def test_what_stays_float_says_why() -> None:
    assert embedding_bag_obstacle(nn.EmbeddingBag(4, 4)) == ""
    assert "max_norm" in embedding_bag_obstacle(nn.EmbeddingBag(4, 4, max_norm=1.0))
    assert "of its own kind" in embedding_bag_obstacle(type("Own", (nn.EmbeddingBag,), {})(4, 4))


@pytest.mark.slow
@torch.no_grad()
def test_exported_with_any_number_of_ids_and_bags(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag, self.head = nn.EmbeddingBag(50, 32), nn.Linear(32, 4)

        def forward(self, ids: Tensor, offsets: Tensor) -> Tensor:
            return self.head(self.bag(ids, offsets))

    int8 = quantize(Model().eval())
    deploy.save(int8, tmp_path / "bags.pt2", (torch.arange(40), torch.tensor([0, 3, 20])))
    loaded = deploy.load(tmp_path / "bags.pt2")
    for ids, offsets in (
        (torch.arange(40), torch.tensor([0, 3, 20])),
        (torch.arange(9), torch.tensor([0, 0, 4, 5, 8])),
    ):
        assert torch.equal(loaded(ids, offsets), int8(ids, offsets))
