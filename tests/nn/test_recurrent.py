"""`Int8LSTM`, `Int8GRU` and their cells: the calls of torch's layers, their weights, and what is stored."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from optimum_int8 import Int8Config, deploy, numerics, quantize
from optimum_int8.errors import QuantizationError
from optimum_int8.nn import Int8GRU, Int8GRUCell, Int8LSTM, Int8LSTMCell, recurrent_obstacle
from optimum_int8.nn.recurrent import recurrent_from_float

INPUT, UNITS, BATCH, LENGTH = 12, 20, 4, 6
SETTINGS: list[dict[str, Any]] = [
    {},
    {"batch_first": True, "bidirectional": True},
    {"num_layers": 2, "bias": False, "dropout": 0.5},
    {"num_layers": 3, "bidirectional": True, "batch_first": True},
]
LAYERS = [(kind, settings) for kind in (nn.LSTM, nn.GRU) for settings in SETTINGS]


def make(kind: Any, static: bool = False, **settings: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    module = kind(INPUT, UNITS, **settings).eval()
    return module, recurrent_from_float(module, (-4.0, 4.0) if static else None)


def batch(module: Any) -> Tensor:
    shape = (BATCH, LENGTH, INPUT) if module.batch_first else (LENGTH, BATCH, INPUT)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def states(module: Any, size: int = BATCH) -> Any:
    shape = module.num_layers * (2 if module.bidirectional else 1), size, UNITS
    made = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2)).tanh()
    return (made[0], made[1]) if isinstance(module, nn.LSTM) else made[0]


def tensors(result: Any) -> list[Tensor]:
    """Output and states of a call."""
    output, last = result
    output = output.data if isinstance(output, PackedSequence) else output
    return [output, *(last if isinstance(last, tuple) else (last,))]


def assert_close(found: Any, expected: Any) -> None:
    for one, other in zip(tensors(found), tensors(expected), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        assert float((one - other).norm() / other.norm()) < 0.03


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(("kind", "settings"), LAYERS)
def test_close_to_the_float_layer(kind: Any, settings: dict[str, Any], static: bool) -> None:
    module, int8 = make(kind, static, **settings)
    x = batch(module)
    assert_close(int8(x), module(x))
    hx = states(module)
    assert_close(int8(x, hx), module(x, hx))
    assert not torch.equal(int8(x, hx)[0], int8(x)[0])


@torch.no_grad()
@pytest.mark.parametrize(("kind", "settings"), LAYERS)
def test_without_a_batch(kind: Any, settings: dict[str, Any]) -> None:
    module, int8 = make(kind, **settings)
    x = torch.randn(LENGTH, INPUT)
    hx = states(module, 1)
    one = tuple(state[:, 0] for state in hx) if isinstance(hx, tuple) else hx[:, 0]
    assert_close(int8(x, one), module(x, one))
    among = int8(x.unsqueeze(0 if module.batch_first else 1), hx)
    assert torch.equal(int8(x, one)[0], among[0].squeeze(0 if module.batch_first else 1))


@torch.no_grad()
@pytest.mark.parametrize("is_sorted", [True, False])
@pytest.mark.parametrize(("kind", "settings"), LAYERS)
def test_packed_sequences_are_those_alone_to_the_bit(kind: Any, settings: dict[str, Any], is_sorted: bool) -> None:
    module, int8 = make(kind, **settings)
    x, hx = batch(module), states(module)
    lengths = [6, 4, 3, 1] if is_sorted else [3, 6, 1, 4]
    packed = pack_padded_sequence(x, torch.tensor(lengths), module.batch_first, enforce_sorted=is_sorted)
    found = int8(packed, hx)
    assert_close(found, module(packed, hx))
    padded, _ = pad_packed_sequence(found[0], batch_first=True)
    rows = x if module.batch_first else x.transpose(0, 1)
    for i, length in enumerate(lengths):
        own = tuple(state[:, i] for state in hx) if isinstance(hx, tuple) else hx[:, i]
        alone = tensors(int8(rows[i, :length], own))
        assert torch.equal(padded[i, :length], alone[0])
        for one, other in zip(tensors(found)[1:], alone[1:], strict=True):
            assert torch.equal(one[:, i], other)


@torch.no_grad()
@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
@pytest.mark.parametrize("bias", [True, False])
def test_cells(kind: Any, bias: bool) -> None:
    module, int8 = make(kind, bias=bias)
    x, h = torch.randn(BATCH, INPUT), torch.randn(2, BATCH, UNITS)
    for hx in (None, (h[0], h[1]) if kind is nn.LSTMCell else h[0]):
        found, expected = int8(x, hx), module(x, hx)
        assert type(found) is type(expected)
        assert_close((x, found), (x, expected))
    one = (h[0, 1], h[1, 1]) if kind is nn.LSTMCell else h[0, 1]
    alone, expected = int8(x[1], one), module(x[1], one)
    assert_close((x, alone), (x, expected))
    assert all(torch.equal(a, b[1]) for a, b in zip(tensors((x, alone))[1:], tensors((x, found))[1:], strict=True))


@torch.no_grad()
def test_a_cell_is_one_step_of_its_layer() -> None:
    module, _ = make(nn.LSTM)
    cell = nn.LSTMCell(INPUT, UNITS)
    cell.load_state_dict({name.removesuffix("_l0"): tensor for name, tensor in module.state_dict().items()})
    layer, int8 = recurrent_from_float(module), recurrent_from_float(cell)
    x = batch(module)
    hx = None
    for row in x:
        hx = int8(row, hx)
    _, last = layer(x)
    assert torch.equal(hx[0], last[0][0]) and torch.equal(hx[1], last[1][0])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_states_of_another_size_are_refused(kind: Any) -> None:
    module, int8 = make(kind, bidirectional=True)
    hx = states(module, BATCH - 1)
    with pytest.raises(ValueError, match=r"expected . of \[2, 4, 20\]"):
        int8(batch(module), hx)
    with pytest.raises(ValueError, match="of 4 axes"):
        int8(batch(module).unsqueeze(0))
    with pytest.raises(ValueError, match="expected . of"):
        int8(batch(module), hx[0] if kind is nn.LSTM else (hx, hx))


def test_states_of_a_cell_of_another_size_are_refused() -> None:
    _, int8 = make(nn.LSTMCell)
    with pytest.raises(ValueError, match="20 units"):
        int8(torch.randn(3, INPUT), (torch.zeros(2, UNITS), torch.zeros(2, UNITS)))
    with pytest.raises(ValueError, match="3 axes"):
        int8(torch.randn(1, 3, INPUT))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRUCell])
def test_weights_read_as_floats(kind: Any) -> None:
    module, int8 = make(kind)
    for name, parameter in module.named_parameters():
        found = getattr(int8, name)
        assert found.shape == parameter.shape and found.dtype == parameter.dtype
        step = parameter.abs().max() / 127 if name.startswith("weight") else 1e-9
        assert float((found - parameter).detach().abs().max()) <= step
        with pytest.raises(QuantizationError):
            setattr(int8, name, nn.Parameter(torch.zeros_like(parameter)))
        with pytest.raises(QuantizationError):
            setattr(int8, name, torch.zeros_like(parameter))
    first = next(name for name, _ in module.named_parameters() if name.startswith("weight_hh"))
    with pytest.raises(QuantizationError):
        getattr(int8, first).zero_()
    assert int8.to(torch.bfloat16).__getattr__(first).dtype == torch.bfloat16
    assert next(int8.parameters()).dtype == torch.bfloat16


@torch.no_grad()
def test_the_float_weights_are_those_that_it_multiplies_by() -> None:
    module, int8 = make(nn.GRU, num_layers=2, bidirectional=True)
    for name in module._flat_weights_names:
        getattr(module, name).copy_(getattr(int8, name))
    again = recurrent_from_float(module)
    assert torch.equal(again(batch(module))[0], int8(batch(module))[0])


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(("kind", "settings"), LAYERS)
def test_stored_and_loaded_to_the_bit(kind: Any, settings: dict[str, Any], static: bool) -> None:
    module, int8 = make(kind, static, **settings)
    stored = int8.state_dict()
    weights = {name for name in dict(module.named_parameters()) if name.startswith("weight")}
    assert stored.keys() == {
        *dict(module.named_parameters()),
        *(f"{name}_scale" for name in weights),
        *(("input_scale", "input_zero_point") if static else ()),
    }
    assert all(stored[name].dtype == torch.int8 and stored[name].shape[-1] == 1 for name in weights)
    empty = type(int8).like(module, static)
    empty.load_state_dict(stored)
    x = batch(module)
    for other in (empty, copy.deepcopy(int8), pickle.loads(pickle.dumps(int8))):
        assert torch.equal(other(x)[0], int8(x)[0])
        assert all(torch.equal(tensor, stored[name]) for name, tensor in other.state_dict().items())


@torch.no_grad()
def test_dtype_of_the_model() -> None:
    module, int8 = make(nn.LSTM, num_layers=2)
    x = batch(module)
    output, last = int8.to(torch.bfloat16)(x.to(torch.bfloat16))
    assert {tensor.dtype for tensor in (output, *last)} == {torch.bfloat16}
    assert torch.equal(output, recurrent_from_float(module)(x.to(torch.bfloat16).float())[0].to(torch.bfloat16))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell])
def test_the_gradient_is_that_of_the_float_layer(kind: Any) -> None:
    module, int8 = make(kind)
    for name, parameter in module.named_parameters():
        parameter.data.copy_(getattr(int8, name))
    shape = (LENGTH, BATCH, INPUT) if kind in (nn.LSTM, nn.GRU) else (BATCH, INPUT)
    found = []
    for one in (int8, module):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(3)).requires_grad_()
        result = one(x)
        result[0].square().sum().backward()
        found.append(x.grad)
    assert found[0] is not None and found[1] is not None
    assert float((found[0] - found[1]).norm() / found[1].norm()) < 0.03


def test_what_stays_float_says_why() -> None:
    class Own(nn.LSTM):
        def forward(self, *args: Any) -> Any:
            return super().forward(*args)[0]

    normed = nn.utils.parametrizations.weight_norm(nn.LSTM(4, 4), "weight_hh_l0")
    with pytest.warns(FutureWarning):
        hooked = nn.utils.weight_norm(nn.GRUCell(4, 4), "weight_hh")
    with_table = nn.GRU(4, 4)
    with_table.register_buffer("table", torch.zeros(3))
    assert recurrent_obstacle(nn.LSTM(4, 4)) == recurrent_obstacle(nn.GRUCell(4, 4, bias=False)) == ""
    assert "proj_size" in recurrent_obstacle(nn.LSTM(4, 4, proj_size=2))
    assert "of its own kind" in recurrent_obstacle(Own(4, 4))
    assert "of its own kind" in recurrent_obstacle(normed)
    assert "other tensors" in recurrent_obstacle(hooked)
    assert "other tensors" in recurrent_obstacle(with_table)
    assert "overflow" in recurrent_obstacle(nn.GRU(numerics.MAX_REDUCTION + 1, 1))


class Tagger(nn.Module):
    """Ids to classes; packs its sequences where it is given lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, INPUT)
        self.layers = nn.LSTM(INPUT, UNITS, num_layers=2, bidirectional=True, batch_first=True)
        self.cell = nn.GRUCell(2 * UNITS, UNITS)
        self.head = nn.Linear(UNITS, 5)

    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        x: Any = self.table(ids)
        if lengths is not None:
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        x, _ = self.layers(x)
        if lengths is not None:
            x, _ = pad_packed_sequence(x, batch_first=True)
        return self.head(self.cell(x[:, -1]))


