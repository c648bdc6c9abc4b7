"""Calibration data in the forms that users have it in, and calls of a model that name the form when it is another one."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from .errors import DataError, OptimumInt8Error
from .nn import is_sentence_transformers

_UNBATCHED = {
    "input_ids": 1,
    "decoder_input_ids": 1,
    "inputs_embeds": 2,
    "pixel_values": 3,
    "input_features": 2,
    "input_values": 1,
}
"""Axes of one example's main input, without the batch's."""

_TEXTS = "a tokenizer makes them: tokenizer(texts, padding=True, return_tensors='pt')"


def as_batches(model: nn.Module, data: Any) -> Iterable[Any] | None:
    """Calibration data as an iterable of batches.

    One tensor, one array and one mapping of tensors are one batch. Texts are batches of a Sentence Transformers model alone.

    Raises:
        DataError: data of another form: what was found, what is expected, what to do.
    """
    if data is None:
        return None
    if isinstance(data, (Tensor, np.ndarray)):
        return [data]
    if isinstance(data, Mapping):
        if not data or any(isinstance(value, (Tensor, np.ndarray)) for value in data.values()):
            return [data] if data else []
        raise _other_form(model, data)
    if (
        isinstance(data, str)
        or hasattr(data, "iloc")
        or not (hasattr(data, "__iter__") or hasattr(data, "__getitem__"))
    ):
        raise _other_form(model, data)
    if isinstance(data, Sequence) and data and all(isinstance(item, str) for item in data):
        if not is_sentence_transformers(model):
            raise _other_form(model, data)
        return [list(data[start : start + 8]) for start in range(0, len(data), 8)]
    return data


def call_model(model: nn.Module, batch: Any) -> Any:
    """Call `model` on a batch: a mapping of keyword arguments, a tuple or list of positional ones, or the only one.

    Arrays and lists of numbers become tensors, and one example without a batch axis a batch of one.

    Raises:
        DataError: the batch holds texts or other things than tensors, or is none of this model's inputs.
    """
    batch = as_tensors(model, batch)
    try:
        if is_sentence_transformers(model) and isinstance(batch, Mapping):
            return model(dict(batch))  # a model of this library writes its results into it
        if isinstance(batch, Mapping):
            return model(**batch)
        return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)
    except (TypeError, ValueError) as error:
        if isinstance(error, OptimumInt8Error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{type(model).__name__} does not take a batch of {_describe(batch)} ({reason}); expected {_expected(model)}"
        ) from error


def as_tensors(model: nn.Module, batch: Any) -> Any:
    """A batch with tensors for arrays and lists of numbers, and what a Sentence Transformers model makes of texts.

    Raises:
        DataError: texts, and the model is another one.
    """
    if isinstance(batch, Tensor):
        return batch
    if _are_texts(batch) and is_sentence_transformers(model):
        read: Any = getattr(model, "preprocess", None) or model.tokenize  # the name before version 6
        return read([batch] if isinstance(batch, str) else list(batch))
    if isinstance(batch, np.ndarray):
        return _tensor(model, batch, batch)
    if not isinstance(batch, Mapping):
        if isinstance(batch, (tuple, list)) and not _are_texts(batch):
            return (
                type(batch)(_tensor(model, value, batch) for value in batch) if not hasattr(batch, "_fields") else batch
            )
        if _are_texts(batch) or hasattr(batch, "iloc"):
            raise _other_form(model, batch)
        return batch
    if all(isinstance(value, Tensor) for value in batch.values()):
        found: Mapping[str, Any] = batch
    else:
        found = {key: _tensor(model, value, batch) for key, value in batch.items()}
    main = getattr(model, "main_input_name", "") if isinstance(model, PreTrainedModel) else ""
    value = found.get(main)
    # Patches of images of several sizes (SigLIP 2, NaFlex) are rows, whose image has no axes of its own.
    axes = 2 if main == "pixel_values" and "spatial_shapes" in found else _UNBATCHED.get(main)
    if isinstance(value, Tensor) and value.dim() == axes:
        return {key: v.unsqueeze(0) if isinstance(v, Tensor) else v for key, v in found.items()}
    return found


def _tensor(model: nn.Module, value: Any, batch: Any) -> Any:
    if isinstance(value, str) or (_are_texts(value) and not is_sentence_transformers(model)):
        if is_sentence_transformers(model):
            return value  # what its own tokenizer notes, such as the modality
        raise _other_form(model, batch)
    if isinstance(value, np.ndarray) or (isinstance(value, list) and value and _is_numeric(value)):
        try:
            found = torch.as_tensor(value)
        except (TypeError, ValueError) as error:
            raise _other_form(model, batch) from error
        return found.float() if found.dtype == torch.float64 else found
    return value


def _is_numeric(value: Any) -> bool:
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, (bool, int, float))


def _are_texts(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, str) for item in value)


def _other_form(model: nn.Module, found: Any) -> DataError:
    if hasattr(found, "iloc"):
        text = f"a {type(found).__name__} of {', '.join(map(str, getattr(found, 'columns', ())))}"
        advice = "datasets.Dataset.from_pandas(frame) is what the quantizer of the task takes, or make tensors of its columns"
    elif isinstance(found, Mapping):
        text, advice = f"a mapping of {_describe(found)}", f"give tensors; of texts {_TEXTS}"
    elif _are_texts(found):
        text = "texts"
        advice = _TEXTS
    else:
        text = f"a {type(found).__name__}"
        advice = "give a list of batches, or a DataLoader"
    return DataError(f"the calibration data holds {text}; expected batches of tensors, {_expected(model)}: {advice}")


def _describe(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return ", ".join(f"{key} ({_kind(value)})" for key, value in batch.items()) or "nothing"
    if isinstance(batch, (tuple, list)):
        return ", ".join(map(_kind, batch)) or "nothing"
    return _kind(batch)


def _kind(value: Any) -> str:
    return f"tensor {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _expected(model: nn.Module) -> str:
    parameters = inspect.signature(model.forward).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [p.name for p in named if p.default is p.empty] or [p.name for p in named[:6]]
    return f"a mapping or a tuple of its arguments ({', '.join(names)})"
