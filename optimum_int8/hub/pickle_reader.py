"""A pickle read as data, not run as a program.

Python's unpickler, however restricted in what it may name, still obeys the file: a table of 2^31 entries for one
remembered object, a byte array of any length, a key whose hash takes years. Here the few operations that `torch.save`
writes are carried out one by one, each making at most one object; any other operation is refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

from ..errors import CheckpointError

MAX_PROGRAM_BYTES = 8 << 20
"""Fifty times what the state dict of a large model takes; its tensors lie outside the pickle."""

_PUSH = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_IGNORED = ("PROTO", "FRAME")


class Function:
    """The only kind of thing that a pickle can call: what `find` wrapped in this."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call


class PickleReader:
    """Carries out a pickle's operations on plain containers.

    Args:
        find: what a global name stands for, given module and name: a `Function`, or anything that is not called.
        persistent: the object that a persistent id stands for.
    """

    def __init__(self, find: Callable[[str, str], Any], persistent: Callable[[Any], Any]) -> None:
        self._find = find
        self._persistent = persistent
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # the stacks below the open marks
        self._memo: dict[int, Any] = {}

    def read(self, program: bytes) -> Any:
        """The object that the pickle describes.

        Raises:
            CheckpointError: too long, or an operation that is not allowed.
            Exception: whatever a malformed pickle leads to, such as taking from an empty stack.
        """
        if len(program) > MAX_PROGRAM_BYTES:
            raise CheckpointError(f"the pickle has {len(program)} bytes; expected at most {MAX_PROGRAM_BYTES}")
        for operation, argument, _ in pickletools.genops(program):
            name = operation.name
            if name == "STOP":
                return self._stack.pop()
            if name in _PUSH:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name in _EMPTY:
                self._stack.append(_EMPTY[name]())
            elif name not in _IGNORED:
                step = getattr(self, f"_do_{name.lower()}", None)
                if step is None:
                    raise CheckpointError(f"the pickle uses the operation {name}, which torch does not write; refused")
                step(argument)
        raise CheckpointError("the pickle has no end")

    def _do_mark(self, _: None) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _above_mark(self) -> list[Any]:
        values = self._stack
        self._stack = self._outer.pop()
        return values

    def _do_tuple(self, _: None) -> None:
        values = self._above_mark()
        self._stack.append(tuple(values))

    def _last(self, count: int) -> None:
        values = tuple(self._stack[-count:])
        if len(values) != count:
            raise CheckpointError("the pickle takes more than it has")
        self._stack[-count:] = [values]

    def _do_tuple1(self, _: None) -> None:
        self._last(1)

    def _do_tuple2(self, _: None) -> None:
        self._last(2)

    def _do_tuple3(self, _: None) -> None:
        self._last(3)

    def _do_list(self, _: None) -> None:
        values = self._above_mark()
        self._stack.append(values)

    def _do_append(self, _: None) -> None:
        self._extend([self._stack.pop()])

    def _do_appends(self, _: None) -> None:
        self._extend(self._above_mark())

    def _extend(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise CheckpointError("the pickle appends to what is no list")
        target.extend(values)

    def _do_dict(self, _: None) -> None:
        values = self._above_mark()
        self._stack.append({})
        self._set(values)

    def _do_setitem(self, _: None) -> None:
        value = self._stack.pop()
        key = self._stack.pop()
        self._set([key, value])

    def _do_setitems(self, _: None) -> None:
        self._set(self._above_mark())

    def _set(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict:
            raise CheckpointError("the pickle sets an item of what is no dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            parts = key if type(key) is tuple else (key,)
            if not all(type(part) in (str, int, float, bool, type(None)) for part in parts):
                # The hash of tuples within tuples is computed anew at every level: 60 levels of pairs never end.
                raise CheckpointError("the pickle has a key that is neither text nor a number")
            target[key] = value

    def _do_put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    _do_binput = _do_long_binput = _do_put

    def _do_memoize(self, _: None) -> None:
        self._do_put(len(self._memo))

    def _do_get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    _do_binget = _do_long_binget = _do_get

    def _do_global(self, names: str) -> None:
        module, _, name = names.partition(" ")
        self._name(module, name)

    def _do_stack_global(self, _: None) -> None:
        name = self._stack.pop()
        module = self._stack.pop()
        self._name(module, name)

    def _name(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise CheckpointError("the pickle names what is no text")
        self._stack.append(self._find(module, name))

    def _do_reduce(self, _: None) -> None:
        arguments = self._stack.pop()
        function = self._stack.pop()
        if type(arguments) is not tuple or type(function) is not Function:
            raise CheckpointError("the pickle calls what it may not call")
        self._stack.append(function.call(*arguments))

    _do_newobj = _do_reduce

    def _do_build(self, _: None) -> None:
        self._stack.pop()
        if type(self._stack[-1]) is not dict:  # attributes of a dictionary are dropped: torch writes its version there
            raise CheckpointError("the pickle sets the state of an object; refused")

    def _do_binpersid(self, _: None) -> None:
        self._stack.append(self._persistent(self._stack.pop()))
