"""A graph that was checked on a few rows and tokens is right for the whole call."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from optimum_int8 import QuantizationError
from optimum_int8.fx import build, trial
from optimum_int8.fx.arguments import flatten, rebuild
from optimum_int8.fx.slices import ROWS, TOKENS, between, slice_call
from tests.fx.toys import block_of, install, int8_conv, int8_linear

BATCH = 9
LENGTH = 40
WIDTH = 24


def sliced(*args: Any, layer: int | None = None, **kwargs: Any) -> list[Tensor] | None:
    return slice_call(*flatten(args, kwargs, layer), layer)


def values(batch: int = BATCH, length: int = LENGTH) -> Tensor:
    return torch.randn(batch, length, WIDTH, generator=torch.Generator().manual_seed(0))


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = int8_linear(WIDTH, WIDTH)
        self.seen: list[tuple[int, ...]] = []


def own(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return type(module).forward(module, *args, **kwargs)


class AsksForLength(Toy):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y * 2 if x.shape[1] > 30 else y


class AsksForAShortLength(Toy):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y * 2 if x.shape[1] > 8 else y


class AsksForBatch(Toy):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * (2 if x.shape[0] == BATCH else 1)


class AsksForBoth(Toy):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) - (x if x.shape[0] * x.shape[1] > 100 else 0)


class NeedsALongCall(Toy):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] < 30:
            raise ValueError("too short")
        return self.linear(x)


class NeedsAMultiple(Toy):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.unflatten(1, (-1, 8))).flatten(1, 2)


class MeanOverTheBatch(Toy):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x - x.mean(0, keepdim=True))


class DividesByTheLength(Toy):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).cumsum(1) / x.shape[1]


class NormOverTheBatch(Toy):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.batch_norm(self.linear(x).transpose(1, 2), None, None, training=True)


class Window(Toy):
    def forward(self, x: Tensor) -> Tensor:
        place = torch.arange(x.shape[1])
        near = (place[:, None] - place[None]).abs() < 20
        return self.linear(near.float() @ x)


class ConstantLength(Toy):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * torch.linspace(0, 1, int(x.shape[1]))[:, None]


ALONE = [
    AsksForLength, AsksForAShortLength, AsksForBatch, AsksForBoth, NeedsALongCall, NeedsAMultiple, MeanOverTheBatch,
    DividesByTheLength, NormOverTheBatch, Window, ConstantLength,
]  # fmt: skip


@pytest.mark.parametrize("toy", ALONE, ids=lambda toy: toy.__name__)
def test_a_module_that_depends_on_sizes(toy: type[Toy]) -> None:
    model = nn.ModuleDict({"module": toy()})
    install(model)
    for batch, length in [(BATCH, LENGTH), (2, 32), (BATCH, 64), (BATCH, LENGTH)]:
        x = values(batch, length)
        assert torch.equal(model["module"](x), own(model["module"], x)), (batch, length)


@pytest.mark.parametrize("toy", [AsksForLength, AsksForBoth, NeedsALongCall], ids=lambda toy: toy.__name__)
def test_a_call_that_takes_another_branch_than_its_slice_is_captured_whole(toy: type[Toy]) -> None:
    model = nn.ModuleDict({"module": toy()})
    install(model)
    model["module"](values())
    assert not block_of(model["module"]).misses and any(block_of(model["module"]).variants.values())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_module_that_depends_on_no_size_is_checked_on_a_slice_alone(mode: Any) -> None:
    model = nn.ModuleDict({"module": DividesByTheLength()})
    install(model)
    whole = mock.patch.object(build, "copies", side_effect=AssertionError)
    with mode():
        x = values()
        with whole:
            result = model["module"](x)
        assert torch.equal(result, own(model["module"], x))
    assert any(block_of(model["module"]).variants.values())


class Masked(Toy):
    def forward(self, x: Tensor, mask: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        y = self.linear(x)
        if positions is not None:
            y = y + positions[..., None] / 100
        if mask is not None:
            y = y * mask[..., None] if mask.dim() == 2 else (y.transpose(1, 2) @ mask[:, 0].float()).transpose(1, 2)
        return y


def padded() -> Tensor:
    mask = torch.ones(BATCH, LENGTH, dtype=torch.long)
    mask[5, 22:] = 0
    return mask


MASKS = {
    "ones": torch.ones(BATCH, LENGTH, dtype=torch.long),
    "padding beyond the slice": padded(),
    "padding on the left": padded().flip(1),
    "of the batch": padded()[5:6],
    "of each pair": (padded()[:, None, :, None] * padded()[:, None, None]).bool(),
    "of each pair, for all the batch": torch.ones(LENGTH, LENGTH).tril().bool()[None, None],
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("positions", [None, "each", "one"])
def test_masks_and_positions(name: str, positions: str | None) -> None:
    model = nn.ModuleDict({"module": Masked()})
    install(model)
    given = None
    if positions is not None:
        given = torch.arange(LENGTH).expand(BATCH if positions == "each" else 1, -1) + 3
    x = values()
    for mask in (MASKS[name], MASKS[name].flip(-1)):
        assert torch.equal(model["module"](x, mask, given), own(model["module"], x, mask, given))
    assert any(block_of(model["module"]).variants.values())


@pytest.mark.parametrize("name", ["padding beyond the slice", "padding on the left"])
def test_padding_stays_in_the_slice(name: str) -> None:
    mask = MASKS[name]
    small = sliced(values(), mask)
    assert small is not None
    x, kept = small
    assert x.shape[:2] == kept.shape and 2 <= len(x) <= ROWS and 2 <= x.shape[1] <= TOKENS
    assert set(kept.flatten().tolist()) == {0, 1}


def test_all_tensors_lose_the_same_rows_and_tokens() -> None:
    x = torch.arange(BATCH * LENGTH).view(BATCH, LENGTH)
    small = sliced(x, x + 1, x[:1], x[:, None, None] + torch.zeros(1, 1, LENGTH, 1, dtype=torch.long), x)
    assert small is not None
    tokens = small[0][0]
    assert torch.equal(small[1], small[0] + 1) and torch.equal(small[2][0], tokens)
    assert torch.equal(small[3][:, 0, 0], small[0]) and small[3].shape[2] == len(tokens)
    assert small[4] is small[0], "one tensor given twice stays one"


def test_a_slice_has_the_key_of_its_call() -> None:
    for shape in [(BATCH, LENGTH), (1, LENGTH), (BATCH, 1), (2, 300), (300, 2)]:
        x = values(*shape)
        key, tensors = flatten((x, torch.ones(shape, dtype=torch.long)), {"mask": torch.ones(1, 1, 1, shape[1])})
        small = slice_call(key, tensors, None)
        assert small is not None and flatten(*rebuild(key, small))[0] == key
        assert [n == 1 for n in small[0].shape] == [n == 1 for n in x.shape]


def test_a_small_call_is_no_slice() -> None:
    assert sliced(values(ROWS, TOKENS)) is None
    assert sliced(torch.randn(())) is None and sliced(torch.randn(500)) is None
    assert sliced(torch.randn(2, 3, 64, 64)) is None


def test_of_images_few_stay_whole() -> None:
    small = sliced(torch.randn(8, 3, 20, 30))
    assert small is not None and small[0].shape == (2, 3, 20, 30)
    model = nn.ModuleDict({"conv": int8_conv()})
    install(model)
    x = torch.randn(8, 3, 20, 30)
    assert torch.equal(model["conv"](x), own(model["conv"], x))


class Attends(Toy):
    layer_idx = 0

    def __init__(self) -> None:
        super().__init__()
        self.layer_idx = 0

    def forward(self, x: Tensor, mask: Tensor, cache: DynamicCache | None = None) -> Tensor:
        keys = self.linear(x)[:, None]
        states = x[:, None]
        if cache is not None:
            keys, states = cache.update(keys, states, self.layer_idx)
        return (torch.softmax(x[:, None] @ keys.transpose(2, 3) + mask, -1) @ states)[:, 0]


@pytest.mark.parametrize("past", [0, 3, 50])
def test_a_cache(past: int) -> None:
    model = nn.ModuleDict({"module": Attends()})
    install(model)
    module = model["module"]
    caches = [DynamicCache(), DynamicCache()]
    for length in (past, LENGTH, 1, 1):
        if not length:
            continue
        x = values(length=length)
        states = length + caches[0].get_seq_length()
        mask = torch.zeros(BATCH, 1, length, states)
        mask[2, :, :, : states // 2] = -1e9
        found = module(x, mask, caches[0])
        assert torch.equal(found, own(module, x, mask, caches[1]))
        for ours, theirs in zip(caches[0].layers, caches[1].layers, strict=True):
            assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)


class Remembers(Toy):
    """Keeps what it saw in every place that a module has."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place
        self.register_buffer("total", torch.zeros(WIDTH))
        self.weight = nn.Parameter(torch.zeros(WIDTH))
        self.last: Tensor | None = None
        self.calls: list[Tensor] = []
        self.by_size: dict[int, Tensor] = {}
        self.longest = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.place == "buffer in place":
            self.total += x.mean((0, 1))
        elif self.place == "buffer":
            self.total = self.total + x.mean((0, 1))
        elif self.place == "parameter":
            with torch.no_grad():
                self.weight += x.mean((0, 1))
        elif self.place == "attribute":
            self.last = x.mean((0, 1)) + (0 if self.last is None else self.last)
        elif self.place == "list":
            self.calls.append(x.mean((0, 1)))
        elif self.place == "dict":
            self.by_size[0] = self.by_size.get(0, 0) + x.mean((0, 1))
        else:
            self.longest = max(self.longest, x.shape[1])
        return self.linear(x)

    def memory(self) -> list[Any]:
        return [self.total, self.weight.detach(), self.last, self.calls, self.by_size]


