"""First calls from several threads, in one model and in two."""

from __future__ import annotations

import random
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from optimum_int8 import Int8Config, quantize
from optimum_int8.fx import gate
from optimum_int8.fx.gate import Busy, Gate
from optimum_int8.fx.tracing import cheap_tracing
from optimum_int8.passes import find_blocks, remove


def run_all(works: list[Callable[[], Any]]) -> None:
    errors: list[str] = []

    def guarded(work: Callable[[], Any]) -> None:
        try:
            work()
        except BaseException:
            errors.append(traceback.format_exc())

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads), "the threads wait for each other"
    assert not errors, "\n".join(errors)


def model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    return quantize(BertModel(config).eval(), Int8Config(), progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("repetition", range(3))
def test_eight_threads_with_random_lengths_in_two_models(repetition: int) -> None:
    models = [model(seed) for seed in (0, 1)]
    plain = [model(seed) for seed in (0, 1)]
    for one in plain:
        remove(one)
    start = threading.Barrier(8)

    def work(index: int) -> None:
        source = random.Random(100 * repetition + index)
        start.wait()
        for _ in range(6):
            which, length = source.randrange(2), source.choice([1, 3, 8, 40, 140])
            ids = torch.randint(0, 100, (source.choice([1, 2]), length))
            mask = torch.ones_like(ids)
            mask[0, length // 2 + 1 :] = 0
            given = {"input_ids": ids, "attention_mask": mask if source.random() < 0.5 else None}
            with torch.no_grad():
                found, expected = (m(**given).last_hidden_state for m in (models[which], plain[which]))
            shown = mask.bool() if given["attention_mask"] is not None else torch.ones_like(mask).bool()
            assert torch.allclose(found[shown], expected[shown], atol=0.1)

    run_all([lambda i=i: work(i) for i in range(8)])
    for one in models:
        blocks = find_blocks(one)
        assert blocks and not next(iter(blocks.values())).compiler.failures


def test_modules_of_other_threads_stay_themselves_while_torch_traces() -> None:
    """torch.fx puts its own `nn.Module.__call__` in place for the whole process."""
    plain, x, inside, done = nn.Linear(4, 4), torch.randn(2, 4), threading.Event(), threading.Event()
    called: list[int] = []

    class Slow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inside.set()
            done.wait(30)
            return x + 1

    def export() -> None:
        with cheap_tracing():
            torch.export.export(Slow(), (x,), strict=False)

    def watch() -> None:
        inside.wait(30)
        called.append(id(nn.Module.__call__))
        for _ in range(20):
            assert isinstance(plain(x), torch.Tensor)
            assert type(plain.weight) is nn.Parameter
        done.set()

    run_all([export, watch])


def test_own_code_and_captures_exclude_each_other() -> None:
    lock, inside, most = Gate(), [0, 0], [0, 0]

    def enter(kind: int, context: Any) -> None:
        with context:
            inside[kind] += 1
            most[kind] = max(most[kind], inside[kind])
            assert not (inside[0] and inside[1]) and inside[1] <= 1
            threading.Event().wait(0.001)
            inside[kind] -= 1

    def reader() -> None:
        for _ in range(30):
            enter(0, lock.running())

    def writer() -> None:
        for _ in range(30):
            enter(1, lock.capturing())

    run_all([reader, reader, reader, writer, writer])
    assert most[1] == 1 and lock.owner is None


def test_two_threads_in_own_code_that_both_want_to_capture() -> None:
    lock, start = Gate(), threading.Barrier(2)

    def work() -> None:
        with lock.running():
            start.wait(10)
            for _ in range(20):
                with lock.running(), lock.capturing():
                    assert lock.owner == threading.get_ident()

    run_all([work, work])


def test_a_thread_that_never_leaves_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_PATIENCE", 0.05)
    lock, inside, go = Gate(), threading.Event(), threading.Event()

    def stays() -> None:
        with lock.running():
            inside.set()
            go.wait(30)

    def wants() -> None:
        inside.wait(30)
        with pytest.raises(Busy), lock.running(), lock.capturing():
            pass
        go.set()

    run_all([stays, wants])
    with lock.capturing():
        assert lock.owner == threading.get_ident()
