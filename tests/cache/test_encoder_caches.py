"""Keys and values of an encoder are kept in INT8 too, once for all beams of a sentence, and change no bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from optimum_int8 import Int8Cache, kernels
from optimum_int8.cache import Form, Int8Layer
from optimum_int8.kernels import library
from tests.test_encoder_decoders import make, prompt

pytestmark = pytest.mark.filterwarnings("ignore")
FORMS = (Form(2, 16, None), Form(2, 16, torch.tensor(0.02)))


def floats(model: Any) -> EncoderDecoderCache:
    config = model.config.get_text_config(decoder=True)
    return EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))


def generate(model: Any, family: str, rows: int, cache: Any = None, **settings: Any) -> Any:
    given = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "return_dict_in_generate": True, **settings}
    return model.generate(**prompt(family, rows), past_key_values=cache, output_logits=True, **given)


def cache_of(result: Any) -> Any:
    return result.past_key_values if "past_key_values" in result else result.cache


@pytest.mark.slow
@pytest.mark.skipif(library() is None, reason="without the native library no program reads a cache")
@pytest.mark.parametrize("approach", ["dynamic", "static"])
@pytest.mark.parametrize("family", ["bart", "marian", "t5", "whisper"])
def test_generates_what_float_states_generate(family: str, approach: str) -> None:
    model = make(family, approach)
    for rows in (1, 2):
        for settings in ({}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}):
            expected = generate(model, family, rows, floats(model), **settings)
            for isa in kernels.info()["isa_found"] if rows == 1 else ():  # type: ignore[attr-defined]
                with kernels.use_isa(isa):
                    found = generate(model, family, rows, **settings)
                assert torch.equal(found.sequences, expected.sequences)
                assert all(torch.equal(a, b) for a, b in zip(found.logits, expected.logits, strict=True))
            found = generate(model, family, rows, **settings)
            assert torch.equal(found.sequences, expected.sequences)


@pytest.mark.slow
@pytest.mark.skipif(library() is None, reason="without the native library no program reads a cache")
def test_beams_share_what_the_encoder_says() -> None:
    cache = cache_of(generate(make("bart"), "bart", 2, num_beams=3))
    assert type(cache.self_attention_cache) is type(cache.cross_attention_cache) is Int8Cache
    for layer in cache.cross_attention_cache.layers:
        assert layer.rows[0].shared == 3 and layer.rows[0].codes.shape[0] == 2
        assert layer.keys.shape[0] == 6


def repeated(count: int, times: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(count, 2, 5, 8).repeat_interleave(times, 0), torch.randn(count, 2, 5, 8).repeat_interleave(
        times, 0
    )


def fixed(states: tuple[Tensor, Tensor]) -> Int8Layer:
    layer = Int8Layer()
    layer.update(*states)
    assert layer.fix(FORMS, len(states[0]))
    return layer


@pytest.mark.parametrize(("count", "times"), [(1, 4), (2, 3), (3, 1)])
@pytest.mark.parametrize("order", [[0, 0, 1], [2, 1, 0], [1, 1, 1]])
def test_beams_that_change_places_find_their_sentence(count: int, times: int, order: list[int]) -> None:
    layer = fixed(repeated(count, times))
    before = layer.keys, layer.values
    entries = torch.tensor([group * times + order[i % 3] % times for group in range(count) for i in range(times)])
    token = layer.token
    layer.reorder_cache(entries)
    assert torch.equal(layer.keys, before[0][entries]) and torch.equal(layer.values, before[1][entries])
    assert (layer.token is token) == (times > 1 or entries.tolist() == list(range(count)))


def test_sentences_that_change_places_are_kept_one_by_one() -> None:
    layer = fixed(repeated(2, 3))
    before = layer.keys
    entries = torch.tensor([5, 0, 1, 1, 4, 2])
    layer.batch_select_indices(entries)
    assert layer.rows is not None and layer.rows[0].shared == 1
    assert torch.equal(layer.keys, before[entries])
    layer.batch_repeat_interleave(2)
    assert torch.equal(layer.keys, before[entries].repeat_interleave(2, 0))


def test_unlike_sentences_share_nothing() -> None:
    keys, values = repeated(2, 3)
    keys[4, 0, 0, 0] += 1.0
    assert fixed((keys, values)).rows[0].shared == 1  # type: ignore[index]
    uneven = torch.cat([repeated(1, 2)[0], repeated(2, 2)[0][1:]])
    assert fixed((uneven, uneven)).rows[0].shared == 1  # type: ignore[index]


def test_states_of_another_kind_stay_floats() -> None:
    layer = Int8Layer()
    layer.update(torch.randn(2, 2, 5, 4), torch.randn(2, 2, 5, 8))
    assert not layer.fix(FORMS, 2) and layer.rows is None
    layer = fixed(repeated(2, 1))
    assert not layer.fix(FORMS, 3)


def test_states_are_appended_to_each_beam() -> None:
    layer = fixed(repeated(2, 3))
    before = layer.keys
    more = torch.randn(6, 2, 2, 8)
    keys, _ = layer.update(more, more)
    assert torch.equal(keys, torch.cat((before, more), 2))
    assert layer.rows is not None and layer.rows[0].shared == 1
    assert layer.length == 7 and torch.equal(layer.keys[:, :, :5], before)
    assert (layer.keys[:, :, 5:] - more).abs().max() <= 0.04
