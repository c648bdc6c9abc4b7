"""Calibration: run a float model over data and observe the input of each site, streaming, without padding."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers.modeling_utils import PreTrainedModel

from .batches import as_tensors, call_model
from .config import Int8Config
from .errors import CalibrationError
from .nn.tokens import counting, mask_for
from .observers import Observer, TokenRanges
from .sites import Range, SiteKind, Sites


def collect_ranges(
    model: nn.Module,
    sites: Sites,
    config: Int8Config,
    data: Iterable[Any],
    progress: bool = True,
    tokens: dict[str, dict[str, TokenRanges]] | None = None,
) -> dict[str, dict[str, Range]]:
    """Ranges of what flows into the `sites` that need any: of a linear its `"input"`, of an attention core `"query"`, `"key"` and `"value"`, of a
    stack of experts the input of each expert by its number.

    Args:
        data: batches; a mapping is passed as keyword arguments, a tuple or list as positional ones, a tensor as the only one.
            A 2-D `attention_mask` in a mapping says which tokens count, see `run_batch`.
        tokens: filled, for sites whose kind counts tokens, with what else watches each input.

    Returns:
        Site name to input name to `(minimum, maximum)`. Sites and experts that no batch reached are absent.

    Raises:
        CalibrationError: there is no batch, or a value is not finite.
    """
    watches: dict[str, _Watch] = {}
    for kind, names in sites.by_kind():
        for name in names if kind.needs_ranges else ():
            watches[name] = _Watch(kind, config)
    batches = 0
    with _observing(model, sites, watches):
        for batch in tqdm(data, desc="calibrating", unit="batch", disable=None if progress else True, delay=2):
            run_batch(model, batch)
            batches += 1
    if batches == 0:
        raise CalibrationError(
            "the calibration data holds no batch; expected at least one, around 128 examples are usual"
        )
    if tokens is not None:
        tokens.update({name: watch.tokens for name, watch in watches.items()})
    return {name: _ranges(watch.observers) for name, watch in watches.items() if watch.observers}


class _Watch:
    """What flows into one site: an observer for each input, from the first time that it is reached."""

    def __init__(self, kind: SiteKind[Any], config: Int8Config) -> None:
        self.kind = kind
        self.config = config
        self.counts_tokens = kind.counts_tokens(config)
        self.observers: dict[str, Observer] = {}
        self.tokens: dict[str, TokenRanges] = {}

    def observe(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Count what of a call's arguments is no padding."""
        for key, x in self.kind.rows(module, inputs).items():
            if key not in self.observers:
                self.observers[key] = self.kind.observer(self.config)
            mask = mask_for(x.shape[:-1])
            self.observers[key].observe(x, mask)
            if self.counts_tokens:
                self.tokens.setdefault(key, TokenRanges()).observe(x, mask)


def _ranges(observers: Mapping[str, Observer]) -> dict[str, Range]:
    """The range of each input; none where one of them never held a value that counts."""
    if any(observer.minimum is None for observer in observers.values()):
        return {}
    return {key: observer.range() for key, observer in observers.items()}


def run_batch(model: nn.Module, batch: Any) -> Any:
    """Call `model` on one batch of calibration data; padding does not count meanwhile.

    Padding is what a 2-D `attention_mask` and `decoder_attention_mask` say, and the labels of -100. An encoder-decoder is
    taught on references: `labels` or `decoder_input_ids`; `generation_batches` makes them where there are none.

    Raises:
        CalibrationError: a batch for an encoder-decoder that generates holds neither.
        DataError: a batch that is none of this model's inputs.
    """
    masks: list[Tensor] = []
    batch = as_tensors(model, batch)
    if isinstance(batch, Mapping):
        _require_decoding_steps(model, batch)
        batch, masks = with_masks(model, batch)
    with counting(masks):
        return call_model(model, batch)


