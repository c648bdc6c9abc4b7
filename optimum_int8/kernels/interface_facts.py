"""The constants of the C interface that `interface.py` repeats, and where those of a library differ from them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from ..numerics import CONV_ACTIVATIONS
from .interface import BAG_MODES, ISAS, KEYS, MASKS, NORMS, OPERATORS, OPS, STATUSES, Call, Keys, NativeProgram, Value
from .structs import HEAD, ImageWindow, Instruction, Pool

_STRUCTS: dict[str, type[ctypes.Structure]] = {
    "oi8_value": Value,
    "oi8_instruction": Instruction,
    "oi8_window": ImageWindow,
    "oi8_program": NativeProgram,
    "oi8_keys": Keys,
    "oi8_call": Call,
    **{"oi8_pool" if struct is Pool else f"oi8_{op}": struct for op, struct in OPERATORS.items()},
}


def _enumerators() -> Iterator[tuple[str, int]]:
    for kind, names in (
        ("ISA", ISAS),
        ("OP", OPS),
        ("ACTIVATION", CONV_ACTIVATIONS),
        ("NORM_KIND", ("no_norm", *NORMS[1:])),
        ("MASK", tuple(f"{'no' if name == 'none' else name}_mask" for name in MASKS)),
        ("BAG_MODE", tuple(f"bag_{name}" for name in BAG_MODES)),
        ("STATUS", STATUSES),
    ):
        yield from ((f"OI8_{name.upper()}", number) for number, name in enumerate(names))
        yield f"OI8_{kind}_COUNT", len(names)


def expected() -> dict[str, int]:
    """The constants that this package was written for, named as in the header: enumerators, sizes of structs, places of fields."""
    facts = {**dict(_enumerators()), "OI8_KEYS": KEYS}
    for name, struct in _STRUCTS.items():
        facts[f"sizeof {name}"] = ctypes.sizeof(struct)
        inherited = () if struct is Instruction or not hasattr(struct, "op") else [field for field, _ in HEAD]
        for field, *_ in struct._fields_:
            if field not in inherited:
                facts[f"{name}.{field}"] = getattr(struct, field).offset
    return facts


def differences(found: dict[str, int]) -> list[str]:
    """Where the constants that a library reports are not the expected ones, a sentence each."""
    wanted = expected()
    return [
        f"{name} is {found.get(name, 'missing')}, expected {wanted.get(name, 'nothing of this name')}"
        for name in dict.fromkeys((*wanted, *found))
        if wanted.get(name) != found.get(name)
    ]
