"""`Int8Cache` says what a `DynamicCache` says, to the bit, whatever is done to it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import DynamicCache

from optimum_int8 import Int8Cache, Int8Config, kernels, quantize
from optimum_int8.cache import Form, Int8Layer, Int8Rows
from optimum_int8.kernels import library

pytestmark = pytest.mark.filterwarnings("ignore")
needs_library = pytest.mark.skipif(library() is None, reason="without the native library no program appends to a cache")

SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}


def make(approach: str = "dynamic", config: str = "LlamaConfig", **more: Any) -> Any:
    torch.manual_seed(3)
    settings = getattr(transformers, config)(**{**SIZES, **more})
    model = transformers.AutoModelForCausalLM.from_config(settings).eval()
    data = [{"input_ids": prompt(3)}] if approach == "static" else None
    return quantize(model, Int8Config(approach=approach), data, progress=False)


def prompt(rows: int, length: int = 9) -> Tensor:
    return torch.randint(2, 128, (rows, length), generator=torch.Generator().manual_seed(rows))


def generate(model: Any, cache: Any, ids: Tensor, **settings: Any) -> Any:
    given = {
        "max_new_tokens": 70,
        "do_sample": False,
        "return_dict_in_generate": True,
        "output_logits": True,
        **settings,
    }
    return model.generate(ids, past_key_values=cache, **given)


def logits(model: Any, cache: Any, ids: Tensor, **arguments: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, past_key_values=cache, use_cache=True, **arguments).logits


def filled(model: Any, kind: type, ids: Tensor, steps: int = 3) -> Any:
    cache = kind(config=model.config)
    logits(model, cache, ids)
    for step in range(steps):
        logits(model, cache, ids[:, step : step + 1])
    return cache


# -- rows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [None, torch.tensor(0.02)])
def test_rows_are_quantized_alike_on_every_instruction_set(scale: Tensor | None) -> None:
    torch.manual_seed(0)
    states = torch.randn(2, 3, 5, 20)
    form = Form(3, 60, scale)
    expected = Int8Rows(form, 2, 16)
    expected._append_by_definition(states.transpose(1, 2).flatten(2), 4)
    for isa in kernels.info()["isa_found"]:  # type: ignore[attr-defined]
        with kernels.use_isa(isa):
            rows = Int8Rows(form, 2, 16)
            rows.append(states, 4)
        assert torch.equal(rows.codes[:, 4:9, :60], expected.codes[:, 4:9, :60])
        if rows.scales is not None and expected.scales is not None:
            assert torch.equal(rows.scales[:, 4:9], expected.scales[:, 4:9])
        error = (rows.states(9)[:, :, 4:] - states).abs().max()
        assert error <= (0.04 if scale is None else 2.6)  # a static scale of 0.02 ends at 2.54


def test_rows_that_grow_leave_what_is_there() -> None:
    layer = Int8Layer()
    layer.update(torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8))
    forms = (Form(2, 16, None), Form(2, 16, None))
    assert layer.prepare(forms, 1, 1)
    before = layer.keys
    for _ in range(200):
        layer.append(torch.randn(1, 2, 1, 8), torch.randn(1, 2, 1, 8))
    assert layer.get_seq_length() == 205 and layer.room == 256
    assert torch.equal(layer.keys[:, :, :5], before)


# -- the same as a DynamicCache ----------------------------------------------------------------------------------------


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("approach", ["dynamic", "static"])
@pytest.mark.parametrize("rows", [1, 3])
def test_generates_the_logits_of_a_dynamic_cache(approach: str, rows: int) -> None:
    model = make(approach)
    ids = prompt(rows)
    expected = generate(model, DynamicCache(config=model.config), ids)
    for isa in kernels.info()["isa_found"]:  # type: ignore[attr-defined]
        with kernels.use_isa(isa):
            cache = Int8Cache(config=model.config)
            found = generate(model, cache, ids)
        assert torch.equal(found.sequences, expected.sequences)
        assert all(torch.equal(a, b) for a, b in zip(found.logits, expected.logits, strict=True))
        assert cache.get_seq_length() == 9 + 69
        assert all(layer.rows is not None for layer in cache.layers)


@needs_library
@pytest.mark.slow
def test_generate_makes_one_by_itself() -> None:
    model = make()
    ids = prompt(1)
    made = model.generate(ids, max_new_tokens=4, return_dict_in_generate=True)
    cache = getattr(made, "past_key_values", None) or made.cache
    assert type(cache) is Int8Cache
    held = model.generate(ids, max_new_tokens=4, return_dict_in_generate=True, past_key_values=DynamicCache())
    assert type(getattr(held, "past_key_values", None) or held.cache) is DynamicCache
    fixed = model.generate(ids, max_new_tokens=4, return_dict_in_generate=True, cache_implementation="static")
    assert torch.equal(fixed.sequences, made.sequences)
    assert torch.equal(copy.deepcopy(model).generate(ids, max_new_tokens=4), made.sequences)


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("approach", ["dynamic", "static"])
def test_beams_samples_and_assistants_find_the_same(approach: str) -> None:
    model = make(approach)
    ids = prompt(2)
    for settings in (
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 3, "top_k": 5},
    ):
        given = {"max_new_tokens": 12, "return_dict_in_generate": False, "output_logits": False, **settings}
        torch.manual_seed(5)
        expected = generate(model, DynamicCache(config=model.config), ids, **given)
        torch.manual_seed(5)
        found = generate(model, None, ids, **given)
        assert torch.equal(found, expected), settings
    plain = model.generate(ids[:1], max_new_tokens=12, do_sample=False)
    for settings in ({"prompt_lookup_num_tokens": 3}, {"assistant_model": make(approach, num_hidden_layers=1)}):
        assert torch.equal(model.generate(ids[:1], max_new_tokens=12, do_sample=False, **settings), plain), settings


@needs_library
@pytest.mark.slow
def test_a_second_turn_and_a_prompt_in_chunks() -> None:
    model = make()
    ids = prompt(1, 20)
    found = {}
    for kind in (DynamicCache, Int8Cache):
        cache = filled(model, kind, ids[:, :7])
        turn = logits(model, cache, ids[:, 7:13])
        parts = [logits(model, cache, ids[:, i : i + 3]) for i in (0, 3, 6)]
        step = logits(model, cache, ids[:, :1])
        found[kind] = torch.cat([turn, *parts, step], 1)
    assert torch.equal(found[DynamicCache], found[Int8Cache])


def _crop(cache: Any) -> None:
    cache.crop(-2)


CHANGES = {
    "crop": _crop,
    "reorder": lambda cache: cache.reorder_cache(torch.tensor([1, 1, 0])),
    "select": lambda cache: cache.batch_select_indices(torch.tensor([2, 0, 1])),
    "select by mask": lambda cache: cache.batch_select_indices(torch.tensor([True, True, True])),
    "repeat": lambda cache: (cache.batch_select_indices(torch.tensor([0])), cache.batch_repeat_interleave(3)),
    "nothing": lambda cache: None,
}


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_done_to_a_cache_is_done_to_this_one(change: str) -> None:
    model = make()
    ids = prompt(3)
    found = []
    for kind in (DynamicCache, Int8Cache):
        cache = filled(model, kind, ids)
        CHANGES[change](cache)
        found.append(torch.cat([logits(model, cache, ids[:, i : i + 1]) for i in range(4)], 1))
    assert torch.equal(*found)


@needs_library
@pytest.mark.slow
def test_copies_go_on_by_themselves() -> None:
    model = make()
    ids = prompt(1)
    cache = filled(model, Int8Cache, ids)
    copies = [copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))]
    first = logits(model, cache, ids[:, :1])
    logits(model, cache, ids[:, 1:2])
    for other in copies:
        assert other.get_seq_length() == 12
        assert torch.equal(logits(model, other, ids[:, :1]), first)


@needs_library
@pytest.mark.slow
def test_a_copy_of_its_layers_goes_on_by_itself() -> None:
    model = make()
    ids = prompt(1)
    found = []
    for kind in (DynamicCache, Int8Cache):
        cache = filled(model, kind, ids)
        other = kind(config=model.config)
        other.layers = [copy.copy(layer) for layer in cache.layers]
        tokens = ((cache, 0), (other, 3), (cache, 1), (other, 1))
        found.append(torch.cat([logits(model, c, ids[:, i : i + 1]) for c, i in tokens]))
    assert torch.equal(*found)


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("more", [9, 1])
def test_after_a_crop_to_nothing_the_batch_may_be_another(more: int) -> None:
    model = make()
    found = []
    for kind in (DynamicCache, Int8Cache):
        cache = filled(model, kind, prompt(1))
        cache.crop(-cache.get_seq_length())
        ids = prompt(4)
        found.append(torch.cat([logits(model, cache, ids[:, i]) for i in (slice(more), slice(3, 4), slice(4, 5))], 1))
    assert torch.equal(*found)


@needs_library
@pytest.mark.slow
def test_after_a_crop_to_nothing_the_model_may_be_another() -> None:
    first = make()
    second = make("static")
    ids = prompt(1)
    filled(second, DynamicCache, ids)
    found = []
    for kind in (DynamicCache, Int8Cache):
        cache = filled(first, kind, ids)
        cache.crop(-cache.get_seq_length())
        found.append(torch.cat([logits(second, cache, x) for x in (ids, ids[:, :1], ids[:, 1:2])], 1))
    assert torch.equal(*found)


@needs_library
@pytest.mark.slow
def test_another_batch_raises_before_anything_is_written() -> None:
    model = make()
    cache = filled(model, Int8Cache, prompt(1))
    layer = cache.layers[0]
    before = layer.keys
    states = torch.zeros(4, 2, 1, 16)
    for batch in (4, 64):
        with pytest.raises(RuntimeError, match="must match"):
            logits(model, cache, prompt(batch)[:, :1])
    for wrong in (states, states[:1, :, :, :8], states[:1, :1]):
        with pytest.raises(RuntimeError, match="must match"):
            layer.update(wrong, wrong)
    assert layer.length == 12 and torch.equal(layer.keys, before)


@needs_library
@pytest.mark.slow
def test_after_a_reset_it_begins_anew() -> None:
    model = make()
    ids = prompt(1)
    cache = filled(model, Int8Cache, ids)
    cache.reset()
    assert cache.get_seq_length() == 0
    expected = [logits(model, c, x) for c in [DynamicCache(config=model.config)] for x in (ids, ids[:, :1])]
    assert all(torch.equal(logits(model, cache, x), e) for x, e in zip((ids, ids[:, :1]), expected, strict=True))


# -- other layers, and the model's own code ----------------------------------------------------------------------------


@needs_library
@pytest.mark.slow
def test_sliding_layers_stay_as_they_are() -> None:
    types = ["sliding_attention", "full_attention", "full_attention"]
    model = make(config="Gemma3TextConfig", head_dim=16, sliding_window=7, layer_types=types)
    ids = prompt(1)
    found = [
        generate(model, kind(config=model.config), ids, max_new_tokens=9).logits for kind in (DynamicCache, Int8Cache)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@needs_library
@pytest.mark.slow
def test_the_models_own_code_reads_what_the_rows_stand_for() -> None:
    model = make()
    ids = prompt(1)
    cache = filled(model, Int8Cache, ids)
    before = cache.layers[0].keys
    handles = [layer.mlp.register_forward_hook(lambda *_: None) for layer in model.model.layers]
    own = [logits(model, cache, ids[:, i : i + 1]) for i in range(3)]
    for handle in handles:
        handle.remove()
    assert torch.equal(cache.layers[0].keys[:, :, : before.shape[2]], before)
    other = filled(model, DynamicCache, ids)
    expected = [logits(model, other, ids[:, i : i + 1]) for i in range(3)]
    for a, b in zip(own, expected, strict=True):
        assert (a - b).norm() <= 0.02 * b.norm()
    assert cache.get_seq_length() == other.get_seq_length()
    step = logits(model, cache, ids[:, :1])
    assert (step - logits(model, other, ids[:, :1])).norm() <= 0.02 * step.norm()


@needs_library
@pytest.mark.slow
def test_a_quarter_of_the_memory() -> None:
    model = make(hidden_size=256, num_attention_heads=4, head_dim=64, max_position_embeddings=1100, num_hidden_layers=1)
    floats = DynamicCache(config=model.config)
    cache = Int8Cache(config=model.config)
    ids = prompt(1, 1023)
    for kind in (floats, cache):
        logits(model, kind, ids)
        logits(model, kind, ids[:, :1])
    held = sum(t.nbytes for layer in floats.layers for t in (layer.keys, layer.values))
    assert cache.get_seq_length() == 1024
    assert cache.nbytes <= 0.27 * held


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_default_dtype_changes_nothing(dtype: torch.dtype) -> None:
    """Programs write float32, whatever torch makes by default."""
    model = make()
    ids = prompt(2)
    expected = generate(model, Int8Cache(config=model.config), ids, max_new_tokens=9).sequences
    torch.set_default_dtype(dtype)
    try:
        cache = Int8Cache(config=model.config)
        found = generate(model, cache, ids, max_new_tokens=9).sequences
        assert cache.layers[0].rows[0].scales.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)
