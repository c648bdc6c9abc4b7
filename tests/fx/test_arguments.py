"""A call's arguments, flat and back."""

from __future__ import annotations

import pytest
import torch

from optimum_int8.fx.arguments import NotCapturable, flatten, flatten_output, rebuild, rebuild_output

A, B, C = torch.ones(2, 3), torch.zeros(4, dtype=torch.int64), torch.rand(2, 1, 5, 5)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((A,), {}),
        ((), {"x": A, "mask": None, "flag": True, "name": "sdpa", "n": 3, "eps": 1e-5}),
        ((A, None, 2), {"pair": (A, (B, None)), "many": [C, 1], "empty": ()}),
        ((A, A), {"again": A}),
    ],
)
def test_rebuild_is_the_inverse_of_flatten(args: tuple, kwargs: dict) -> None:
    key, tensors = flatten(args, kwargs)
    hash(key)
    found_args, found_kwargs = rebuild(key, tensors)
    assert repr(tuple(found_args)) == repr(args)
    assert repr(found_kwargs) == repr(kwargs)
    assert list(found_kwargs) == list(kwargs)
    assert all(type(found) is type(given) for found, given in zip(found_kwargs.values(), kwargs.values(), strict=True))


def key_of(*args: object, **kwargs: object) -> object:
    return flatten(args, kwargs)[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (key_of(A), key_of(A.double())),
        (key_of(A), key_of(A.unsqueeze(0))),
        (key_of(A, None), key_of(A, A)),
        (key_of(A, x=1), key_of(A, x=2)),
        (key_of(A, x=1), key_of(A, x=True)),
        (key_of(A, x=1), key_of(A, x=1.0)),
        (key_of(A, x=1), key_of(A, y=1)),
        (key_of((A, A)), key_of([A, A])),
        (key_of(C), key_of(C.expand(2, 3, 5, 5))),  # a mask for all heads, or one for each
        (key_of(C), key_of(C[:, :, :1])),  # and for all queries
    ],
)
def test_what_a_graph_depends_on_changes_the_key(one: object, other: object) -> None:
    assert one != other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (A, torch.rand(7, 3)),
        (A, torch.rand(2, 40)),
        (C, torch.rand(3, 1, 9, 9)),
        (C, torch.rand(1, 1, 2, 7)),
    ],
)
def test_batch_length_and_values_do_not(one: torch.Tensor, other: torch.Tensor) -> None:
    assert key_of(one) == key_of(other)


@pytest.mark.parametrize("state", [object(), {"a": A}, {1}, torch.float32, slice(1), (A, object())])
def test_an_object_that_may_hold_state_is_named(state: object) -> None:
    name = type(state[1] if isinstance(state, tuple) else state).__name__
    with pytest.raises(NotCapturable, match=f"an argument is a {name}, which may hold state"):
        flatten((A,), {"cache": state})


@pytest.mark.parametrize("output", [A, (A,), (A, None), (A, (B, C), None)])
def test_outputs_of_tensors_and_none(output: object) -> None:
    key, tensors = flatten_output(output)
    assert repr(rebuild_output(key, tensors)) == repr(output)


@pytest.mark.parametrize("output", [{"logits": A}, [A], None, 3])
def test_other_outputs_are_refused(output: object) -> None:
    with pytest.raises(NotCapturable, match=f"its result is a {type(output).__name__}"):
        flatten_output(output)
