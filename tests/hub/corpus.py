"""Damaged checkpoints: (name, function that damages a copy of a good folder). Every one has to be refused."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from optimum_int8.hub.binding import BINDING_KEY, bind
from optimum_int8.hub.checkpoint import CHECKSUMS_KEY, checksums
from tests.hub.helpers import edit_json, edit_tensors
from tests.hub.pickles import HOSTILE

Damage = Callable[[Path], Any]

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def corpus(folder: Path) -> Iterator[tuple[str, Damage]]:
    """All damages for the checkpoint in `folder`; the choice of bits and places is the same in every run."""
    chance = random.Random(0)
    yield from flipped_bits(folder, chance)
    yield from truncated(folder)
    yield from rewritten_headers()
    yield from changed_tensors(folder, chance)
    yield from hostile_configs()
    yield from hostile_files()
    yield from damaged_shards()
    yield from foreign_formats()


def flipped_bits(folder: Path, chance: random.Random) -> Iterator[tuple[str, Damage]]:
    data = (folder / WEIGHTS).read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    places = [chance.randrange(8 * 8) for _ in range(8)]
    places += [8 * 8 + chance.randrange(8 * (header - 8)) for _ in range(60)]
    places += [8 * header + chance.randrange(8 * (len(data) - header)) for _ in range(40)]
    for bit in places:

        def flip(copy: Path, bit: int = bit) -> None:
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            (copy / WEIGHTS).write_bytes(damaged)

        yield f"bit {bit} of the weights", flip


def truncated(folder: Path) -> Iterator[tuple[str, Damage]]:
    size = (folder / WEIGHTS).stat().st_size
    for length in (0, 1, 7, 8, 9, 100, size // 4, size // 2, size - 1000, size - 4, size - 1):
        yield f"weights cut to {length}", lambda copy, n=length: _write(copy, (copy / WEIGHTS).read_bytes()[:n])
    for extra in (b"\0", b"x" * 100):
        yield f"{len(extra)} bytes appended", lambda copy, e=extra: _write(copy, (copy / WEIGHTS).read_bytes() + e)
    for length in (0, 1, 50, 500):
        yield (
            f"config cut to {length}",
            lambda copy, n=length: (copy / CONFIG).write_text((copy / CONFIG).read_text()[:n]),
        )
    for name in (WEIGHTS, CONFIG):
        yield f"{name} missing", lambda copy, n=name: (copy / n).unlink()


def rewritten_headers() -> Iterator[tuple[str, Damage]]:
    entry = "classifier.bias"
    changes: dict[str, Callable[[dict], Any]] = {
        "absurd shape": lambda h: h[entry].update(shape=[1 << 62, 1 << 62]),
        "shape that wraps to the size": lambda h: h[entry].update(shape=[3, 1 << 32, 1 << 32]),
        "negative shape": lambda h: h[entry].update(shape=[-3]),
        "empty shape": lambda h: h[entry].update(shape=[]),
        "shape with a zero": lambda h: h[entry].update(shape=[0, 1 << 60]),
        "fractional shape": lambda h: h[entry].update(shape=[1.5]),
        "shape as text": lambda h: h[entry].update(shape="3"),
        "unknown dtype": lambda h: h[entry].update(dtype="F33"),
        "dtype of the same size": lambda h: h[entry].update(dtype="I32"),
        "exotic dtype": lambda h: h[entry].update(dtype="F8_E4M3", shape=[12]),
        "offsets reversed": lambda h: h[entry].update(data_offsets=h[entry]["data_offsets"][::-1]),
        "offsets beyond the file": lambda h: h[entry].update(data_offsets=[0, 1 << 60]),
        "offsets overlap": lambda h: h[entry].update(data_offsets=[4, 16]),
        "negative offset": lambda h: h[entry].update(data_offsets=[-12, 0]),
        "one offset": lambda h: h[entry].update(data_offsets=[0]),
        "no offsets": lambda h: h[entry].pop("data_offsets"),
        "no dtype": lambda h: h[entry].pop("dtype"),
        "tensor that is a list": lambda h: h.update({entry: []}),
        "tensor that is null": lambda h: h.update({entry: None}),
        "tensor removed": lambda h: h.pop(entry),
        "tensor renamed": lambda h: h.update({"classifier.other": h.pop(entry)}),
        "empty name": lambda h: h.update({"": h.pop(entry)}),
        "name of a path": lambda h: h.update({"../../classifier.bias": h.pop(entry)}),
        "metadata is a list": lambda h: h.update(__metadata__=[]),
        "metadata of numbers": lambda h: h.update(__metadata__={"format": 1}),
        "no metadata": lambda h: h.pop("__metadata__"),
        "checksums under another key": lambda h: h["__metadata__"].update(
            x=h["__metadata__"].pop("optimum_int8_crc32")
        ),
        "checksums are a list": lambda h: h["__metadata__"].update(optimum_int8_crc32="[]"),
        "checksums are no JSON": lambda h: h["__metadata__"].update(optimum_int8_crc32="{"),
        "checksums nested deeply": lambda h: h["__metadata__"].update(optimum_int8_crc32="[" * 100_000),
        "checksums empty": lambda h: h["__metadata__"].update(optimum_int8_crc32="{}"),
        "settings under another key": lambda h: h["__metadata__"].update(x=h["__metadata__"].pop(BINDING_KEY)),
        "settings are empty": lambda h: h["__metadata__"].update({BINDING_KEY: ""}),
        "settings are a list": lambda h: h["__metadata__"].update({BINDING_KEY: _summed("[]")}),
        "settings of numbers": lambda h: h["__metadata__"].update({BINDING_KEY: _summed('{"n_heads":2}')}),
        "settings are no JSON": lambda h: h["__metadata__"].update({BINDING_KEY: _summed("{")}),
        "settings nested deeply": lambda h: h["__metadata__"].update({BINDING_KEY: _summed("[" * 100_000)}),
        "settings without their sum": lambda h: h["__metadata__"].update({BINDING_KEY: "00000000 {}"}),
        "settings of another model": lambda h: h["__metadata__"].update({BINDING_KEY: bind({"model_type": "bert"})}),
        "format of another framework": lambda h: h["__metadata__"].update(format="tf"),
    }
    for name, change in changes.items():
        yield f"header: {name}", lambda copy, c=change: _rewrite_header(copy, c)
    for name, text in {
        "nested": b"[" * 50_000,
        "null": b"null",
        "list": b"[]",
        "text": b'"x"',
        "binary": bytes(64),
    }.items():
        yield f"header is {name}", lambda copy, t=text: _write(copy, struct.pack("<Q", len(t)) + t)
    yield "header length absurd", lambda copy: _write(copy, struct.pack("<Q", 1 << 63) + b"{}")


def changed_tensors(folder: Path, chance: random.Random) -> Iterator[tuple[str, Damage]]:
    """Consistent files with wrong content; swaps keep the old sums, the rest has sums that fit."""

    def swap(copy: Path, first: str, second: str) -> None:
        def change(t: dict[str, torch.Tensor]) -> None:
            t[first], t[second] = t[second], t[first]

        edit_tensors(copy / WEIGHTS, change, resum=False)

    layer = "distilbert.transformer.layer.{}.{}"
    for leaf in ("attention.q_lin.weight", "attention.k_lin.weight_scale", "ffn.lin1.weight", "sa_layer_norm.weight"):
        if leaf != "sa_layer_norm.weight":  # both norms of the untrained model hold ones
            yield f"{leaf} of two layers swapped", lambda c, n=leaf: swap(c, layer.format(0, n), layer.format(1, n))
    q, k = (layer.format(0, f"attention.{p}_lin.weight") for p in "qk")
    yield "q and k swapped", lambda copy: swap(copy, q, k)

    scale, bias, weight = f"{q}_scale", q.replace("weight", "bias"), q
    changes: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
        "scale zero": lambda t: t[scale].__setitem__(3, 0.0),
        "scale negative": lambda t: t[scale].neg_(),
        "scale NaN": lambda t: t[scale].__setitem__(0, torch.nan),
        "scale infinite": lambda t: t[scale].fill_(torch.inf),
        "scale float64": lambda t: t.update({scale: t[scale].double()}),
        "scale float16": lambda t: t.update({scale: t[scale].half()}),
        "scale too short": lambda t: t.update({scale: t[scale][:-1].clone()}),
        "scale with an axis more": lambda t: t.update({scale: t[scale][:, None].clone()}),
        "scale missing": lambda t: t.pop(scale),
        "weight missing": lambda t: t.pop(weight),
        "weight float": lambda t: t.update({weight: t[weight].float()}),
        "weight uint8": lambda t: t.update({weight: t[weight].to(torch.uint8)}),
        "weight without the last axis": lambda t: t.update({weight: t[weight][..., 0].clone()}),
        "weight transposed": lambda t: t.update({weight: t[weight].transpose(0, 2).contiguous()}),
        "weight too wide": lambda t: t.update({weight: torch.cat([t[weight], t[weight]], 1)}),
        "bias NaN": lambda t: t[bias].fill_(torch.nan),
        "bias int32": lambda t: t.update({bias: t[bias].int()}),
        "bias missing": lambda t: t.pop(bias),
        "norm infinite": lambda t: t[layer.format(0, "sa_layer_norm.weight")].fill_(torch.inf),
        "classifier missing": lambda t: t.pop("classifier.weight"),
        "classifier with more labels": lambda t: t.update({"classifier.bias": torch.zeros(7)}),
        "a foreign tensor": lambda t: t.update({"extra.weight": torch.zeros(3)}),
        "a layer more": lambda t: t.update({layer.format(9, "ffn.lin1.bias"): torch.zeros(3)}),
        "nothing left": lambda t: t.clear(),
    }
    with safe_open(folder / WEIGHTS, framework="pt") as handle:
        names = sorted(handle.keys())
    for name in chance.sample(names, 12):
        changes[f"{name} removed"] = lambda t, n=name: t.pop(n)
        changes[f"{name} as float64"] = lambda t, n=name: t.update({n: t[n].double()})
        changes[f"{name} with an axis more"] = lambda t, n=name: t.update({n: t[n][None].clone()})
    for point in (name for name in names if name.endswith("_zero_point")):
        changes[f"{point} 256"] = lambda t, n=point: t[n].fill_(256)
        changes[f"{point} -1"] = lambda t, n=point: t[n].fill_(-1)
        break
    for name, change in changes.items():
        yield f"tensors: {name}", lambda copy, c=change: edit_tensors(copy / WEIGHTS, c)


def hostile_configs() -> Iterator[tuple[str, Damage]]:
    top: dict[str, dict[str, Any]] = {
        "no quantization": {"quantization_config": None},
        "quantization is a list": {"quantization_config": []},
        "quantization is text": {"quantization_config": "optimum_int8"},
        "no such model": {"model_type": "no_such_model"},
        "model type is a list": {"model_type": []},
        "another model": {"model_type": "bert"},
        "architecture of another model": {"architectures": ["BertForMaskedLM"]},
        "architecture with code": {"architectures": ["__import__('os').system('touch pwned')"]},
        "architecture is a number": {"architectures": [3]},
        "remote code": {"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "evil"},
        "a billion layers": {"n_layers": 1_000_000_000},
        "a million layers": {"n_layers": 1_000_000},
        "one layer more": {"n_layers": 3},
        "one layer less": {"n_layers": 1},
        "negative layers": {"n_layers": -1},
        "layers as text": {"n_layers": "2"},
        "heads that do not divide": {"n_heads": 7},
        "no heads": {"n_heads": 0},
        "huge width": {"dim": 1 << 30},
        "width beyond int64": {"dim": 1 << 70},
        "other width": {"dim": 32},
        "huge vocabulary": {"vocab_size": 1 << 40},
        "vocabulary as a list": {"vocab_size": [100]},
        "a billion labels": {"num_labels": 1_000_000_000},
        "other labels": {"num_labels": 5, "id2label": None, "label2id": None},
        "unknown activation": {"activation": "os.system"},
        "another activation": {"activation": "relu"},
        "other heads": {"n_heads": 4},
        "no architecture": {"architectures": []},
        "architecture of null": {"architectures": None},
        "architecture without the head": {"architectures": ["DistilBertModel"]},
        "kernel from the Hub": {"attn_implementation": "evil/kernel"},
        "weights outside": {"transformers_weights": "../../evil.safetensors"},
    }
    for name, change in top.items():
        yield f"config: {name}", lambda copy, c=change: edit_json(copy / CONFIG, lambda v: v.update(c))
    inner: dict[str, dict[str, Any]] = {
        "unknown key": {"run": "touch pwned"},
        "fewer activation bits": {"config": {"approach": "static", "activation_bits": 4}},
        "doubled names": {"per_token": ["classifier", "classifier"]},
        "foreign method": {"quant_method": "gptq"},
        "unknown method": {"quant_method": "optimum_int9"},
        "method of a list": {"quant_method": ["optimum_int8"]},
        "newer format": {"format_version": 2},
        "format zero": {"format_version": 0},
        "format as text": {"format_version": "1"},
        "no modules": {"modules": {}},
        "modules is a list": {"modules": ["classifier"]},
        "module that is not there": {"modules": {"no.such.module": "linear"}},
        "module of another kind": {"modules": {"distilbert.transformer.layer.0.attention.q_lin": "embedding"}},
        "unknown kind": {"modules": {"distilbert.transformer.layer.0.attention.q_lin": "eval"}},
        "the model itself": {"modules": {"": "linear"}},
        "a dunder name": {"modules": {"__class__": "linear"}},
        "dots only": {"modules": {"...": "linear"}},
        "one module only": {"modules": {"distilbert.transformer.layer.0.attention.q_lin": "linear"}},
        "fp32 is a list": {"fp32": []},
        "settings are a list": {"config": []},
        "unknown setting": {"config": {"run": "touch pwned"}},
        "unknown approach": {"config": {"approach": "magic"}},
    }
    for name, change in inner.items():
        yield (
            f"quantization: {name}",
            lambda copy, c=change: edit_json(copy / CONFIG, lambda v: v["quantization_config"].update(c)),
        )
    texts = {
        "nested": "[" * 100_000,
        "a list": "[]",
        "null": "null",
        "binary": "\x00\x01",
        "NaN": "NaN",
        "empty object": "{}",
    }
    for name, text in texts.items():
        yield f"config is {name}", lambda copy, t=text: (copy / CONFIG).write_text(t)


def hostile_files() -> Iterator[tuple[str, Damage]]:
    def only_pickle(copy: Path, name: str, content: bytes) -> None:
        (copy / WEIGHTS).unlink()
        (copy / name).write_bytes(content)

    # A pickle that would create the file "pwned": GLOBAL os.system, MARK, text, TUPLE, REDUCE, STOP.
    attack = b"cos\nsystem\n(S'touch pwned'\ntR."
    for name in ("pytorch_model.bin", "model.pt", "model.pkl"):
        yield f"a hostile {name}", lambda copy, n=name: only_pickle(copy, n, attack)
    yield "a pickle named safetensors", lambda copy: _write(copy, attack)
    yield "a folder named safetensors", lambda copy: ((copy / WEIGHTS).unlink(), (copy / WEIGHTS).mkdir())

    def index(copy: Path, weight_map: Any) -> None:
        (copy / WEIGHTS).rename(copy.parent / "outside.safetensors")
        (copy / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    for shard in (
        "../outside.safetensors",
        "/etc/passwd",
        "missing.safetensors",
        "a/../../outside.safetensors",
        7,
        None,
    ):
        yield f"index to {shard}", lambda copy, s=shard: index(copy, {"classifier.bias": s})
    yield "index of a list", lambda copy: index(copy, [])


def damaged_shards() -> Iterator[tuple[str, Damage]]:
    """Checkpoints of two shards, one of them or their index damaged."""
    first, second, index = shard_name(1), shard_name(2), f"{WEIGHTS}.index.json"

    def drop_from_index(copy: Path) -> None:
        edit_json(copy / index, lambda v: v.update(weight_map={k: n for k, n in v["weight_map"].items() if n == first}))

    changes: dict[str, Damage] = {
        "missing": lambda copy: (copy / second).unlink(),
        "empty": lambda copy: (copy / second).write_bytes(b""),
        "cut": lambda copy: (copy / second).write_bytes((copy / second).read_bytes()[:-5]),
        "copied over the other": lambda copy: (copy / second).write_bytes((copy / first).read_bytes()),
        "a hostile pickle": lambda copy: (copy / second).write_bytes(HOSTILE["system"]),
        "not in the index": drop_from_index,
        "without a tensor": lambda copy: edit_tensors(copy / second, lambda t: t.pop(sorted(t)[0])),
        "with a tensor of the other": lambda copy: edit_tensors(
            copy / second, lambda t: t.update({"classifier.bias": torch.zeros(3)})
        ),
        "with a foreign tensor": lambda copy: edit_tensors(copy / second, lambda t: t.update({"x": torch.zeros(3)})),
        "with old sums": lambda copy: edit_tensors(copy / second, lambda t: t[sorted(t)[0]].zero_(), resum=False),
        "index cut": lambda copy: (copy / index).write_text((copy / index).read_text()[:-9]),
        "index nested": lambda copy: (copy / index).write_text("[" * 100_000),
        "index without a map": lambda copy: edit_json(copy / index, lambda v: v.pop("weight_map")),
        "index to itself": lambda copy: edit_json(copy / index, lambda v: v["weight_map"].update(x=index)),
        "index to another folder": lambda copy: edit_json(
            copy / index, lambda v: v["weight_map"].update(x="../a.safetensors")
        ),
    }
    for name, change in changes.items():
        yield f"shard: {name}", lambda copy, c=change: (split(copy), c(copy))


def shard_name(number: int) -> str:
    return f"model-{number:05}-of-00002.safetensors"


def split(copy: Path) -> None:
    """Turn the checkpoint into one of two shards, as `save_pretrained` does with a small `max_shard_size`."""
    tensors = dict(sorted(load_file(copy / WEIGHTS).items()))
    weight_map = {name: shard_name(1 + (i >= len(tensors) // 2)) for i, name in enumerate(tensors)}
    for number in (1, 2):
        part = {name: t for name, t in tensors.items() if weight_map[name] == shard_name(number)}
        save_file(part, copy / shard_name(number), {"format": "pt", CHECKSUMS_KEY: checksums(part)})
    (copy / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (copy / WEIGHTS).unlink()


def foreign_formats() -> Iterator[tuple[str, Damage]]:
    """What says that it is of Neural Compressor, with a hostile pickle, or of llm-compressor, with strange settings."""

    def legacy(copy: Path, content: bytes) -> None:
        (copy / WEIGHTS).unlink()
        (copy / "pytorch_model.bin").write_bytes(content)
        edit_json(copy / CONFIG, lambda v: (v.pop("quantization_config"), v.update(torch_dtype="int8")))

    for name, content in HOSTILE.items():
        yield f"legacy pickle: {name}", lambda copy, c=content: legacy(copy, c)
    strange: dict[str, Any] = {
        "nothing else": {},
        "groups of a list": {"format": "int-quantized", "config_groups": [1]},
        "group of a number": {"format": "int-quantized", "config_groups": {"a": 1}},
        "nested groups": {"format": "int-quantized", "config_groups": {"a": {"weights": [[[]]]}}},
        "format of a list": {"format": ["int-quantized"]},
    }
    for name, values in strange.items():
        yield (
            f"compressed-tensors: {name}",
            lambda copy, v=values: edit_json(
                copy / CONFIG, lambda c: c.update(quantization_config={"quant_method": "compressed-tensors", **v})
            ),
        )


def _summed(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x} {text}"


def _write(copy: Path, data: bytes) -> None:
    (copy / WEIGHTS).write_bytes(data)


def _rewrite_header(copy: Path, change: Callable[[dict], Any]) -> None:
    data = (copy / WEIGHTS).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    _write(copy, struct.pack("<Q", len(text)) + text + data[8 + length :])
