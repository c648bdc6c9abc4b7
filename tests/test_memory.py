"""`release_memory`, and what a model keeps: weights are there once, working memory goes when it is told to."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from optimum_int8 import Int8Config, kernels, quantize, release_memory
from optimum_int8.kernels import Program
from optimum_int8.nn import Int8Linear
from optimum_int8.passes import find_blocks
from optimum_int8.passes.merge_projections import join_panels
from tests.quantizers.tiny import make_model

needs_library = pytest.mark.skipif(kernels.library() is None, reason="programs need the native library")

IDS = {"input_ids": torch.arange(5, 17).view(2, 6), "attention_mask": torch.ones(2, 6, dtype=torch.int64)}


def int8_model() -> nn.Module:
    return quantize(make_model(), Int8Config(approach="static"), [IDS], progress=False)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(**IDS).logits


def graphs(model: nn.Module) -> list[object]:
    return [variant for block in find_blocks(model).values() for variant in block.variants.values() if variant]


@needs_library
@pytest.mark.slow
def test_a_model_captures_again_and_gives_the_same() -> None:
    model = int8_model()
    before = logits(model)
    held = [weakref.ref(variant) for variant in graphs(model)]
    blocks = set(find_blocks(model))
    assert held
    release_memory()
    assert not graphs(model) and not any(reference() for reference in held)
    assert torch.equal(logits(model), before)
    assert len(graphs(model)) == len(held) and set(find_blocks(model)) == blocks


@needs_library
@pytest.mark.slow
def test_a_call_that_cannot_be_captured_does_not_split_a_released_block() -> None:
    model = int8_model()
    logits(model)
    blocks = set(find_blocks(model))
    release_memory()
    (block,) = [block for block in find_blocks(model).values() if block.is_stack] or find_blocks(model).values()
    block._miss("an argument of another kind", (torch.randn(1, 3, 32),), {})
    assert blocks <= set(find_blocks(model))


def test_models_that_are_gone_are_forgotten() -> None:
    model = int8_model()
    reference = weakref.ref(model)
    del model
    gc.collect()
    release_memory()
    assert reference() is None


@needs_library
@pytest.mark.slow
def test_threads_in_a_call_are_safe() -> None:
    model = int8_model()
    expected = logits(model)
    wrong: list[object] = []
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            try:
                if not torch.equal(logits(model), expected):
                    wrong.append("other values")
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(6):
        release_memory()
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def quantized(rows: int, threads: int = 1) -> int:
    """Bytes that the library releases after threads that rest have run a program of two steps over so many rows."""
    program = Program()
    x, y = program.external(4 * 64), program.external(64)
    local = program.local(4 * 4096)
    fields = {"columns": 64, "output_scale": 0.1, "output_zero_point": 7}
    program.add("quantize", [x], [y], **fields)
    program.release(local)
    tensors = [torch.randn(rows, 64), torch.empty((rows + 64) * 64, dtype=torch.uint8)]
    ran = threading.Barrier(threads + 1)
    rest = threading.Event()

    def work() -> None:
        program.run(1, rows, tensors)
        ran.wait()
        rest.wait()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    ran.wait()
    loaded = kernels.library()
    assert loaded is not None
    released = loaded.release_memory()
    rest.set()
    for worker in workers:
        worker.join()
    return released


@needs_library
def test_the_working_memory_of_resting_threads_is_released() -> None:
    release_memory()
    one, three = quantized(4096), quantized(4096, threads=3)
    assert one > 4096 * 4 * 4096  # the arena of a row is 4 * 4096 bytes
    assert three >= 3 * (one - 4096 * 8)
    loaded = kernels.library()
    assert loaded is not None and loaded.release_memory() == 0


def panels(number: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randint(-128, 128, (64, 96), dtype=torch.int8, generator=generator) for _ in range(number)]
    return [kernels.pack(weight) for weight in weights]


def test_joined_panels_are_there_once() -> None:
    parts = panels(3, seed=0)
    expected, kept = torch.cat(parts), [part.clone() for part in parts]
    joined = join_panels(parts)
    assert torch.equal(joined, expected) and all(map(torch.equal, parts, kept))
    assert {part.untyped_storage().data_ptr() for part in parts} == {joined.untyped_storage().data_ptr()}
    assert join_panels(parts) is joined, "each graph of a model reads the same tensor"


def test_panels_that_were_joined_otherwise_are_joined_anew() -> None:
    parts = panels(3, seed=1)
    joined = join_panels(parts)
    pair = join_panels(parts[:2])
    assert torch.equal(pair, joined[: len(pair)])
    parts[1] = panels(1, seed=2)[0]
    assert torch.equal(join_panels(parts), torch.cat(parts)) and not torch.equal(join_panels(parts), joined)


def test_panels_of_inference_mode_stay_as_they_are() -> None:
    with torch.inference_mode():
        parts = panels(2, seed=3)
    assert torch.equal(join_panels(parts), torch.cat(parts))


@needs_library
@pytest.mark.slow
def test_the_weights_of_a_captured_model_are_there_once() -> None:
    model = int8_model()
    logits(model)
    linears = [module for module in model.modules() if isinstance(module, Int8Linear)]
    own = {linear.panels.untyped_storage().data_ptr() for linear in linears}
    programs = [m.program for v in graphs(model) for m in v.graph.modules() if hasattr(m, "program")]
    read = [
        t for p in programs if isinstance(p, Program) for t in p.tensors() if t.dtype == torch.int8 and t.dim() == 6
    ]
    assert read and {tensor.untyped_storage().data_ptr() for tensor in read} <= own


RESIDENT = """
import gc, torch
from transformers import BertConfig, BertModel
from optimum_int8 import Int8Config, quantize, release_memory

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1e3

torch.manual_seed(0)
model = BertModel(BertConfig(vocab_size=99, hidden_size=256, num_hidden_layers=2, num_attention_heads=4, intermediate_size=2048,
                             max_position_embeddings=4096)).eval()
model = quantize(model, Int8Config(approach="dynamic"), progress=False)
small, large = torch.full((1, 8), 5), torch.full((1, 4096), 5)
with torch.inference_mode():
    before = model(input_ids=small)[0]
    model(input_ids=large)
    full = resident()
    release_memory()
    print(full - resident())
    assert torch.equal(model(input_ids=small)[0], before)
"""


@needs_library
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_resident_memory_falls() -> None:
    done = subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 10, "megabytes of working memory"


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("length", [6, 300])
def test_panels_that_a_first_call_joins_are_no_change_of_the_module(length: int) -> None:
    """The second call runs the graphs of the first: one block for all layers, and beyond 256 tokens one for each."""
    config = BertConfig(vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    torch.manual_seed(0)
    model = quantize(BertModel(config).eval(), Int8Config(approach="dynamic"), progress=False)
    ids = torch.arange(2 * length).view(2, length) % 50
    with torch.inference_mode():
        first = model(ids)[0]
        built = graphs(model)
        assert torch.equal(model(ids)[0], first)
    again = graphs(model)
    assert len(built) > 1 and len(again) == len(built)
    assert all(one is other for one, other in zip(built, again, strict=True))
