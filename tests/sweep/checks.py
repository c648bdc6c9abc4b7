"""What is checked of a class, in steps that each report: a crash tells how far it came.

A result holds per approach ("dynamic", "static") the relative error against FP32 (`error`), that of the simulated quantization
(`simulated`), that between fused and unfused (`fused`), and `faults`: step to what went wrong.
"""

from __future__ import annotations

import copy
import gc
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from optimum_int8 import Int8Config, OptimizedModel, inspect, quantize
from optimum_int8.errors import OptimumInt8Error
from optimum_int8.passes import install, remove
from tests.sweep.coverage import coverage
from tests.sweep.families import Pair
from tests.sweep.models import Made, describe, main_output, make, make_wide, run
from tests.sweep.simulate import rounded_cores, simulate

FACTOR = 1.5
FLOOR = 0.02
FUSED = 0.03
"""A fused block rounds some values to the next step; tests/test_architectures_all.py holds every architecture to the same."""

MORE = range(4, 20)
"""Seeds of the further batches where an error is in doubt."""

STEPS = ("reload", "base", "fused", "generate", "coverage")
LENGTHS = ("VitsModel", "FastSpeech2ConformerModel", "FastSpeech2ConformerWithHifiGan")
"""Classes that round the durations they predict: the length of what they give follows from values, and rounding changes it."""

Report = Callable[[dict[str, Any]], None]


