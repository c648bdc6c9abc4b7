"""Weights in large pages are tensors as any other, and their memory goes back when they end."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import threading

import pytest
import torch
from torch import Tensor

from optimum_int8.kernels import large_pages, pack
from optimum_int8.kernels.large_pages import empty_weight


def filled(*shape: int) -> Tensor:
    found = empty_weight(shape)
    assert found.shape == shape and found.dtype == torch.int8 and found.is_contiguous()
    return found.copy_(torch.arange(found.numel()).view(shape) % 101)


def test_neighbours_do_not_touch() -> None:
    made = [filled(rows, 1000) for rows in (70, 131, 66, 4000)]
    for tensor in made:
        assert torch.equal(tensor.flatten().to(torch.int64), torch.arange(tensor.numel()) % 101)
        assert tensor.data_ptr() % 64 == 0 and tensor._base is None
        assert tensor.untyped_storage().nbytes() == tensor.numel() and tensor.storage_offset() == 0


def test_they_outlive_their_neighbours() -> None:
    first = filled(300, 1000)
    second = filled(300, 1000)
    third = filled(300, 1000)
    expected = torch.arange(300_000) % 101
    del second
    gc.collect()
    assert torch.equal(first.flatten().to(torch.int64), expected)
    assert torch.equal(third.flatten().to(torch.int64), expected)


def test_views_keep_the_memory() -> None:
    row = filled(300, 1000)[7]
    gc.collect()
    filled(300, 1000)
    assert torch.equal(row.to(torch.int64), torch.arange(7000, 8000) % 101)


def test_copies_and_files_hold_the_tensor_alone() -> None:
    tensor = filled(200, 1000)
    file = io.BytesIO()
    torch.save(tensor, file)
    assert file.tell() < 210_000
    file.seek(0)
    for other in (copy.deepcopy(tensor), pickle.loads(pickle.dumps(tensor)), torch.load(file)):
        assert torch.equal(other, tensor)


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.slow
def test_memory_goes_back() -> None:
    kept = filled(200, 1000)
    before = resident()
    made = [empty_weight((4000, 1000)).fill_(1) for _ in range(30)]
    during = resident()
    assert during - before > 100e6
    del made
    gc.collect()
    assert resident() - before < 0.2 * (during - before)
    assert int(kept[0, 5]) == 5


def test_threads_get_memory_of_their_own() -> None:
    found: list[Tensor] = []

    def work(value: int) -> None:
        for _ in range(20):
            found.append(empty_weight((100, 1000)).fill_(value))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(tensor.unique()) == 1 for tensor in found)


def test_without_them_weights_lie_where_torch_puts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randint(-127, 128, (256, 512), dtype=torch.int8)
    expected = pack(weight)
    monkeypatch.delattr(large_pages.mmap, "MADV_HUGEPAGE")
    assert torch.equal(pack(weight), expected)
