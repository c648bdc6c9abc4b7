"""Layers that ran ahead say what they say one by one, whatever the model's code does between them."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimum_int8 import Int8Cache
from optimum_int8.fx import chain
from optimum_int8.kernels import library
from tests.cache.test_int8_cache import filled, logits, make, prompt

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(library() is None, reason="without the native library nothing runs ahead"),
]


@pytest.fixture(scope="module")
def shared() -> Any:
    """Nobody may change it."""
    model = make(num_hidden_layers=4)
    filled(model, Int8Cache, prompt(1), 4)
    return model


@pytest.fixture
def model(shared: Any) -> Any:
    model = copy.deepcopy(shared)
    filled(model, Int8Cache, prompt(1), 4)
    return model


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers each call of the library ran."""
    lengths: list[int] = []
    run = chain.Chain.run

    def noted(self: chain.Chain, call: Any) -> Any:
        lengths.append(len(self.blocks))
        return run(self, call)

    monkeypatch.setattr(chain.Chain, "run", noted)
    return lengths


def step(model: Any, cache: Any, token: int = 5, **arguments: Any) -> Any:
    with torch.no_grad():
        return model(torch.full((1, 1), token), past_key_values=cache, use_cache=True, **arguments)


def one_by_one(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on no layer runs ahead."""
    monkeypatch.setattr(chain, "_chain", lambda *_: None)


def test_all_layers_run_by_one_call(shared: Any, ran: list[int]) -> None:
    cache = filled(shared, Int8Cache, prompt(1), 0)
    found = [step(shared, cache).logits for _ in range(5)]
    assert ran == [4] * 5 and cache.get_seq_length() == 14
    assert len({x.data_ptr() for x in found}) == 5


def test_hidden_states_are_those_of_each_layer(model: Any, ran: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    cache = filled(model, Int8Cache, prompt(1))
    for _ in range(3):  # another argument is another kind of call, which is captured and followed first
        step(model, copy.deepcopy(cache), output_hidden_states=True)
    found = step(model, cache, output_hidden_states=True).hidden_states
    assert ran[-1] == 4
    one_by_one(model, monkeypatch)
    expected = step(model, filled(model, Int8Cache, prompt(1)), output_hidden_states=True).hidden_states
    assert len(found) == 5 and all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def shift(module: nn.Module, args: Any, output: Any) -> Any:
    hidden = output[0] if isinstance(output, tuple) else output
    return hidden + 1.0


def shift_in_place(module: nn.Module, args: Any, output: Any) -> None:
    hidden = output[0] if isinstance(output, tuple) else output
    hidden.add_(1.0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("hook", [shift, shift_in_place])
@pytest.mark.parametrize("place", [0, 2])
def test_what_a_hook_makes_of_a_result_reaches_the_next_layer(
    model: Any, hook: Any, place: int, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.model.layers[place].register_forward_hook(hook)
    cache = filled(model, Int8Cache, prompt(1))
    with mode():
        found = [step(model, cache).logits for _ in range(3)]
    one_by_one(model, monkeypatch)
    other = filled(model, Int8Cache, prompt(1))
    assert all(torch.equal(a, step(model, other).logits) for a in found)
    assert all(layer.length == 15 for layer in cache.layers)


def test_a_mask_that_is_written_between_layers_is_another_mask(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def hide(module: nn.Module, args: Any, kwargs: Any) -> None:
        mask = kwargs["attention_mask"]
        if mask is None:
            return
        mask[..., :5] = False if mask.dtype == torch.bool else -1e30

    padded = torch.ones(1, 13, dtype=torch.long)
    padded[0, :2] = 0

    def run() -> Tensor:
        cache = filled(model, Int8Cache, prompt(1))
        return step(model, cache, attention_mask=padded).logits

    plain = run()
    model.model.layers[2].register_forward_pre_hook(hide, with_kwargs=True)
    found = run()
    one_by_one(model, monkeypatch)
    assert torch.equal(found, run()) and not torch.equal(found, plain)


def test_a_skipped_layer_does_not_count(model: Any, ran: list[int]) -> None:
    """Its keys and values are not there either."""
    cache = filled(model, Int8Cache, prompt(1))
    skipped = model.model.layers[2]
    forward = skipped.forward
    skipped.forward = lambda hidden, **_: hidden
    found = [step(model, cache).logits for _ in range(3)]
    assert [layer.length for layer in cache.layers] == [15, 15, 12, 15]
    skipped.forward = forward
    again = copy.deepcopy(model)
    again.model.layers[2].forward = lambda hidden, **_: hidden
    other = filled(copy.deepcopy(model), Int8Cache, prompt(1))
    assert all(torch.equal(step(again, other).logits, x) for x in found)


def test_another_weight_of_a_later_layer_is_seen(model: Any) -> None:
    before = filled(model, Int8Cache, prompt(1))
    step(model, before)
    with torch.no_grad():
        model.model.layers[3].input_layernorm.weight.mul_(1.5)
    model.model.layers[2].mlp.down_proj.bias = nn.Parameter(torch.full((64,), 0.1))
    found = filled(model, Int8Cache, prompt(1))
    other = copy.deepcopy(model)
    assert torch.equal(step(model, found).logits, step(other, filled(other, Int8Cache, prompt(1))).logits)


def test_another_storage_of_a_later_layer_is_seen_at_the_next_call(model: Any) -> None:
    """The old one may be freed."""
    cache = filled(model, Int8Cache, prompt(1))
    others = [copy.deepcopy(cache) for _ in range(2)]
    step(model, cache)
    weight = model.model.layers[3].input_layernorm.weight
    weight.data = weight.data * 1.5
    found = step(model, others[0]).logits
    assert torch.equal(found, step(copy.deepcopy(model), others[1]).logits)


def test_threads_share_a_model(shared: Any) -> None:
    prompts = [prompt(1, length) for length in (5, 8, 11, 14)]
    expected = [
        torch.cat([step(shared, c).logits for c in [filled(shared, Int8Cache, p)] for _ in range(20)]) for p in prompts
    ]
    found: dict[int, Tensor] = {}

    def work(place: int) -> None:
        cache = filled(shared, Int8Cache, prompts[place])
        found[place] = torch.cat([step(shared, cache).logits for _ in range(20)])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], expected[i]) for i in range(4))


def test_training_mode_between_layers_is_the_models_own_code(model: Any) -> None:
    cache = filled(model, Int8Cache, prompt(1))
    model.model.layers[2].train()
    found = step(model, cache).logits
    model.eval()
    other = filled(model, Int8Cache, prompt(1))
    expected = step(model, other).logits
    assert (found - expected).norm() <= 0.02 * expected.norm()
    assert all(layer.get_seq_length() == 13 for layer in cache.layers)


def test_an_error_in_between_leaves_the_cache_as_far_as_the_model_came(model: Any) -> None:
    cache = filled(model, Int8Cache, prompt(1))

    def fail(*_: Any) -> None:
        raise ValueError("stop here")

    handle = model.model.layers[2].register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="stop here"):
        step(model, cache)
    handle.remove()
    assert [layer.length for layer in cache.layers] == [13, 13, 12, 12]
    assert logits(model, filled(model, Int8Cache, prompt(1)), prompt(1)[:, :1]).isfinite().all()