def generation_batches(
    model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]], max_new_tokens: int = 64
) -> Iterator[dict[str, Tensor]]:
    """Calibration batches that hold decoding steps: what the float model generates, greedily, from each batch.

    Run in one call, these tokens give each layer the values it sees while generating them one by one.

    Args:
        batches: the model's inputs with a 2-D `attention_mask`; without `labels`.
        max_new_tokens: steps to generate; a sequence ends earlier at the model's end token.

    Yields:
        Of an encoder-decoder, the batch with `decoder_input_ids` and `decoder_attention_mask`; of a decoder, `input_ids` and
        `attention_mask` with the continuation.
    """
    for batch in batches:
        inputs = {name: value for name, value in batch.items() if name != "labels" and not name.startswith("decoder_")}
        with torch.no_grad():
            tokens = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1)
        if model.config.is_encoder_decoder:
            yield {**inputs, "decoder_input_ids": tokens, "decoder_attention_mask": _until_end(model, tokens, 1)}
            continue
        length = inputs["input_ids"].shape[1]
        mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
        new = _until_end(model, tokens[:, length:], 0)
        yield {**inputs, "input_ids": tokens, "attention_mask": torch.cat([mask, new.to(mask.dtype)], 1)}


def _until_end(model: PreTrainedModel, tokens: Tensor, start: int) -> Tensor:
    """1 for generated tokens up to the first end token from position `start` on, itself included; 0 for the padding behind it."""
    ends = model.generation_config.eos_token_id
    if ends is None:
        return torch.ones_like(tokens)
    found = torch.isin(tokens, torch.as_tensor(ends))
    found[:, :start] = False  # BART starts with its end token
    return (found.cumsum(1) - found.long() == 0).long()


def _require_decoding_steps(model: nn.Module, batch: Mapping[str, Any]) -> None:
    if not isinstance(model, PreTrainedModel) or not model.config.is_encoder_decoder or not model.can_generate():
        return
    given = [name for name, value in batch.items() if value is not None]
    if not any(
        name == "labels" or name.startswith("decoder_input") for name in given
    ):  # SpeechT5: decoder_input_values
        raise CalibrationError(
            f"a calibration batch of a {type(model).__name__} has neither labels nor decoder_input_ids, so that its "
            f"decoder sees no text; add one, or pass generation_batches(model, batches)"
        )


def with_masks(model: nn.Module, batch: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Tensor]]:
    """The batch, and the masks of its tokens. A mask means the rows of its shape, so two masks must differ in shape."""
    masks, decoded = token_masks(model, batch)
    if len(masks) < 2 or masks[0].shape != masks[1].shape:
        return batch, masks
    keep = masks[1].shape[1] - 1  # the last step of this batch is given up
    if torch.equal(*masks) or not keep:
        return batch, masks[:1]
    return {n: v[:, :keep] if n in decoded else v for n, v in batch.items()}, [masks[0], masks[1][:, :keep]]


def token_masks(model: nn.Module, batch: Mapping[str, Any]) -> tuple[list[Tensor], list[str]]:
    """The masks of a batch's tokens, True counts, of the encoder's (or only) side and the decoder's; and what the decoder reads."""
    sides: list[Any] = [batch.get("attention_mask")]
    decoded: list[str] = []
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        decoded = [n for n in ("decoder_input_ids", "decoder_attention_mask", "labels") if _is_2d(batch.get(n))]
        if sides[0] is None and _is_2d(batch.get("input_ids")):
            sides = [torch.ones_like(batch["input_ids"])]
        if "decoder_attention_mask" in decoded:
            sides.append(batch["decoder_attention_mask"])
        elif decoded:
            sides.append(
                batch["labels"] != -100 if "labels" in decoded else torch.ones_like(batch["decoder_input_ids"])
            )
    return [side.bool() for side in sides if _is_2d(side)], decoded


def _is_2d(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dim() == 2


@contextlib.contextmanager
def _observing(model: nn.Module, sites: Sites, watches: Mapping[str, _Watch]) -> Iterator[None]:
    """Within, each site tells its watch of its calls, in evaluation mode; all undone at the end, also after an error."""
    by_module = {model.get_submodule(name): watch for name, watch in watches.items()}
    training = {module: module.training for module in model.modules()}

    def observe(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        watch = by_module.get(module)
        if watch is not None:
            watch.observe(module, inputs)

    with contextlib.ExitStack() as stack:
        for kind, names in sites.by_kind():
            if kind.needs_ranges:
                stack.enter_context(kind.observed(model, [model.get_submodule(name) for name in names], observe))
        model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module, mode in training.items():
                module.training = mode


def counted_rows(x: Tensor) -> Tensor:
    """Of a tensor `[..., channels]` the rows `[n, channels]` that are no padding of the batch now in `run_batch`."""
    mask = mask_for(x.shape[:-1])
    return x.reshape(-1, x.shape[-1]) if mask is None else x[mask.to(x.device)]
