"""Reading pickled weights as data: what torch writes is understood, everything else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from optimum_int8.errors import CheckpointError
from optimum_int8.hub.restricted import Plain, Quantized, load_pickled_tensors
from tests.hub.helpers import limits
from tests.hub.pickles import HOSTILE


def test_unpickler_reads_what_torch_writes(tmp_path: Path) -> None:
    values = torch.arange(12.0).reshape(3, 4)
    per_channel = torch.quantize_per_channel(
        values, torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0, 1, 2]), 0, torch.qint8
    )
    per_tensor = torch.quantize_per_tensor(values, 0.1, 7, torch.quint8)
    state = {
        "a": values.T,
        "b": nn.Parameter(values[1:]),
        "c": per_channel,
        "d": per_tensor,
        "e": torch.empty(0),
        "f": 3,
    }
    torch.save(state, tmp_path / "x.bin")
    found = load_pickled_tensors(tmp_path / "x.bin")
    for name in "abe":
        assert isinstance(found[name], Plain) and torch.equal(found[name].values, state[name])
    for name in "cd":
        assert isinstance(found[name], Quantized) and torch.equal(found[name].values, state[name].int_repr())
    assert torch.equal(found["c"].zero_points, torch.tensor([0.0, 1.0, 2.0])) and found["c"].axis == 0
    assert found["d"].scales.item() == pytest.approx(0.1) and found["d"].zero_points.item() == 7 and found["f"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.bin").write_bytes(HOSTILE[name])
    with pytest.raises(CheckpointError), limits(seconds=10):
        load_pickled_tensors(tmp_path / "x.bin")
    assert not list(tmp_path.rglob("pwned"))


def test_one_storage_as_thousands_of_tensors(tmp_path: Path) -> None:
    storage = torch.zeros(1000)
    torch.save({str(i): storage.view(10, 100) for i in range(3)}, tmp_path / "tied.bin")
    assert len(load_pickled_tensors(tmp_path / "tied.bin")) == 3
    torch.save({str(i): storage.view(10, 100) for i in range(2000)}, tmp_path / "many.bin")
    with pytest.raises(CheckpointError, match="very many tensors"):
        load_pickled_tensors(tmp_path / "many.bin")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files(seed: int, tmp_path: Path) -> None:
    """A damaged pickle is refused or read; nothing else comes out."""
    file, generator = tmp_path / "x.bin", torch.Generator().manual_seed(seed)
    weight = torch.quantize_per_channel(torch.randn(4, 4), torch.ones(4), torch.zeros(4), 0, torch.qint8)
    torch.save({"l._packed_params._packed_params": (weight, torch.ones(4)), "n.weight": torch.ones(4)}, file)
    data = file.read_bytes()
    for place in torch.randint(0, len(data), (200,), generator=generator).tolist():
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged if place % 5 else damaged[:place])
        try:
            with limits(seconds=10):
                load_pickled_tensors(file)
        except CheckpointError as error:
            assert str(error)
