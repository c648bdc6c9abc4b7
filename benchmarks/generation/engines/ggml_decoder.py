"""What the two engines of the llama.cpp family share: prompts and steps through their C interface.

Both keep the names of `llama.h`; where they differ an engine says how, by a `Library`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...turns import EngineFailed
from ..models import Generated, make_inputs
from ..rows import Row


@dataclass(frozen=True)
class Library:
    """One of the two.

    Args:
        api: module with the functions of `llama.h`.
        open_context: a context for a row, and the remarks on its figures.
        clear: empties the cache of a context.
    """

    api: Any
    open_context: Callable[[Row], tuple[Any, str]]
    clear: Callable[[Any], None]


class GgmlDecoder:
    """Greedy decoding of a batch of sequences; the token is chosen in NumPy.

    Args:
        config: the model's, for its prompts.
    """

    def __init__(self, library: Library, config: Any) -> None:
        self.library, self.config = library, config
        self._context: Any = None
        self._remarks = ""
        self._opened: Row | None = None

    def run(self, row: Row) -> Generated:
        """One call. Raises EngineFailed for beams, and where a step is refused."""
        if row.beams > 1:
            raise EngineFailed("has no beam search")
        context = self._open(row)
        prompts = make_inputs(self.config, row.batch, row.context)["input_ids"].tolist()
        batch = self._make_batch(prompts)
        ends = [(i + 1) * row.context - 1 for i in range(row.batch)]
        step = self._make_batch([[0]] * row.batch)
        self.library.clear(context)
        start = time.perf_counter()
        tokens = [self._decode(context, batch, ends)]
        first = time.perf_counter() - start
        for position in range(row.context, row.context + row.new - 1):
            for i, token in enumerate(tokens[-1]):
                step.token[i] = token
                step.pos[i] = position
            tokens.append(self._decode(context, step, range(row.batch)))
        total = time.perf_counter() - start
        for used in (batch, step):
            self.library.api.llama_batch_free(used)
        chosen = [list(sequence) for sequence in zip(*tokens, strict=True)]
        return Generated(chosen, total * 1e3, first * 1e3, self._remarks)

    def _open(self, row: Row) -> Any:
        """A context for this row; the one before is closed."""
        if self._opened != row:
            if self._context:
                self.library.api.llama_free(self._context)
            self._context, self._remarks = self.library.open_context(row)
            if not self._context:
                raise EngineFailed(f"no context for {row}")
            self._opened = row
        return self._context

    def _make_batch(self, rows: Sequence[Sequence[int]]) -> Any:
        """All tokens of all sequences from position 0; logits of each sequence's last one."""
        length = len(rows[0])
        batch = self.library.api.llama_batch_init(len(rows) * length, 0, 1)
        batch.n_tokens = len(rows) * length
        for i, row in enumerate(rows):
            for position, token in enumerate(row):
                at = i * length + position
                batch.token[at] = token
                batch.pos[at] = position
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = i
                batch.logits[at] = position == length - 1
        return batch

    def _decode(self, context: Any, batch: Any, ends: Sequence[int]) -> list[int]:
        """The next token of each sequence."""
        status = self.library.api.llama_decode(context, batch)
        if status != 0:
            raise EngineFailed(f"llama_decode returned {status}")
        found = []
        for end in ends:
            logits = self.library.api.llama_get_logits_ith(context, end)
            found.append(int(np.ctypeslib.as_array(logits, (self.config.vocab_size,)).argmax()))
        return found
