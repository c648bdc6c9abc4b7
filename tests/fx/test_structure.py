"""Which modules are tried as blocks, and which siblings share a graph."""

from __future__ import annotations

import torch
from torch import nn

from optimum_int8.fx import candidates, holds_int8, structure_key
from tests.fx.toys import Layer, Stack, int8_linear
from tests.models import int8_classifier


def test_siblings_have_one_key() -> None:
    one, other = Layer(0), Layer(1)
    assert structure_key(one) == structure_key(other)
    one.layer_idx, other.layer_idx = 0, 1  # where it stands does not count
    assert structure_key(one) == structure_key(other)


def test_what_changes_the_graph_changes_the_key() -> None:
    base = structure_key(Layer())
    settings = Layer()
    settings.eps = 1e-6
    sizes = Layer()
    sizes.linear = int8_linear(16, 32)
    dynamic = Layer()
    dynamic.linear = int8_linear(static=False)
    more = Layer()
    more.extra = nn.Identity()
    dtype = Layer()
    dtype.answer = torch.float16
    keys = [base, *(structure_key(m) for m in (settings, sizes, dynamic, more, dtype))]
    assert len(set(keys)) == len(keys)


def test_candidates_are_the_largest_modules_with_int8_below() -> None:
    model = nn.Module()
    model.embed = nn.Embedding(4, 4)
    model.stack = Stack(Layer(), Layer())
    model.many = nn.ModuleList([Layer(), nn.Linear(4, 4), nn.ModuleList([Layer()])])
    model.head = int8_linear()
    assert [name for name, _ in candidates(model)] == ["stack", "many.0", "many.2.0", "head"]
    assert holds_int8(model.stack)
    assert not holds_int8(model.embed)


def test_a_shared_module_is_one_candidate() -> None:
    model = nn.Module()
    model.a = model.b = Layer()
    assert [name for name, _ in candidates(model)] == ["a"]


def test_a_model_is_never_a_block() -> None:
    int8 = int8_classifier(fuse=False)
    names = [name for name, _ in candidates(int8)]
    assert names == [
        "bert.embeddings",
        "bert.encoder",
        "bert.pooler",
        "classifier",
    ]  # inside BertModel, which is one too