class Check:
    """The checks of one class under one approach."""

    def __init__(self, made: Made, approach: str, result: dict[str, Any], report: Callable[[], None]) -> None:
        self.made, self.approach, self.found, self.report = made, approach, result, report
        self.found["faults"] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Note what a step raises: our own errors apart from raw ones."""
        self.found["step"] = name
        self.report()
        try:
            yield
        except Exception as error:
            kind = "own" if isinstance(error, OptimumInt8Error) else "raw"
            self.found["faults"][name] = f"{kind}: {describe(error)}"
        self.found.pop("step")

    def quantize(self, fuse: bool = False) -> Any:
        """The INT8 model."""
        data = [self.made.inputs(seed) for seed in (1, 2, 3)] if self.approach == "static" else None
        return quantize(self.made.model, Int8Config(approach=self.approach, fuse=fuse), data, progress=False)

    def run(self, steps: tuple[str, ...]) -> None:
        """All steps asked for, as far as each can be done."""
        batch = self.made.inputs()
        self.found["steps"] = ["quantize", "unfused", *steps]
        int8 = None
        with self.step("quantize"):
            int8 = self.quantize()
        if int8 is None:
            return
        found = None
        with self.step("unfused"):
            found = run(int8, batch)
            self.compare(int8, found, batch)
        if found is None:
            return
        if "reload" in steps:
            self.reload(int8, found, batch, "base" in steps and self.approach == "dynamic")
        if "coverage" in steps and self.approach == "dynamic":
            with self.step("coverage"):
                self.found |= self.coverage(int8)
        if "fused" in steps:
            with self.step("fused"):
                self.fuse(int8, found, batch)
        if "generate" in steps and can_generate(self.made):
            with self.step("generate"):
                self.generate(int8)

    def coverage(self, int8: Any) -> dict[str, Any]:
        """At the default widths where that can be made, otherwise of the tiny model; `widths` says which."""
        wide = make_wide(self.made)
        if wide is not None and wide is not self.made:
            int8 = quantize(wide.model, Int8Config(approach=self.approach, fuse=False), progress=False)
        found = self.made if wide is None else wide
        return {**coverage(found.model, int8, found.inputs()), "widths": "tiny" if wide is None else "default"}

    def compare(self, int8: Any, found: dict[str, Tensor], batch: dict[str, Any]) -> None:
        """Against FP32, and against what a simulation of the same sites gives; where that is exceeded, over more batches: where a
        router or a threshold chooses, the least change of a value can flip a choice, of the simulation or of ours."""
        fake = simulate(self.made.model, int8)
        pairs = [self.errors(int8, fake, batch, found)]
        if pairs[0] is not None and not within(*pairs[0]):
            pairs += [self.errors(int8, fake, self.made.inputs(seed)) for seed in MORE]
        if any(pair is None for pair in pairs):
            return
        self.found["error"], self.found["simulated"] = (
            round(math.sqrt(sum(v * v for v in values) / len(values)), 6) for values in zip(*pairs, strict=True)
        )
        if not within(self.found["error"], self.found["simulated"]):
            self.found["faults"]["unfused"] = (
                f"value: error {self.found['error']:.4f}, simulated {self.found['simulated']:.4f}"
            )

    def errors(
        self, int8: Any, fake: Any, batch: dict[str, Any], found: dict[str, Tensor] | None = None
    ) -> tuple[float, float] | None:
        """The relative errors of INT8 and of the simulation on one batch."""
        exact = main_output(run(self.made.model, batch), batch)
        ours = main_output(run(int8, batch) if found is None else found, batch)
        if ours.shape != exact.shape and self.made.pair.class_name in LENGTHS:
            return None
        if ours.shape != exact.shape:
            self.found["faults"]["unfused"] = f"value: shape {list(ours.shape)} where FP32 gives {list(exact.shape)}"
            return None
        with rounded_cores(fake):
            simulated = main_output(run(fake, batch), batch)
        if simulated.shape != exact.shape:
            self.found["faults"]["unfused"] = "value: the simulation gives another shape"
            return None
        return distance(ours, exact), distance(simulated, exact)

    def reload(self, int8: Any, found: dict[str, Tensor], batch: dict[str, Any], base: bool) -> None:
        """Saved and loaded: equal to the bit; and the base class loads a head's checkpoint where FP32 does."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "int8"
            with self.step("reload"):
                OptimizedModel.save_pretrained(int8, folder)
                again = OptimizedModel.from_pretrained(folder)
                remove(again)
                if type(again) is not type(int8):
                    self.found["faults"]["reload"] = f"value: a {type(again).__name__} is loaded"
                elif (different := unequal(run(again, batch), found)) and self.fp32_reloads(
                    Path(scratch) / "fp32", batch
                ):
                    self.found["faults"]["reload"] = f"value: reloaded, {different}"
            if base and folder.exists() and "reload" not in self.found["faults"]:
                with self.step("base"):
                    self.load_base(folder, Path(scratch) / "fp32")

    def fp32_reloads(self, folder: Path, batch: dict[str, Any]) -> bool:
        """Whether the FP32 model is the same after saving and loading; some hold what they do not save."""
        model = self.made.model
        model.save_pretrained(folder)
        return not unequal(run(type(model).from_pretrained(folder), batch), run(model, batch))

    def load_base(self, folder: Path, fp32: Path) -> None:
        """`AutoModel` on the checkpoint of the head."""
        try:
            self.made.model.save_pretrained(fp32)
            expected, about = transformers.AutoModel.from_pretrained(fp32, output_loading_info=True)
            if set(about["missing_keys"]) >= set(expected.state_dict()):
                raise LookupError("none of its tensors is in the checkpoint")
        except Exception:
            self.found["base"] = "FP32 does not"
            return
        loaded = transformers.AutoModel.from_pretrained(folder)
        self.found["base"] = type(loaded).__name__
        if type(loaded) is not type(expected):
            self.found["faults"]["base"] = f"value: a {type(loaded).__name__}, FP32 {type(expected).__name__}"

    def fuse(self, int8: Any, unfused: dict[str, Tensor], batch: dict[str, Any]) -> None:
        """The same model with blocks: the first call captures, the second runs, and another shape after it."""
        install(int8)
        for _ in range(2):
            fused = run(int8, batch)
        report = inspect(int8)
        self.found["blocks"] = sum(bool(row.variants) for row in report.blocks)
        ours, expected = main_output(fused, batch), main_output(unfused, batch)
        self.found["fused"] = distance(ours, expected)
        limit = max(FUSED, FACTOR * self.found.get("simulated", 0.0))
        if self.found["fused"] > limit:
            self.found["least"] = least_change(int8, batch, expected)
            limit = max(limit, FACTOR * self.found["least"])
        if not self.found["fused"] <= limit:
            self.found["faults"]["fused"] = f"value: fused is {self.found['fused']:.4f} from unfused"

    def generate(self, int8: Any) -> None:
        """Greedy tokens with a cache and without one."""
        batch = {k: v for k, v in self.made.inputs().items() if k not in ("decoder_input_ids", "labels")}
        options: dict[str, Any] = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "num_beams": 1}
        try:
            exact = [self.made.model.generate(**copy.copy(batch), **options, use_cache=c) for c in (True, False)]
        except Exception as error:
            self.found["generate"] = f"FP32 does not: {describe(error)[:160]}"
            return
        if not same(exact[0], exact[1]):
            self.found["generate"] = "FP32 differs with a cache"
            return
        tokens = [int8.generate(**copy.copy(batch), **options, use_cache=c) for c in (True, False)]
        if not same(tokens[0], tokens[1]) and differs_with_a_cache(self.made.model, batch, options):
            self.found["generate"] = "FP32 differs with a cache"
            return
        self.found["generate"] = "equal" if same(tokens[0], tokens[1]) else "differs"
        if not same(tokens[0], tokens[1]):
            self.found["faults"]["generate"] = "value: cached tokens differ from uncached ones"


