"""What several tests of the folder need."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from optimum_int8.hub.checkpoint import CHECKSUMS_KEY, checksums


@torch.no_grad()
def logits_of(model: PreTrainedModel, input_ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=input_ids).logits


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Words to ids; 100 of them, as many as the tiny model has."""
    words = ["[PAD]", "[UNK]", "good", "bad", "film", *(f"word{i}" for i in range(95))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    )


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file in place."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def edit_tensors(
    file: Path,
    change: Callable[[dict[str, torch.Tensor]], Any],
    *,
    resum: bool = True,
    metadata: dict[str, str | None] | None = None,
) -> None:
    """Change the tensors of a weight file; with `resum` the checksums are made to fit, as an attacker would.

    Args:
        metadata: what to change in the header; None removes a key.
    """
    with safe_open(file, framework="pt") as handle:
        tensors = {name: handle.get_tensor(name).clone() for name in handle.keys()}
        header = {**handle.metadata(), **(metadata or {})}
    change(tensors)
    if resum:
        header[CHECKSUMS_KEY] = checksums(tensors)
    save_file(tensors, file, {key: value for key, value in header.items() if value is not None})


@contextmanager
def limits(*, seconds: int, megabytes: int = 256) -> Iterator[None]:
    """Fail when the block takes longer, or asks for that much more memory.

    An error of ours that the limit caused is such a failure: without the limit the memory would be taken.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (megabytes << 20), hard))
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(seconds)
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            assert not isinstance(cause, MemoryError) and "allocate" not in str(cause), f"out of memory: {error}"
            cause = cause.__cause__ or cause.__context__
        raise
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _too_slow(*_: object) -> None:
    raise TimeoutError("took too long")