def first_call(place: str) -> tuple[list[Any], Tensor]:
    model = nn.ModuleDict({"module": Remembers(place)})
    install(model)
    with torch.no_grad():
        result = model["module"](values())
    return [*model["module"].memory(), model["module"].longest], result


PLACES = ["buffer in place", "buffer", "parameter", "attribute", "list", "dict", "number"]


@pytest.mark.parametrize("place", PLACES)
def test_a_module_that_remembers_does_not_remember_a_slice(place: str) -> None:
    """What it holds after its first call is what it holds where nothing is sliced, to the bit."""
    found, result = first_call(place)
    with mock.patch.object(build, "slice_call", return_value=None):
        expected, same = first_call(place)
    assert torch.equal(result, same)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert any(x is not None and torch.as_tensor(x).any() for x in found if isinstance(x, (Tensor, int))) or any(
        found[3:5]
    )


def test_what_lies_between_a_slice_and_its_call() -> None:
    small = [torch.zeros(2, 10)]
    whole = [torch.zeros(2, 300)]
    length = "tensors[0].size()[1]"
    assert not between(
        [f"{length} <= 512", f"{length} == tensors[1].size()[1]", "tensors[0].size()[0] <= 1"], small, whole
    )
    assert between([f"{length} != 100"], small, whole) and between([f"{length} % 2 == 0"], small, whole)
    assert between([f"{length} <= 300"], small, whole)
    assert not between([], small, whole) and between(["something else"], small, whole)
    assert not between(["tensors[0].size()[0] % 2 == 0"], small, whole), "the slice left the batch alone"
    assert between(["tensors[0].size()[0]*tensors[0].size()[1] > 10"], small, whole)


