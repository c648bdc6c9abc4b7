"""`inspect`: what runs fused, what runs as single INT8 modules, what stays FP32, and why."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from ..lowering import runs_natively
from ..nn import Int8AvgPool, Int8Conv, Int8Embedding, Int8Experts, Int8Linear, Int8Module
from .account import Part, account, float_bytes
from .blocks import find_blocks
from .resident import ResidentMemory, resident_memory
from .rows import count_rows

if TYPE_CHECKING:
    from rich.table import Table


@dataclass
class BlockRow:
    """One line of the report."""

    path: str
    cls: str
    gemms: int
    share: float  # of the model's multiply-adds, see `inspect`
    variants: int
    instructions: int
    left_in_torch: list[str]
    note: str


@dataclass
class InspectReport:
    """What runs fused, what runs as single INT8 modules, what stays FP32, and why."""

    blocks: list[BlockRow] = field(default_factory=list)
    single: dict[str, str] = field(default_factory=dict)
    fp32: dict[str, str] = field(default_factory=dict)
    int8_share: float = 0.0
    block_share: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    int8_bytes: int = 0
    fp32_bytes: int = 0
    memory: ResidentMemory = field(default_factory=lambda: ResidentMemory(0, 0))

    @property
    def int8_byte_share(self) -> float:
        """INT8 modules' share of the bytes that a checkpoint stores."""
        return self.int8_bytes / ((self.int8_bytes + self.fp32_bytes) or 1)

    @property
    def fp32_parts(self) -> list[Part]:
        """What stays FP32 and has weights, the most multiply-adds first, then the most bytes."""
        return sorted((p for p in self.parts if not p.int8), key=lambda part: (-part.share, -part.bytes))

    def support(self) -> dict[str, Any]:
        """What a page of supported models says of this one: shares, what stays FP32 and why, and whether blocks were captured.

        Returns:
            `int8_share`, `block_share` and `int8_byte_share`, from 0 to 1; `captured`; `fp32`: `(reason, share, bytes, parts)` per reason.
        """
        reasons: dict[str, list[Part]] = {}
        for part in self.fp32_parts:
            reasons.setdefault(part.reason, []).append(part)
        return {
            "int8_share": self.int8_share,
            "block_share": self.block_share,
            "int8_byte_share": self.int8_byte_share,
            "captured": self.block_share > 0.0 or any(row.variants for row in self.blocks),
            "fp32": [
                {"reason": reason, "share": sum(p.share for p in parts), "bytes": sum(p.bytes for p in parts),
                 "parts": [p.path for p in parts]}
                for reason, parts in reasons.items()
            ],
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {**asdict(self), "int8_byte_share": self.int8_byte_share}

    def table(self) -> Table:
        """The report for a terminal."""
        from rich.table import Table

        title = (
            f"{self.int8_share:.1%} of the multiply-adds in INT8, {self.block_share:.1%} in captured blocks; "
            f"{self.int8_byte_share:.1%} of the bytes; in memory {self.memory.model / 1e6:.1f} MB, captured blocks "
            f"{self.memory.blocks / 1e6:.1f} MB besides"
        )
        table = Table(title=title)
        for name in ("block", "class", "GEMMs", "share", "programs", "note"):
            table.add_column(
                name, justify="right" if name in ("GEMMs", "share", "programs") else "left", overflow="fold"
            )
        for row in self.blocks:
            left = f"in torch: {', '.join(row.left_in_torch)}" if row.left_in_torch else ""
            note = "; ".join(text for text in (row.note, left) if text)
            table.add_row(row.path, row.cls, str(row.gemms), f"{row.share:.1%}", f"{row.instructions} instr.", note)
        for path, kind in self.single.items():
            gemms = "" if kind.startswith("Int8AvgPool") else "1"
            table.add_row(path, kind, gemms, "", "", "single INT8 module")
        for path, reason in self.failures.items():
            table.add_row(path, "", "", "", "", f"not a block: {reason}")
        shown = {part.path: part for part in self.parts if not part.int8}
        for path, reason in self.fp32.items():
            part = shown.get(path)
            share, size = (f"{part.share:.1%}", f" ({part.bytes / 1e6:.2f} MB)") if part else ("", "")
            table.add_row(path, part.cls if part else "", "", share, "", f"FP32: {reason}{size}")
        return table


def inspect(model: nn.Module, example_input: Any = None) -> InspectReport:
    """What fine-grained FX found in a model. Blocks are captured at their first call: run the model once before.

    Args:
        example_input: arguments of one call, on which the shares are counted: a convolution works at each position of its result. Without,
            they are per token, or per position, as if all had as many.
    """
    metadata = getattr(getattr(model, "config", None), "quantization_config", getattr(model, "int8_metadata", None))
    metadata = metadata if isinstance(metadata, dict) or metadata is None else metadata.to_dict()
    reasons = dict((metadata or {}).get("fp32", {}))
    parts = account(model, reasons, None if example_input is None else count_rows(model, example_input))
    share = {part.path: part.share for part in parts if part.int8}
    quantized = {n for n, m in model.named_modules() if isinstance(m, Int8Module) and m.products_per_row}
    report = InspectReport(
        int8_share=round(math.fsum(share.values()), 12), parts=parts, fp32=_with_parts(reasons, parts)
    )
    report.int8_bytes = sum(part.bytes for part in parts if part.int8)
    report.fp32_bytes = float_bytes(model)
    report.memory = resident_memory(model)
    blocks = find_blocks(model)
    covered: set[str] = set()
    for name, block in blocks.items():
        report.failures.update(block.compiler.failures)
        inside = [n for n in quantized if n == name or n.startswith(f"{name}.")]
        captured = [v for v in block.variants.values() if v is not None]
        if captured:
            covered.update(inside)
        if isinstance(block.module, Int8Module):
            report.single[name] = type(block.module).__name__
            continue
        graphs = [v.graph for v in captured]
        instructions = max((runs_natively(g) for g in graphs), default=0)
        left = sorted({_short(n) for g in graphs for n in g.graph.nodes if n.op == "call_function" and _counts(n)})
        waiting = "its layers run instead" if block.opened else "captured at its first call"
        note = "" if captured else waiting
        note = "; ".join([note, *(f"{count} calls in Python: {why}" for why, count in block.misses.items())]).strip(
            "; "
        )
        report.blocks.append(
            BlockRow(
                name,
                type(block.module).__name__,
                len(inside),
                sum(share[n] for n in inside),
                len(captured),
                instructions,
                left,
                note,
            )
        )
    report.block_share = round(math.fsum(share[n] for n in covered), 12)
    for name, module in model.named_modules():
        if isinstance(module, (Int8Linear, Int8Conv, Int8Embedding, Int8AvgPool, Int8Experts)) and not any(
            name.startswith(f"{b}.") for b in blocks
        ):
            report.single[name] = type(module).__name__
    return report


def _with_parts(reasons: dict[str, str], parts: list[Part]) -> dict[str, str]:
    """The reasons a checkpoint holds, and those of parts that it does not speak of."""
    silent = {
        part.path: part.reason
        for part in parts
        if not part.int8 and part.path not in reasons and not any(n.startswith(f"{part.path}.") for n in reasons)
    }
    return {**reasons, **silent}


def _counts(node: Any) -> bool:
    """Whether a node left in torch does work on activations (not sizes, items or views)."""
    name = str(node.target)
    return "sym_size" not in name and "getitem" not in name


def _short(node: Any) -> str:
    return str(node.target).removeprefix("aten.").removesuffix(".default").removesuffix(".Tensor")