def least_change(int8: Any, batch: dict[str, Any], expected: Tensor) -> float:
    """How far the unfused model is from itself after the least change: each bias and norm a millionth larger or smaller. A deep stack
    of dynamic ranges (the decoder of VITS) turns that into other steps, and those into others."""
    changed = copy.deepcopy(int8)
    remove(changed)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.mul_(1 + 1e-6 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in changed.named_buffers():
            if name.endswith("bias"):
                buffer.mul_(1 + 1e-6 * torch.randn(buffer.shape, generator=generator))
    found = main_output(run(changed, batch), batch)
    return distance(found, expected) if found.shape == expected.shape else 1.0


def within(error: float, simulated: float) -> bool:
    """Whether quantization explains an error."""
    return error <= FACTOR * simulated + FLOOR


def same(a: Any, b: Any) -> bool:
    """Whether two results of `generate` are equal."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and bool(torch.equal(a, b))
    return str(a) == str(b)


def differs_with_a_cache(model: Any, batch: dict[str, Any], options: dict[str, Any]) -> bool:
    """Whether the logits of equal tokens differ by more than rounding does (RemBERT: by a hundredth where the batch is padded)."""
    more = {"output_logits": True, "return_dict_in_generate": True}
    found = [model.generate(**copy.copy(batch), **options, **more, use_cache=c).logits for c in (True, False)]
    return any(distance(a, b) > 1e-3 for a, b in zip(*found, strict=True))


def can_generate(made: Made) -> bool:
    """Whether the class generates tokens."""
    return bool(made.model.can_generate()) and made.pair.family == "generation"


def distance(found: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference as a share of that of `expected`."""
    return round(float((found.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-30)), 6)


def unequal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> str:
    """Which output differs, "" where none."""
    for name, value in expected.items():
        if name not in found:
            return f"{name} is missing"
        if not torch.equal(found[name].nan_to_num(), value.nan_to_num()):
            return f"{name} differs by {distance(found[name].nan_to_num(), value.nan_to_num()):.2g}"
    return ""


def check(
    pair: Pair, report: Report, approaches: tuple[str, ...] = ("dynamic", "static"), steps: tuple[str, ...] = STEPS
) -> None:
    """All checks of one class."""
    result: dict[str, Any] = {"fp32": "started"}
    report(result)
    try:
        made = make(pair)
    except LookupError as error:
        result["fp32"] = str(error)[:400]
        report(result)
        return
    result |= {"fp32": "ok", "wide": made.wide, "text_only": made.text_only}
    result["parameters"] = sum(p.numel() for p in made.model.parameters())
    for approach in approaches:
        result[approach] = {}
        Check(made, approach, result[approach], lambda: report(result)).run(steps)
        report(result)
        gc.collect()
