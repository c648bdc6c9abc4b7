"""A call's arguments as a flat list of tensors and a hashable description of the rest: what a captured graph depends on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from .caches import CACHE, describe_cache, restore_cache, stored, tensor_places

Key = tuple[Any, ...]

_TENSOR = "tensor"
_SCALARS = (bool, int, float, str)


class NotCapturable(Exception):
    """Why a call cannot become a graph."""


class SliceDiffers(NotCapturable):
    """The same, where it may be only for the sizes of the tensors that were looked at."""


def flatten(args: Sequence[Any], kwargs: Mapping[str, Any], layer: int | None = None) -> tuple[Key, list[Tensor]]:
    """The guard key and the tensors of a call.

    The key holds dtype, rank and broadcast axes of each tensor, the value of each scalar, and which arguments are None. Of a KV cache,
    what it holds at place `layer` are tensors of the call.

    Raises:
        NotCapturable: an argument is an object that may hold state.
    """
    tensors: list[Tensor] = []
    positional = tuple([_describe_argument(x, tensors, layer) for x in args])
    named = tuple([(name, _describe_argument(x, tensors, layer)) for name, x in kwargs.items()])
    return (positional, named), tensors


def _describe_argument(x: Any, tensors: list[Tensor], layer: int | None) -> Any:
    if x is None or isinstance(x, Tensor) or not isinstance(x, Cache):
        return _describe(x, tensors)
    item = describe_cache(x, layer, tensors)
    if isinstance(item, str):
        raise NotCapturable(item)
    return item


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of a call for runs besides the call itself: what those write stays away from the user's, and shows as another version."""
    with torch.inference_mode(False):
        made = {id(x): x.detach().clone() for x in tensors}
    return [made[id(x)] for x in tensors]


def cache_tensors(key: Key) -> dict[int, str]:
    """Which tensors of a call come from the cache, and from which part of it."""
    position = 0
    found = {}
    for item in [*key[0], *(item for _, item in key[1])]:
        places = tensor_places(item) if item is not None and item[0] == CACHE else None
        if places is None:
            position += _count(item)
            continue
        found.update({position + i: place for i, place in enumerate(places)})
        position += len(places)
    return found


def _count(item: Any) -> int:
    if item is None:
        return 0
    if item[0] in (tuple, list):
        return sum(_count(x) for x in item[1])
    return int(item[0] == _TENSOR)


def flatten_output(
    output: Any, cache: Cache | None = None, given: Sequence[Tensor] = (), layer: int | None = None
) -> tuple[Key, list[Tensor]]:
    """Structure and tensors of a result: a tensor, or a tuple or a `ModelOutput` of tensors and None; then what the call added to `cache`.

    Args:
        cache, given, layer: of the call: the cache from `rebuild`, the tensors, the place.

    Raises:
        NotCapturable: the result is something else, such as a list.
    """
    if not (isinstance(output, (Tensor, ModelOutput)) or type(output) is tuple):
        raise NotCapturable(f"its result is a {type(output).__name__}, not tensors")
    tensors: list[Tensor] = []
    structure = _describe(output, tensors, False)
    places, more = stored(cache, given, layer)
    return (structure, places), tensors + more


def _describe(x: Any, tensors: list[Tensor], is_input: bool = True) -> Any:
    if isinstance(x, Tensor):
        tensors.append(x)
        # sizes of a result are symbols while it is captured
        return (_TENSOR, x.dtype, x.dim(), _broadcasts(x, tensors[0]) if is_input else None)
    if x is None:
        return None
    if type(x) in _SCALARS:
        return (type(x), x)
    if type(x) in (tuple, list):
        return (type(x), tuple([_describe(item, tensors, is_input) for item in x]))
    if isinstance(x, ModelOutput) and not is_input:
        return (type(x), tuple([(name, _describe(item, tensors, is_input)) for name, item in x.items()]))
    raise NotCapturable(f"an argument is a {type(x).__name__}, which may hold state")


def _broadcasts(x: Tensor, first: Tensor) -> tuple[bool, ...]:
    """Which axes of an argument broadcast: how a graph reads them depends on it.

    An axis of size 1 broadcasts only where the batch (or the length) is not 1 too. A graph that was captured on a single token, or on
    a batch of one, therefore never serves a call in which such an axis turns out to stand still.
    """
    shape = x.shape
    if len(shape) < 2:
        return ()
    # not what `==` gives: sizes are symbols while a model is exported
    other = first.shape
    batch = bool(other[0] == 1)
    length = len(other) > 1 and bool(other[1] == 1)
    alone = bool(shape[0] == 1) != batch
    if len(shape) != 4:
        return (alone, bool(shape[1] == 1) != length)
    return (alone, bool(shape[1] == 1), bool(shape[2] == 1) != length, bool(shape[3] == 1) != length)


def rebuild(key: Key, tensors: Sequence[Tensor], layer: int | None = None) -> tuple[list[Any], dict[str, Any]]:
    """The inverse of `flatten`. A cache is a new one, which may change without harm to the user's."""
    source = iter(tensors)
    positional, named = key
    args = [_restore(item, source, layer) for item in positional]
    return args, {name: _restore(item, source, layer) for name, item in named}


def rebuild_output(key: Key, tensors: Sequence[Tensor]) -> Any:
    """The inverse of `flatten_output`."""
    return _restore(key[0], iter(tensors))


def _restore(item: Any, source: Any, layer: int | None = None) -> Any:
    if item is None:
        return None
    if item[0] == _TENSOR:
        return next(source)
    if item[0] == CACHE:
        assert layer is not None
        return restore_cache(item, source, layer)
    if item[0] in (tuple, list):
        return item[0](_restore(x, source) for x in item[1])
    if issubclass(item[0], ModelOutput):
        return make_output(item[0], {name: _restore(x, source) for name, x in item[1]})
    return item[1]


_EMPTY: dict[tuple[Any, ...], dict[str, None] | None] = {}
"""By class of output and names given, the attributes of an output before those are set; None where its class does more than hold them."""


def make_output(cls: type[ModelOutput], values: dict[str, Any]) -> ModelOutput:
    """`cls(**values)`, for values that are not None.

    A dataclass that looks at its fields five times costs a small encoder a sixtieth of its call. It is built directly where that
    was once seen to give the same.
    """
    known = (cls, *values)
    if known not in _EMPTY:
        made = cls(**values)
        empty = dict.fromkeys(vars(made))
        same = _same_output(_build(cls, empty, values), made)
        _EMPTY[known] = empty if same else None
        return made
    empty_attributes = _EMPTY[known]
    return cls(**values) if empty_attributes is None else _build(cls, empty_attributes, values)


def _build(cls: type[ModelOutput], empty: dict[str, None], values: dict[str, Any]) -> ModelOutput:
    made = OrderedDict.__new__(cls)
    attributes = vars(made)
    attributes.update(empty)
    attributes.update(values)
    for name, value in values.items():
        OrderedDict.__setitem__(made, name, value)
    return made


def _same_output(found: ModelOutput, expected: ModelOutput) -> bool:
    """Whether two outputs hold the same objects under the same names, in the same order."""
    ours = [*vars(found).items(), *OrderedDict.items(found)]
    theirs = [*vars(expected).items(), *OrderedDict.items(expected)]
    return len(ours) == len(theirs) and all(
        name == other and value is given for (name, value), (other, given) in zip(ours, theirs, strict=True)
    )
