"""The steps of recurrent layers against torch's, and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from optimum_int8 import numerics

LENGTH, BATCH, INPUT, UNITS = 6, 3, 5, 7


def layer(kind: str) -> nn.Module:
    """A bidirectional layer whose weight of the hidden state is INT8 values times their scales."""
    torch.manual_seed(0)
    made = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](INPUT, UNITS, bidirectional=True)
    with torch.no_grad():
        for name in ("weight_hh_l0", "weight_hh_l0_reverse"):
            q, scale = numerics.quantize_weight(getattr(made, name))
            getattr(made, name).copy_(q * scale.unsqueeze(1))
    return made


def weights(module: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    pairs = [numerics.quantize_weight(getattr(module, f"weight_hh_l0{end}")) for end in ("", "_reverse")]
    bias = torch.stack([getattr(module, f"bias_hh_l0{end}").detach() for end in ("", "_reverse")])
    return torch.stack([q for q, _ in pairs]), torch.stack([scale for _, scale in pairs]), bias


def gate_inputs(module: nn.Module, x: Tensor) -> Tensor:
    parts = [
        nn.functional.linear(x, getattr(module, f"weight_ih_l0{end}"), getattr(module, f"bias_ih_l0{end}"))
        for end in ("", "_reverse")
    ]
    return torch.cat(parts, -1).detach()


def run(kind: str, inputs: Tensor, states: list[Tensor], *rest: object) -> tuple[Tensor, ...]:
    function = numerics.lstm if kind == "lstm" else numerics.gru
    return function(inputs, *states, *rest)  # type: ignore[arg-type]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_close_to_torch(kind: str) -> None:
    module = layer(kind)
    x = torch.randn(LENGTH, BATCH, INPUT)
    states = [torch.randn(2, BATCH, UNITS).clamp(-1, 1) for _ in range(2 if kind == "lstm" else 1)]
    expected, last = module(x, tuple(states) if kind == "lstm" else states[0])
    found, *found_last = run(kind, gate_inputs(module, x), states, *weights(module))
    assert (found - expected).abs().max() < 0.02  # the hidden state is rounded to 256 levels in each step
    assert (found - expected).abs().max() > 1e-5
    for one, other in zip(found_last, last if kind == "lstm" else (last,), strict=True):
        assert (one - other).abs().max() < 0.03


@torch.no_grad()
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_sequence_depends_on_no_other(kind: str) -> None:
    module = layer(kind)
    inputs = gate_inputs(module, torch.randn(LENGTH, BATCH, INPUT))
    states = [torch.randn(2, BATCH, UNITS) for _ in range(2 if kind == "lstm" else 1)]
    whole = run(kind, inputs, states, *weights(module))
    lengths = [LENGTH, 4, 1]
    sizes = torch.tensor([3, 2, 2, 2, 1, 1])
    rows = torch.cat([inputs[time, :count] for time, count in enumerate(sizes.tolist())])
    packed = run(kind, rows, states, *weights(module), sizes)
    turned = run(kind, inputs.transpose(0, 1), states, *weights(module), None, True)
    assert torch.equal(turned[0], whole[0].transpose(0, 1))
    places = [[sum(sizes[:time].tolist()) + i for time in range(length)] for i, length in enumerate(lengths)]
    for i, length in enumerate(lengths):
        own = [state[:, i : i + 1] for state in states]
        alone = run(kind, inputs[:length, i : i + 1], own, *weights(module))
        assert torch.equal(packed[0][places[i]], alone[0][:, 0])
        for one, other in zip(packed[1:], alone[1:], strict=True):
            assert torch.equal(one[:, i : i + 1], other)


def test_by_hand() -> None:
    weight = torch.zeros(1, 4, 1, dtype=torch.int8)
    scale = torch.ones(1, 4)
    inputs = torch.tensor([[[0.0, 100.0, 1.0, 0.0]], [[100.0, -100.0, 0.5, 100.0]]])  # input, forget, candidate, output
    output, hidden, cell = numerics.lstm(inputs, torch.zeros(1, 1, 1), torch.full((1, 1, 1), 2.0), weight, scale)
    first = 2.0 + 0.5 * torch.tensor(1.0).tanh()
    assert output.flatten().tolist() == pytest.approx(
        [float(first.tanh()) / 2, float(torch.tensor(0.5).tanh().tanh())], abs=1e-6
    )
    assert float(cell) == pytest.approx(float(torch.tensor(0.5).tanh()), abs=1e-6)
    assert torch.equal(hidden.flatten(), output[-1].flatten())


@pytest.mark.parametrize(
    ("inputs", "states", "sizes", "found"),
    [
        ((6, 3, 28), [(1, 3, 7), (1, 2, 7)], None, "the same for all"),
        ((6, 2, 28), [(1, 3, 7), (1, 3, 7)], None, r"expected \[6, 3, 28\]"),
        ((6, 3, 21), [(1, 3, 7), (1, 3, 7)], None, r"expected \[6, 3, 28\]"),
        ((5, 28), [(1, 3, 7), (1, 3, 7)], [2, 3], "then never more"),
        ((5, 28), [(1, 3, 7), (1, 3, 7)], [2, 1], "expected 3"),
        ((6, 28), [(1, 3, 7), (1, 3, 7)], [3, 2, 0], "never none"),
        ((6, 28), [(1, 3, 7), (1, 3, 7)], [3, 2], r"expected \[5, 28\]"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    inputs: tuple[int, ...], states: list[tuple[int, ...]], sizes: list[int] | None, found: str
) -> None:
    packed = None if sizes is None else torch.tensor(sizes)
    with pytest.raises(ValueError, match=found):
        numerics.check_recurrent(4, torch.zeros(inputs), [torch.zeros(shape) for shape in states], packed, False)


def test_sigmoid() -> None:
    x = torch.linspace(-30, 30, 1001)
    assert (numerics.sigmoid(x) - torch.sigmoid(x)).abs().max() < 2e-7
    assert numerics.sigmoid(torch.tensor([0.0, -1e30, 1e30])).tolist() == pytest.approx([0.5, 0.0, 1.0], abs=1e-37)
