"""`Int8Cache`: the KV cache that `generate()` of an INT8 model makes, which keeps what INT8 attention reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from .rows import Form, Int8Rows

_LEAST_ROOM = 64
"""Rows that there is room for at least; beyond, room is doubled."""

_ZERO = torch.zeros(1, dtype=torch.float32, device="cpu")


class Int8Layer(DynamicLayer):
    """Keys and values of one layer: as tensors until the first step of a decoder block, from then on as INT8 rows that grow in place.

    INT8 attention quantizes the keys and values of each token by themselves, so that rows which were quantized once give the same bits as
    rows which are quantized at every step. `keys` and `values` are then what those rows stand for: float32, made at each access.

    Attributes:
        length: of the INT8 rows.
        rows: INT8 keys and values; None while there are none.
        token: of those rows and no others; None while there are none.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.rows: tuple[Int8Rows, Int8Rows] | None = None
        self.token: object = None
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self._stand_ins: tuple[Tensor, Tensor] | None = None
        super().__init__(**kwargs)

    def __copy__(self) -> Int8Layer:
        """One that goes on by itself: rows grow in place, so that it has its own."""
        found = type(self).__new__(type(self))
        found.__dict__.update(self.__dict__)
        if self.rows is not None:
            keys, values = (rows.with_room(self.length, self.room) for rows in self.rows)
            found._keep((keys, values))
        return found

    @property
    def keys(self) -> Any:
        """float `[batch, heads, length, head]`; None before the first."""
        return self._keys if self.rows is None else self.rows[0].states(self.length)

    @keys.setter
    def keys(self, states: Tensor | None) -> None:
        self._as_floats()
        self._keys = states

    @property
    def values(self) -> Any:
        """float `[batch, heads, length, head]`; None before the first."""
        return self._values if self.rows is None else self.rows[1].states(self.length)

    @values.setter
    def values(self, states: Tensor | None) -> None:
        self._as_floats()
        self._values = states

    def _as_floats(self) -> None:
        if self.rows is not None:
            keys, values = (rows.states(self.length) for rows in self.rows)
            self._keep(None)
            self._keys = keys
            self._values = values

    def _keep(self, rows: tuple[Int8Rows, Int8Rows] | None) -> None:
        self.rows = rows
        self.token = None if rows is None else object()

    @property
    def room(self) -> int:
        """Rows that there is memory for."""
        return 0 if self.rows is None else self.rows[0].codes.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of memory, with the room for more rows."""
        if self.rows is None:
            return sum(states.nbytes for states in (self._keys, self._values) if states is not None)
        return sum(rows.nbytes for rows in self.rows)

    def prepare(self, forms: tuple[Form, Form], batch: int, more: int) -> bool:
        """Make room for `more` rows in INT8, of the states that there are too. False where they are of another kind or batch."""
        if self.rows is None:
            return self._quantize(forms, batch, more)
        if self.rows[0].batch != batch:
            return False
        if self.rows[0].form is not forms[0] and not all(
            rows.form.is_like(form) for rows, form in zip(self.rows, forms, strict=True)
        ):
            return False
        self._make_room(more)
        return True

    def _quantize(self, forms: tuple[Form, Form], batch: int, more: int) -> bool:
        states = (self._keys, self._values)
        length = 0
        for x, form in zip(states, forms, strict=True):
            if x is None or not x.numel():
                continue
            length = x.shape[2]
            if not form.fits(x, batch):
                return False
        rows = tuple(Int8Rows(form, batch, _room(length + more)) for form in forms)
        for x, kept in zip(states, rows, strict=True):
            if x is not None and x.numel():
                kept.append(x, 0)
        if not self.is_initialized:
            self.lazy_initialization(_ZERO, _ZERO)
        self._keys = None
        self._values = None
        self._keep((rows[0], rows[1]))
        self.length = length
        return True

    def fix(self, forms: tuple[Form, Form], batch: int) -> bool:
        """Keep the states in INT8 as they are from now on: those of an encoder, which beams of one sentence share. False where they are of
        another kind or batch."""
        if self.rows is not None:
            same = all(rows.form.is_like(form) for rows, form in zip(self.rows, forms, strict=True))
            return same and self.rows[0].batch == batch
        states = (self._keys, self._values)
        if any(x is None or not form.fits(x, batch) for x, form in zip(states, forms, strict=True)):
            return False
        shared = _shared(states)
        rows = []
        for x, form in zip(states, forms, strict=True):
            assert x is not None
            rows.append(Int8Rows(form, batch // shared, x.shape[2], shared))
            rows[-1].append(x[::shared], 0)
            self.length = x.shape[2]
        self._keys = None
        self._values = None
        self._keep((rows[0], rows[1]))
        return True

    def _make_room(self, more: int) -> None:
        if self.rows is not None and (self.length + more > self.room or self.rows[0].shared > 1):
            room = _room(self.length + more)
            keys, values = self.rows
            self._keep((keys.with_room(self.length, room), values.with_room(self.length, room)))

    def stand_ins(self) -> tuple[Tensor, Tensor]:
        """Tensors of the size and dtype of keys and values, of which only that is of use: they take no time to make."""
        assert self.rows is not None
        batch = self.rows[0].batch
        held = self._stand_ins
        if held is None or held[0].shape[0] != batch or held[0].shape[2] != self.length:
            shapes = [(batch, f.heads, self.length, f.columns // f.heads) for f in (rows.form for rows in self.rows)]
            self._stand_ins = (_ZERO.expand(shapes[0]), _ZERO.expand(shapes[1]))
        assert self._stand_ins is not None
        return self._stand_ins

    def replace_stand_ins(self, tensors: list[Tensor]) -> None:
        """Put keys and values in the place of what stands in for them."""
        if self._stand_ins is not None and self.rows is not None:
            for stand_in, rows in zip(self._stand_ins, self.rows, strict=True):
                for i, tensor in enumerate(tensors):
                    if tensor is stand_in:
                        tensors[i] = rows.states(self.length)

    def takes(self, keys: Tensor, values: Tensor) -> bool:
        """Whether the INT8 rows can go on with such states."""
        return self.rows is not None and all(
            rows.form.has_sizes(states, rows.batch) for rows, states in zip(self.rows, (keys, values), strict=True)
        )

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Append float states `[batch, heads, length, head]`, which it `takes`, to the INT8 rows."""
        self._make_room(keys.shape[2])
        assert self.rows is not None
        for rows, states in zip(self.rows, (keys, values), strict=True):
            rows.append(states, self.length)
        self.length += keys.shape[2]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """See `DynamicLayer`: the model's own code appends states."""
        if self.rows is None:
            return super().update(key_states, value_states, *args, **kwargs)
        earlier = [rows.states(self.length) for rows in self.rows]
        found = torch.cat((earlier[0], key_states), -2), torch.cat((earlier[1], value_states), -2)
        self.append(key_states, value_states)  # after states of another batch or size have raised
        return found

    def get_seq_length(self) -> int:
        """See `DynamicLayer`."""
        return super().get_seq_length() if self.rows is None else self.length

    def crop(self, tokens_to_remove: int) -> None:
        """See `DynamicLayer`: a negative number of tokens leaves at the end."""
        if self.rows is None or tokens_to_remove > 0:
            super().crop(tokens_to_remove)
        else:
            self.length = max(self.length + tokens_to_remove, 0)
            if not self.length:  # the next ones may be of another kind
                self._as_floats()

    def reset(self) -> None:
        """See `DynamicLayer`."""
        self._keep(None)
        self.length = 0
        super().reset()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """See `DynamicLayer`."""
        self._select(beam_idx) if self.rows is not None else super().reorder_cache(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """See `DynamicLayer`."""
        if self.rows is None:
            super().batch_select_indices(indices)
            return
        entries = torch.arange(self.rows[0].batch)
        self._select(entries[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """See `DynamicLayer`."""
        if self.rows is None:
            super().batch_repeat_interleave(repeats)
            return
        self._select(torch.arange(self.rows[0].batch).repeat_interleave(repeats))

    def _select(self, entries: Tensor) -> None:
        assert self.rows is not None
        if not self.rows[0].are_all(entries):
            keys, values = (rows.taken(entries, self.length, self.room) for rows in self.rows)
            self._keep((keys, values))


def _shared(states: tuple[Tensor | None, ...]) -> int:
    """How many entries of the batch that follow one another have the same states, the same number all through."""
    keys, values = states
    assert keys is not None and values is not None
    same = [torch.equal(keys[i], keys[i - 1]) and torch.equal(values[i], values[i - 1]) for i in range(1, len(keys))]
    count = next((i for i, equal in enumerate(same, 1) if not equal), len(keys))
    whole = len(keys) % count == 0 and all(same[i - 1] == (i % count > 0) for i in range(1, len(keys)))
    return count if whole else 1


def _room(length: int) -> int:
    room = _LEAST_ROOM
    while room < length:
        room *= 2
    return room


class Int8Cache(DynamicCache):
    """A KV cache in INT8, a quarter of the memory of float32.

    `generate()` of an INT8 decoder makes one by itself; one that is passed to `forward` or to `generate()` does the same there. Layers
    whose attention is not INT8, and sliding windows, keep float states as in a `DynamicCache`. Logits are those with a `DynamicCache`, to
    the bit. All that a `DynamicCache` can do it can: crop, reorder, select, repeat, reset, be copied. Only a write in place into
    `layers[i].keys` or `.values` does not reach it, which are made at each access: assign them after it.

    Example:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from optimum_int8 import Int8Cache, Int8Config, quantize
        >>> config = LlamaConfig(
        ...     vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        ... )
        >>> model = quantize(LlamaForCausalLM(config).eval(), Int8Config(approach="dynamic"), progress=False)
        >>> cache = Int8Cache(config=config)
        >>> tokens = model.generate(torch.ones(1, 4, dtype=torch.long), past_key_values=cache, max_new_tokens=3)
        >>> cache.get_seq_length()
        6
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._use_own_layers()

    def _use_own_layers(self) -> None:
        held: Any = self
        held.layers = [_own(layer) for layer in held.layers]
        if held.layer_class_to_replicate is DynamicLayer:
            held.layer_class_to_replicate = Int8Layer

    @property
    def nbytes(self) -> int:
        """Bytes of memory that its layers hold, with the room for more tokens."""
        return sum(_nbytes(layer) for layer in self.layers)

    @classmethod
    def like(cls, cache: DynamicCache) -> Int8Cache:
        """One with the layers of a cache that holds nothing yet."""
        found = cls()
        for name, value in vars(cache).items():
            setattr(found, name, value)
        found._use_own_layers()
        return found


def _own(layer: Any) -> Any:
    """An `Int8Layer` in the place of a plain layer."""
    if type(layer) is not DynamicLayer:
        return layer
    own = Int8Layer()
    if layer.is_initialized:
        own.lazy_initialization(layer.keys, layer.values)
        own.keys = layer.keys
        own.values = layer.values
    return own


def _nbytes(layer: Any) -> int:
    if isinstance(layer, Int8Layer):
        return layer.nbytes
    held: Iterable[Any] = (getattr(layer, "keys", None), getattr(layer, "values", None))
    return sum(states.nbytes for states in held if isinstance(states, Tensor))
