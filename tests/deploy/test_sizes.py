"""A `.pt2` serves the sizes and options for which its model takes the branch of the example, and refuses others."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optimum_int8
from optimum_int8 import CheckpointError, DataError, Int8Config, quantize
from optimum_int8.deploy.expressions import is_expression, value_of

CONDITIONS: dict[str, tuple[Callable[[Tensor], bool], str]] = {
    "a long sequence": (lambda x: x.shape[1] > 20, r"x.shape\[1\] <= 20"),
    "a large batch": (lambda x: x.shape[0] > 4, r"x.shape\[0\] <= 4"),
    "a length that four divides": (lambda x: x.shape[1] % 4 == 0, r"\(x.shape\[1\] % 4\) != 0"),
    "more sequences than tokens": (lambda x: x.shape[0] > x.shape[1], r"x.shape\[0\] <= x.shape\[1\]"),
    "many tokens in all": (lambda x: x.shape[0] * x.shape[1] > 100, r"\(x.shape\[.\] \* x.shape\[.\]\) <= 100"),
    "a length that is padded": (lambda x: (x.shape[1] + 3) // 4 * 4 != 8, r"== 8"),
    "a length in a span": (lambda x: not 5 < x.shape[1] < 9, r"x.shape\[1\] (<|>)= \d"),
    "half a length": (lambda x: x.shape[1] / 2 > 3.5, r"\(x.shape\[1\] / 2\) <= 3.5"),
    "one token": (lambda x: x.shape[1] == 1, r"other sizes than .*x.shape\[1\] = 1"),
    "one sequence": (lambda x: x.shape[0] == 1, r"other sizes than x.shape\[0\] = 1"),
}
SHAPES = [(2, 6), (2, 7), (2, 8), (3, 30), (7, 6), (2, 60), (2, 1), (1, 6), (1, 1), (0, 6), (2, 6)]


class Branches(nn.Module):
    def __init__(self, condition: Callable[[Tensor], bool]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 16)
        self.condition = condition

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y * 2 if self.condition(x) else y


def saved(model: nn.Module, path: Path, example: Any) -> tuple[Any, Any]:
    int8 = quantize(nn.ModuleDict({"m": model}).eval(), Int8Config(), progress=False)["m"]
    optimum_int8.save(int8, path / "m.pt2", example)
    return int8, optimum_int8.load(path / "m.pt2")


@pytest.mark.parametrize("name", CONDITIONS)
@torch.no_grad()
def test_python_that_asks_for_sizes_is_served_or_refused(tmp_path: Path, name: str) -> None:
    condition, expected = CONDITIONS[name]
    int8, loaded = saved(Branches(condition), tmp_path, torch.randn(2, 6, 16))
    outcomes = set()
    for shape in SHAPES:
        x = torch.randn(*shape, 16)
        other_branch = condition(x)
        outcomes.add(other_branch)
        if other_branch:
            with pytest.raises(DataError, match=expected):
                loaded(x)
        else:
            assert torch.equal(loaded(x), int8(x)), shape
    assert outcomes == {True, False}


@torch.no_grad()
def test_the_example_is_served_where_larger_ones_take_another_branch(tmp_path: Path) -> None:
    """The example lies on the edge: a larger one, which makes batch and length dynamic, would be of the other branch."""
    int8, loaded = saved(Branches(lambda x: x.shape[1] > 20), tmp_path, torch.randn(2, 20, 16))
    for shape in [(2, 20), (5, 12)]:
        x = torch.randn(*shape, 16)
        assert torch.equal(loaded(x), int8(x))
    with pytest.raises(DataError, match=r"x.shape\[1\] <= 20"):
        loaded(torch.randn(2, 21, 16))


class Options(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x: Tensor, other: dict[str, Tensor] | None = None, double: bool = False) -> Tensor:
        y = self.linear(x) if other is None else self.linear(x) + other["y"]
        return y * 2 if double else y


@torch.no_grad()
def test_options_and_sizes_of_several_arguments(tmp_path: Path) -> None:
    x = torch.randn(2, 6, 16)
    int8, loaded = saved(Options(), tmp_path, {"x": x, "other": None, "double": True})
    assert torch.equal(loaded(x=x, other=None, double=True), int8(x, double=True))
    with pytest.raises(DataError, match="made for double = True"):
        loaded(x=x, other=None, double=False)
    with pytest.raises(DataError, match=r"x with 3 axes, and this call has x \[2, 16\]"):
        loaded(x=x[:, 0], other=None, double=True)
    with pytest.raises(DataError, match=r"x.shape\[2\] = 16"):
        loaded(x=x[..., :8], other=None, double=True)


def in_sizes(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = [(i.filename, archive.read(i)) for i in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            if name.endswith("optimum_int8.json"):
                about = json.loads(content)
                change(about)
                content = json.dumps(about).encode()
            archive.writestr(name, content)


CODE = "__import__('os').system('false')"


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.update(sizes=[]),
        lambda about: about["sizes"].update(conditions=[CODE]),
        lambda about: about["sizes"].update(conditions=[[CODE, 1, 2]]),
        lambda about: about["sizes"].update(conditions=[["<", ["size", 99], 1]]),
        lambda about: about["sizes"].update(conditions=[["<", 1]]),
        lambda about: about["sizes"].update(conditions=[["**", ["size", 0], 1e9]]),
        lambda about: about["sizes"].update(names=[1]),
        lambda about: about["sizes"].update(axes=[["value", []]]),
        lambda about: about["sizes"].update(ranges=[["0", None]] * about["sizes"]["count"]),
        lambda about: about["sizes"].update(small=[[["a", 1]]]),
        lambda about: about["sizes"].pop("small"),
        lambda about: about["sizes"].update(extra=1),
        lambda about: about.pop("sizes"),
    ],
)
def test_sizes_of_another_form_are_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    saved(Branches(lambda x: x.shape[1] > 20), tmp_path, torch.randn(2, 6, 16))
    in_sizes(tmp_path / "m.pt2", change)
    with pytest.raises(CheckpointError, match=r"sizes .*save the model again"):
        optimum_int8.load(tmp_path / "m.pt2")


def test_expressions_are_a_closed_set() -> None:
    deep: Any = ["size", 0]
    for _ in range(100):
        deep = ["abs", deep]
    for wrong in ["1", None, True, [], ["+"], ["size"], ["size", "0"], ["eval", 1], ["<", 1, 2, 3], float("nan"), deep]:
        assert not is_expression(wrong, 1), wrong
    right = ["and", ["<=", ["+", ["size", 0], 2, ["*", 2, ["size", 1]]], 20], ["not", ["==", ["%", ["size", 1], 2], 0]]]
    assert is_expression(right, 2)
    assert value_of(right, [4, 7]) is True
    assert value_of(right, [5, 7]) is False
    assert value_of(right, [4, 6]) is False