@torch.no_grad()
@pytest.mark.parametrize("approach", ["dynamic", "static"])
def test_a_model_with_recurrent_layers(approach: Any) -> None:
    torch.manual_seed(0)
    model = Tagger().eval()
    ids = torch.randint(0, 30, (3, 8))
    int8 = quantize(model, Int8Config(approach=approach), [(ids,)] if approach == "static" else None, progress=False)
    assert [type(int8.layers), type(int8.cell)] == [Int8LSTM, Int8GRUCell]
    assert (int8.layers.input_scale is not None) == (approach == "static")
    for other in (ids, ids[:2, :5], torch.randint(0, 30, (5, 11))):  # captured at the first, run on others
        assert float((int8(other) - model(other)).norm() / model(other).norm()) < 0.1
    lengths = torch.tensor([8, 2, 5])
    assert float((int8(ids, lengths) - model(ids, lengths)).norm() / model(ids, lengths).norm()) < 0.1
    alone = int8(ids[1:2, :2], torch.tensor([2]))
    again = quantize(
        model, Int8Config(approach=approach, fuse=False), [(ids,)] if approach == "static" else None, progress=False
    )
    assert torch.equal(again(ids[1:2, :2]), alone)
    kept = quantize(model, Int8Config(exclude=("layers",), exclude_types=("GRUCell",)))
    assert type(kept.layers) is nn.LSTM and type(kept.cell) is nn.GRUCell


@pytest.mark.slow
@torch.no_grad()
def test_exported_with_any_batch_and_length(tmp_path: Path) -> None:
    torch.manual_seed(0)
    int8 = quantize(Tagger().eval())
    ids = torch.randint(0, 30, (3, 8))
    deploy.save(int8, tmp_path / "tagger.pt2", (ids,))
    loaded = deploy.load(tmp_path / "tagger.pt2")
    for other in (ids, ids[:2, :5], torch.randint(0, 30, (5, 11))):
        assert torch.equal(loaded(other), int8(other))


def test_classes_of_all_four() -> None:
    found = [type(make(kind)[1]) for kind in (nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell)]
    assert found == [Int8LSTM, Int8GRU, Int8LSTMCell, Int8GRUCell]
