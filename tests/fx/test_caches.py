"""Decoder layers with a KV cache as blocks: the cache's states are tensors of the graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, StaticCache
from transformers.cache_utils import DynamicSlidingWindowLayer

from optimum_int8 import Int8Config, inspect, quantize
from optimum_int8.fx.arguments import NotCapturable, cache_tensors, flatten, rebuild
from optimum_int8.fx.caches import find_cache, layer_index, store, stored
from optimum_int8.fx.captured import other_shapes
from optimum_int8.kernels import library
from optimum_int8.nn import Int8Linear
from optimum_int8.passes import find_blocks
from tests import zoo

pytestmark = pytest.mark.filterwarnings("ignore")

X = torch.rand(2, 3, 8)


def states(length: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    return torch.rand(batch, 4, length, 2), torch.rand(batch, 4, length, 2)


def dynamic(*lengths: int) -> DynamicCache:
    cache = DynamicCache()
    for layer, length in enumerate(lengths):
        cache.update(*states(length), layer)
    return cache


def both(own: int, source: int, updated: bool) -> EncoderDecoderCache:
    cache = EncoderDecoderCache(dynamic(own) if own else DynamicCache(), dynamic(source) if source else DynamicCache())
    cache.is_updated = {0: updated}
    return cache


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cache", "layer", "places"),
    [
        (DynamicCache(), 0, []),
        (dynamic(5), 0, ["self"] * 2),
        (dynamic(5, 6), 1, ["self"] * 2),
        (dynamic(5), 1, []),
        (both(0, 0, False), 0, []),
        (both(5, 7, True), 0, ["self"] * 2 + ["cross"] * 2),
    ],
)
def test_rebuilt_caches_hold_the_layers_tensors(cache: Any, layer: int, places: list[str]) -> None:
    mask = torch.ones(2, 1, 3, 3)
    key, tensors = flatten((X, cache), {"mask": mask}, layer)
    hash(key)
    assert list(cache_tensors(key).values()) == places
    assert list(cache_tensors(key)) == list(range(1, 1 + len(places)))
    assert len(tensors) == 2 + len(places) and tensors[-1] is mask
    args, kwargs = rebuild(key, tensors, layer)
    assert kwargs["mask"] is mask and type(args[1]) is type(cache) and args[1] is not cache
    assert stored(args[1], tensors, layer) == ((), [])


def test_what_a_graph_depends_on_changes_the_key() -> None:
    def key(cache: Any, length: int = 3, layer: int = 0) -> Any:
        return flatten((torch.rand(2, length, 8), cache), {}, layer)[0]

    keys = [
        key(None),
        key(DynamicCache()),
        key(dynamic(5)),
        key(dynamic(5), 1),
        key(both(0, 0, False)),
        key(both(5, 7, True)),
    ]
    assert len(set(keys)) == len(keys)
    assert key(dynamic(5)) == key(dynamic(50)) == key(dynamic(1, 5), layer=1)
    assert key(DynamicCache(), 1) == key(DynamicCache(), 3)


def test_a_call_on_rebuilt_arguments_leaves_the_users_cache_alone() -> None:
    cache = both(5, 0, False)
    key, tensors = flatten((X, cache), {}, 0)
    args, _ = rebuild(key, tensors, 0)
    args[1].self_attention_cache.update(*states(3), 0)
    args[1].cross_attention_cache.update(*states(7), 0)
    assert cache.get_seq_length() == 5 and not cache.is_updated[0] and len(cache.cross_attention_cache.layers) == 0
    places, found = stored(args[1], tensors, 0)
    assert places == ("self", "cross") and [t.shape[2] for t in found] == [8, 8, 7, 7]
    store(cache, places, found, 0)
    assert cache.get_seq_length() == 8 and cache.is_updated[0]
    assert cache.cross_attention_cache.get_seq_length() == 7


def test_a_filled_cache_can_be_used_as_ever() -> None:
    cache = DynamicCache()
    store(cache, ("self",), states(5), 2)
    assert [layer.get_seq_length() for layer in cache.layers] == [0, 0, 5]
    cache.update(*states(1), 2)
    cache.reorder_cache(torch.tensor([1, 0]))
    cache.batch_repeat_interleave(2)
    assert cache.layers[2].keys.shape == (4, 4, 6, 2)


@pytest.mark.parametrize(
    ("cache", "layer", "reason"),
    [
        (dynamic(5), None, "which of its layers"),
        (StaticCache(zoo.make("gpt2").config, max_cache_len=9), 0, "StaticCache"),
        (DynamicCache.__new__(DynamicCache), 0, "Sliding"),
    ],
)
def test_other_caches_are_refused_with_the_reason(cache: Any, layer: int | None, reason: str) -> None:
    if reason == "Sliding":
        cache.__init__()
        cache.layers = [DynamicSlidingWindowLayer(4)]
        cache.layers[0].activate_past_recording()  # how much it holds then depends on whether it was cropped
    with pytest.raises(NotCapturable, match=reason):
        flatten((X, cache), {}, layer)


def test_a_cache_before_any_tensor_is_refused() -> None:
    with pytest.raises(NotCapturable, match="which of its layers"):
        flatten((), {"cache": dynamic(5), "x": X}, 0)


def test_find_cache() -> None:
    cache = dynamic(1)
    assert find_cache([X, None, cache, 3]) is cache
    assert find_cache([X, None]) is None


def test_layer_index() -> None:
    model = zoo.make("gpt2")
    assert [layer_index(block) for block in model.transformer.h] == [0, 1]
    assert layer_index(model) is None
    assert layer_index(torch.nn.Linear(2, 2)) is None


# -- examples ----------------------------------------------------------------------------------------------------------


def shapes_of(step: bool, own: int, source: int) -> tuple[list[tuple[int, ...]], list[set[int]]]:
    x = torch.rand(2, 1 if step else 3, 8)
    total = own + x.shape[1]
    tensors = [
        x,
        *states(own),
        *states(source),
        torch.rand(2, 1, x.shape[1], total),
        torch.rand(2, 1, x.shape[1], source),
    ]
    cached = {1: "self", 2: "self", 3: "cross", 4: "cross"}
    example, axes = other_shapes(tensors, (), cached)
    return [tuple(t.shape) for t in example], [set(a) for a in axes]


@pytest.mark.parametrize("own", [1, 2, 5])
@pytest.mark.parametrize("source", [6, 5, 2])
@pytest.mark.parametrize("step", [True, False])
def test_examples_of_cached_calls_fit_together(step: bool, own: int, source: int) -> None:
    (x, past, _, cross, _, mask, cross_mask), axes = shapes_of(step, own, source)
    assert (x[1] == 1) is step and past[2] > own and past[0] == x[0] == mask[0] > 2
    assert mask == (x[0], 1, x[1], past[2] + x[1])
    assert cross_mask[3] == cross[2]
    assert axes[1] == {0, 2} and axes[3] == {0, 2} and 3 in axes[5]
    assert (2 in axes[5]) is not step


# -- blocks ------------------------------------------------------------------------------------------------------------


def int8(name: str, approach: str = "static") -> Any:
    model = zoo.make(name)
    return quantize(model, Int8Config(approach=approach), [zoo.inputs(model, 3, 12, 2)], progress=False)


def generate(model: Any, rows: int = 2, steps: int = 6, **settings: Any) -> Tensor:
    torch.manual_seed(5)
    batch = zoo.inputs(model, rows)
    batch.pop("decoder_input_ids", None)
    return model.generate(**batch, max_new_tokens=steps, min_new_tokens=steps, do_sample=False, **settings)


def decoder_blocks(model: Any) -> list[Any]:
    blocks = find_blocks(model).items()
    return [
        b for name, b in blocks if "encoder" not in name and not isinstance(b.module, Int8Linear)
    ]  # without the head


@pytest.mark.slow
@pytest.mark.skipif(library() is None, reason="without the native library nothing is fused")
@pytest.mark.parametrize("name", zoo.GENERATIVE)
def test_whole_decoder_layers_are_blocks_and_generate_the_same(name: str) -> None:
    model = int8(name)
    expected = generate(model, use_cache=False)
    assert torch.equal(generate(model, use_cache=True), expected)
    layers = decoder_blocks(model)
    assert len(layers) == 2 and all(block.layer is not None for block in layers)
    for block in layers:
        stepped = [v for key, v in block.variants.items() if v is not None and cache_tensors(key)]
        assert stepped and all("self" in v.places for v in stepped)
        calls = [name for v in stepped for name in (str(n.target) for n in v.graph.graph.nodes)]
        assert not any("optimum_int8.attention.default" in name for name in calls)
    assert inspect(model).failures == {}
    assert torch.equal(generate(model, 3, 9, use_cache=True), generate(model, 3, 9, use_cache=False))
    if name in ("t5", "gpt2"):  # the states are reordered between the steps
        assert torch.equal(generate(model, use_cache=True, num_beams=3), generate(model, use_cache=False, num_beams=3))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_the_cache_holds_what_the_models_own_code_stores(name: str) -> None:
    fused = int8(name)
    own = quantize(
        zoo.make(name), Int8Config(approach="static", fuse=False), [zoo.inputs(fused, 3, 12, 2)], progress=False
    )
    batch, held = zoo.inputs(fused), []
    for model in (fused, own):
        first = model(**batch, use_cache=True)
        step = {"decoder_input_ids": torch.tensor([[4], [5]])} if "decoder_input_ids" in batch else {}
        kept = torch.cat([batch["attention_mask"], torch.ones(2, 1, dtype=torch.long)], 1)
        more = {**batch, **step} if step else {"input_ids": torch.tensor([[4], [5]]), "attention_mask": kept}
        held.append(model(**more, cache=first.cache, use_cache=True).cache)
    parts = [(c.self_attention_cache, c.cross_attention_cache) if name == "t5" else (c,) for c in held]
    for ours, theirs in zip(*parts, strict=True):
        assert len(ours.layers) == len(theirs.layers) == 2
        for a, b in zip(ours.layers, theirs.layers, strict=True):
            assert a.keys.shape == b.keys.shape and a.is_initialized
            torch.testing.assert_close(a.keys, b.keys, rtol=0.05, atol=0.05)
            torch.testing.assert_close(a.values, b.values, rtol=0.05, atol=0.05)


@pytest.mark.slow
def test_prompt_and_source_of_one_length_are_two_lengths() -> None:
    """The first call's sizes coincide; later calls' do not."""
    model = int8("t5")
    plain = quantize(
        zoo.make("t5"), Int8Config(approach="static", fuse=False), [zoo.inputs(model, 3, 12, 2)], progress=False
    )
    for source, target in ((6, 6), (6, 4), (9, 12)):
        ids = torch.randint(3, 90, (2, source))
        batch = {"input_ids": ids, "decoder_input_ids": torch.randint(3, 90, (2, target))}
        assert zoo.logits(model, batch).shape == zoo.logits(plain, batch).shape
        torch.testing.assert_close(zoo.logits(model, batch), zoo.logits(plain, batch), rtol=0.2, atol=0.2)


@pytest.mark.slow
def test_a_static_cache_runs_own_code_and_inspect_says_so() -> None:
    model = int8("gpt2")
    expected = generate(model, use_cache=False)
    assert torch.equal(generate(model, cache_implementation="static"), expected)
    notes = [row.note for row in inspect(model).blocks]
    assert any("StaticCache" in note or "StaticLayer" in note for note in notes)