def test_layers_of_one_structure_are_exported_once() -> None:
    model = nn.Sequential(*[Masked() for _ in range(4)])
    install(model)
    x, mask = values(), padded()
    with mock.patch.object(build, "capture", wraps=build.capture) as captures:
        for layer in model:
            assert torch.equal(layer(x, mask), own(layer, x, mask))
    assert captures.call_count == 1


def test_one_sequence_after_many_is_checked_on_a_slice() -> None:
    model = nn.ModuleDict({"module": DividesByTheLength()})
    install(model)
    model["module"](values())
    x = values(1, 200)
    with mock.patch.object(build, "copies", side_effect=AssertionError):
        assert torch.equal(model["module"](x), own(model["module"], x))
    assert block_of(model["module"]).variants and not block_of(model["module"]).misses


@pytest.mark.parametrize("limit", ["_LARGEST", "_MOST"])
def test_a_module_with_more_state_than_is_worth_copying_runs_whole(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, limit, 8)
    model = nn.ModuleDict({"module": Remembers("number")})
    install(model)
    with mock.patch.object(build, "copies", wraps=build.copies) as whole:
        model["module"](values())
    assert whole.called
    assert model["module"].longest == LENGTH


@pytest.mark.parametrize(("error", "exports"), [(ValueError, 1), (QuantizationError, 2)])
def test_a_failure_that_no_size_explains_is_not_tried_again_on_the_whole_call(
    error: type[Exception], exports: int
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise error("not this graph")

    model = nn.ModuleDict({"module": DividesByTheLength()})
    install(model, fails)
    x = values()
    module = model["module"]
    with mock.patch.object(build, "capture", wraps=build.capture) as captures:
        result = module(x)
    of_the_module = [call for call in captures.call_args_list if call.args[0] is module]
    assert len(of_the_module) == exports and torch.equal(result, own(module, x))
