"""Subclasses of torch's layers: what computes the same becomes a site, proven by values, and keeps its children."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.models.falcon.modeling_falcon import FalconLinear
from transformers.pytorch_utils import Conv1D

from optimum_int8 import Int8Config, quantize
from optimum_int8.nn import Int8Embedding, Int8Linear


class Renamed(nn.Linear):
    def forward(self, states: Tensor) -> Tensor:
        return torch.einsum("...i,oi->...o", states, self.weight) + self.bias


class Plain(nn.Linear):
    pass


class OwnConv1D(Conv1D):
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Clipped(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(-1000, 1000)


class TwoInputs(nn.Linear):
    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return super().forward(x) * scale


class Adapted(nn.Linear):
    def __init__(self, rows: int, columns: int) -> None:
        super().__init__(rows, columns)
        self.adapter = nn.Linear(rows, columns)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.adapter(x)


@torch.no_grad()
@pytest.mark.parametrize("made", [FalconLinear, Renamed, Plain, OwnConv1D])
def test_a_matrix_product_becomes_a_site(made: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(made(32, 32)).eval(), torch.randn(2, 5, 32)
    int8 = quantize(model, Int8Config(), progress=False)
    assert isinstance(int8[0], Int8Linear)
    assert (int8(x) - model(x)).norm() < 0.02 * model(x).norm()


@torch.no_grad()
@pytest.mark.parametrize("made", [Scaled, Clipped, TwoInputs, Adapted])
def test_anything_else_stays_float(made: type[nn.Module]) -> None:
    model = nn.Sequential(made(32, 32), nn.Linear(32, 8)).eval()
    int8 = quantize(model, Int8Config(), progress=False)
    assert type(int8[0]) is made
    assert "0" in int8.int8_metadata["fp32"]


class Normed(nn.Embedding):
    """As Muse's: a norm below the table."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__(rows, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Tensor) -> Tensor:
        return self.norm(super().forward(ids))


class Projected(nn.Embedding):
    """With a linear below, which is a site itself."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__(rows, width)
        self.project = nn.Linear(width, width)

    def forward(self, ids: Tensor) -> Tensor:
        return self.project(super().forward(ids))


@torch.no_grad()
@pytest.mark.parametrize("made", [Normed, Projected])
def test_a_table_keeps_its_children(made: type[nn.Embedding]) -> None:
    torch.manual_seed(0)
    model, ids = nn.Sequential(made(50, 32)).eval(), torch.randint(0, 50, (2, 7))
    int8 = quantize(model, Int8Config(), progress=False)
    assert isinstance(int8[0], Int8Embedding)
    assert isinstance(int8[0], made)
    assert (int8(ids) - model(ids)).norm() < 0.03 * model(ids).norm()
    again = quantize(model, Int8Config(), progress=False)
    again.load_state_dict(int8.state_dict())
    assert torch.equal(again(ids), int8(ids))


class Watched(nn.MultiheadAttention):
    def forward(self, *args: Tensor, **kwargs: bool) -> tuple[Tensor, Tensor | None]:
        return super().forward(*args, **kwargs)


@torch.no_grad()
@pytest.mark.parametrize("approach", ["dynamic", "static"])
def test_a_subclass_of_attention_with_example_data(approach: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = Watched(32, 4, batch_first=True), nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.attention(x, x, x)[0])

    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(3, 5, 32)
    int8 = quantize(model, Int8Config(approach=approach), [(x,)], progress=False)
    assert isinstance(int8.head, Int8Linear)
    assert (int8(x) - model(x)).norm() < 0.03 * model(x).norm()
