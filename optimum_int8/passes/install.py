"""Put fine-grained FX on a model, and tell what it does there."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table
from torch import nn

from ..fx import Block, Compiler, ProgramCall
from ..nn import Int8AvgPool, Int8Conv, Int8Embedding, Int8Linear, Int8Module
from .pipeline import keep_residuals_int8, no_grad_compile
from .rows import count_rows


def install(model: nn.Module, residuals: str = "float32") -> Compiler:
    """Make blocks of the largest modules that hold INT8 modules. They are captured at their first call.

    Args:
        residuals: see `Int8Config`.
    """
    remove(model)
    compiler = Compiler(no_grad_compile, keep_residuals_int8 if residuals == "int8" else None)
    compiler.install_below(model)
    return compiler


def remove(model: nn.Module) -> None:
    """Give every block its own forward back: the same results, slower."""
    for block in find_blocks(model).values():
        block.remove()


def find_blocks(model: nn.Module) -> dict[str, Block]:
    """Blocks by qualified name."""
    return {name: vars(m)["forward"] for name, m in model.named_modules() if isinstance(vars(m).get("forward"), Block)}


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

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        return asdict(self)

    def table(self) -> Table:
        """The report for a terminal."""
        title = f"{self.int8_share:.1%} of the multiply-adds in INT8, {self.block_share:.1%} in captured blocks"
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
        for path, reason in {**self.failures, **self.fp32}.items():
            table.add_row(
                path, "", "", "", "", f"not a block: {reason}" if path in self.failures else f"FP32: {reason}"
            )
        return table


def inspect(model: nn.Module, example_input: Any = None) -> InspectReport:
    """What fine-grained FX found in a model. Blocks are captured at their first call: run the model once before.

    Args:
        example_input: arguments of one call, on which the shares are counted: a convolution works at each position of its result. Without,
            they are per token, or per position, as if all had as many.
    """
    work = {name: _multiply_adds(m) for name, m in model.named_modules()}
    if example_input is not None:
        rows = count_rows(model, example_input)
        work = {name: each * rows.get(name, 0) for name, each in work.items()}
    quantized = {name for name, m in model.named_modules() if isinstance(m, (Int8Linear, Int8Conv))}
    total = sum(work.values()) or 1
    report = InspectReport(int8_share=sum(work[n] for n in quantized) / total)
    blocks = find_blocks(model)
    covered: set[str] = set()
    for name, block in blocks.items():
        report.failures.update(block.compiler.failures)
        inside = [n for n in quantized if n == name or n.startswith(f"{name}.")]
        share = sum(work[n] for n in inside) / total
        captured = [v for v in block.variants.values() if v is not None]
        if captured:
            covered.update(inside)
        if isinstance(block.module, Int8Module):
            report.single[name] = type(block.module).__name__
            continue
        graphs = [v.graph for v in captured]
        instructions = max((_instructions(g) for g in graphs), default=0)
        left = sorted({_short(n) for g in graphs for n in g.graph.nodes if n.op == "call_function" and _counts(n)})
        waiting = "its layers run instead" if block.opened else "captured at its first call"
        note = "" if captured else waiting
        note = "; ".join([note, *(f"{count} calls in Python: {why}" for why, count in block.misses.items())]).strip(
            "; "
        )
        report.blocks.append(
            BlockRow(name, type(block.module).__name__, len(inside), share, len(captured), instructions, left, note)
        )
    report.block_share = sum(work[n] for n in covered) / total
    for name, module in model.named_modules():
        if isinstance(module, (Int8Linear, Int8Conv, Int8Embedding, Int8AvgPool)) and not any(
            name.startswith(f"{b}.") for b in blocks
        ):
            report.single[name] = type(module).__name__
    metadata = getattr(getattr(model, "config", None), "quantization_config", getattr(model, "int8_metadata", None))
    metadata = metadata if isinstance(metadata, dict) or metadata is None else metadata.to_dict()
    report.fp32 = dict((metadata or {}).get("fp32", {}))
    return report


def _multiply_adds(module: nn.Module) -> int:
    """Per token, or per position of a convolution: one for each entry of a matrix, also of one that is a bare parameter (XLNet)."""
    if isinstance(module, Int8Linear):
        return module.in_features * module.out_features
    if isinstance(module, Int8Conv):
        return module.window.taps * module.in_channels * module.out_channels // module.groups
    if isinstance(module, nn.Embedding):
        return 0
    return sum(p.numel() for p in module.parameters(recurse=False) if p.dim() > 1)


def _instructions(graph: Any) -> int:
    return sum(len(m.program) for m in graph.modules() if isinstance(m, ProgramCall))


def _counts(node: Any) -> bool:
    """Whether a node left in torch does work on activations (not sizes, items or views)."""
    name = str(node.target)
    return "sym_size" not in name and "getitem" not in name


def _short(node: Any) -> str:
    return str(node.target).removeprefix("aten.").removesuffix(".default").removesuffix(".Tensor")
