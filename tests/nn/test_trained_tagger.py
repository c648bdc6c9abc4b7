"""A tagger trained here loses next to nothing on INT8."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optimum_int8 import Int8Config, quantize

WORDS, TAGS = 40, 6


class Tagger(nn.Module):
    """An embedding, a bidirectional recurrent layer and a linear."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(WORDS, 24), nn.Linear(64, TAGS)
        self.layers = kind(24, 32, bidirectional=True, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layers(self.table(ids))[0])


def sentences(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Ids, and tags that depend on both neighbours and on how often a word came before; a tenth of them at random."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, WORDS, (count, 20), generator=generator)
    before = (ids % 3 == 0).int().cumsum(1) % 2
    tags = before + 2 * (ids.roll(-1, 1) % 3)
    noise = torch.rand(ids.shape, generator=generator) < 0.1
    return ids, torch.where(noise, torch.randint(0, TAGS, ids.shape, generator=generator), tags)


def loss(model: nn.Module, ids: Tensor, tags: Tensor) -> Tensor:
    return F.cross_entropy(model(ids).flatten(0, 1), tags.flatten())


@pytest.mark.slow
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_the_loss_stays_within_a_percent(kind: Any) -> None:
    torch.manual_seed(0)
    model = Tagger(kind)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for step in range(150):
        optimizer.zero_grad()
        loss(model, *sentences(64, step)).backward()
        optimizer.step()
    model.eval()
    ids, tags = sentences(500, 10_000)
    with torch.no_grad():
        exact = float(loss(model, ids, tags))
        assert exact < 0.9  # of 1.79 by chance
        for approach in ("dynamic", "static"):
            data = [(sentences(64, 20_000)[0],)] if approach == "static" else None
            int8 = quantize(model, Int8Config(approach=approach), data, progress=False)  # type: ignore[arg-type]
            assert type(int8.layers).__name__ == f"Int8{kind.__name__}"
            assert abs(float(loss(int8, ids, tags)) - exact) < 0.01 * exact
