"""The FP32 model of a pair, with random weights wide enough that errors show, and what is compared of its outputs."""

from __future__ import annotations

import math
import re
import traceback
from dataclasses import dataclass

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from tests.sweep.configurations import tiny
from tests.sweep.families import Pair
from tests.sweep.inputs import Batch, make_inputs

LARGEST = 60_000_000
"""Parameters of a model that is still called tiny."""

LARGEST_WIDE = 250_000_000
"""Parameters of a model whose widths are the default ones, and whose multiply-adds are only counted."""

PREFERRED = (
    "logits",
    "pred_logits",
    "last_hidden_state",
    "prediction_logits",
    "start_logits",
    "logits_per_image",
    "pred_masks",
)


@dataclass
class Made:
    """A model that runs in FP32."""

    pair: Pair
    model: PreTrainedModel
    wide: bool
    text_only: bool
    reasons: list[str]

    def inputs(self, seed: int = 1) -> Batch:
        """A batch; other seeds are other batches of the same shape."""
        return make_inputs(self.model, self.pair.class_name, seed, self.text_only)


def make(pair: Pair) -> Made:
    """The model with the first configuration and inputs that run.

    Raises:
        LookupError: none of them; the message says why each failed.
    """
    reasons: list[str] = []
    for wide in (False, True):
        try:
            model = build(pair, wide)
        except Exception as error:
            reasons.append(describe(error))
            continue
        for text_only in (False, True):
            made = Made(pair, model, wide, text_only, reasons)
            try:
                require_runs(made)
            except Exception as error:
                reasons.append(describe(error))
                continue
            return made
    raise LookupError(" | ".join(dict.fromkeys(reasons)))


def make_wide(made: Made) -> Made | None:
    """The same class at the default widths of its model type, where that is small enough to be made and runs: the shares of a tiny
    model are not those of a model in use."""
    if made.wide:
        return made
    try:
        wide = Made(made.pair, build(made.pair, True, LARGEST_WIDE), True, made.text_only, [])
        require_runs(wide)
    except Exception:
        return None
    return wide


def require_runs(made: Made) -> None:
    """Raises whatever a call raises, and LookupError where its outputs are not finite or differ between two calls."""
    batch = made.inputs()
    outputs = run(made.model, batch)
    if not outputs:
        raise LookupError("no floating-point output")
    first = main_output(outputs, batch)
    if not bool(torch.isfinite(first).all()):
        raise LookupError("FP32 outputs are not finite")
    if not torch.equal(main_output(run(made.model, batch), batch), first):
        raise LookupError("two FP32 calls differ")


def describe(error: BaseException) -> str:
    """An error in a line, with the last place in Transformers or this package."""
    source = error.__cause__ or error
    frames = [
        f
        for f in traceback.extract_tb(source.__traceback__)
        if "transformers/" in f.filename or "optimum_int8/" in f.filename
    ]
    where = ""
    if frames:
        path = frames[-1].filename
        where = f" ({'/'.join(path.split('/')[-2:])}:{frames[-1].lineno})"
    text = re.sub(r"/tmp/\w+", "FOLDER", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:300]}{where}"


def build(pair: Pair, wide: bool, largest: int = LARGEST) -> PreTrainedModel:
    """With random weights; small enough."""
    model_class = getattr(transformers, pair.class_name)
    config = tiny(pair.model_type, pair.class_name, wide)
    expected = model_class.config_class
    if expected is not None and not isinstance(config, expected):
        config = next((v for v in vars(config).values() if isinstance(v, expected)), config)
    with torch.device("meta"):
        size = sum(p.numel() for p in model_class(config).parameters())
    if size > largest:
        raise LookupError(f"{size / 1e6:.0f} M parameters")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config).float().eval()
        perturb(model)
    return model


@torch.no_grad()
def perturb(model: nn.Module) -> None:
    """Add noise to every parameter and to running statistics: as initialised, norms are the identity, biases and scales are nothing,
    and outputs nearly constant."""
    for parameter in model.parameters():
        if (
            not parameter.is_floating_point() or not parameter.requires_grad
        ):  # those that are computed, not stored, do not train
            continue
        fan_in = (
            math.prod(parameter.shape[1:])
            if parameter.dim() in (2, 4, 5)
            else parameter.shape[-1]
            if parameter.dim()
            else 1
        )
        wide = 0.1 if parameter.dim() < 2 else min(0.1, 0.5 / math.sqrt(max(fan_in, 1)))
        parameter.nan_to_num_(0.0, 0.0, 0.0).clamp_(-100, 100).add_(torch.randn_like(parameter) * wide)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.add_(torch.randn_like(buffer) * 0.1)
        elif name.endswith("running_var"):
            buffer.mul_(1 + torch.rand_like(buffer))


@torch.no_grad()
def run(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The floating-point tensors of a call's output by name, without states and caches. Random numbers a model draws are the same."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        output = model(**batch)
    if isinstance(output, Tensor):
        return {"output": output}
    items = output.items() if hasattr(output, "items") else ((f"output{i}", v) for i, v in enumerate(output))
    found: dict[str, Tensor] = {}
    for name, value in items:
        if (
            any(word in name for word in ("past_key", "hidden_states", "attentions", "loss", "cache", "states"))
            and name != "last_hidden_state"
        ):
            continue
        if isinstance(value, (list, tuple)):
            found |= {f"{name}.{i}": v for i, v in enumerate(value) if isinstance(v, Tensor) and v.is_floating_point()}
        elif isinstance(value, Tensor) and value.is_floating_point() and value.numel():
            found[name] = value
    return found


def main_output(outputs: dict[str, Tensor], batch: Batch) -> Tensor:
    """What a user reads, without the places of padding."""
    name = next((n for n in PREFERRED if n in outputs), next(iter(outputs)))
    value = outputs[name]
    mask = batch.get("attention_mask")
    if isinstance(mask, Tensor) and value.dim() >= 3 and value.shape[:2] == mask.shape:
        value = value[mask.bool()]
    finite = torch.isfinite(value) & (value > -1e30)
    return value if bool(finite.all()) else torch.where(finite, value, torch.zeros_like(value))
