"""Cost per token at every length from 1 to 512: `python -m benchmarks.lengths RESULT.json`.

Lengths are called in a shuffled order, several rounds, and the median of each is kept, so that a busy minute does not look like a cliff.
A cliff is a length whose call takes far longer than the next longer one's: more work cannot take less time.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from optimum_int8 import Int8Config, quantize
from optimum_int8.evaluation.machine import describe_machine
from optimum_int8.passes import find_blocks

LENGTHS = range(1, 513)
ROUNDS = 7
LAYERS = 2


def model(approach: str) -> Any:
    """An encoder of BERT-base's sizes with `LAYERS` layers."""
    torch.manual_seed(0)
    config = transformers.BertConfig(num_hidden_layers=LAYERS)
    ids = torch.randint(0, config.vocab_size, (4, 64))
    data = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}] if approach == "static" else None
    return quantize(transformers.BertModel(config).eval(), Int8Config(approach=approach), data, progress=False)


@torch.no_grad()
def measure(approach: str) -> dict[str, Any]:
    """Milliseconds by length, how many variants were captured, and the largest cliff."""
    int8 = model(approach)
    ids = torch.randint(0, 1000, (1, 512))
    times: dict[int, list[float]] = {length: [] for length in LENGTHS}
    for length in LENGTHS:
        int8(input_ids=ids[:, :length])
    variants = sum(len(block.variants) for block in find_blocks(int8).values())
    order = list(LENGTHS)
    for _ in range(ROUNDS):
        random.Random(0).shuffle(order)
        for length in order:
            start = time.perf_counter()
            int8(input_ids=ids[:, :length])
            times[length].append((time.perf_counter() - start) * 1e3)
    medians = {length: statistics.median(values) for length, values in times.items()}
    # against the median of the eight lengths that follow: one of them alone may have been lucky
    following = {n: statistics.median(medians[m] for m in range(n + 1, n + 9)) for n in range(1, 505)}
    ratios = {n: medians[n] / following[n] for n in following}
    worst = max(ratios, key=lambda n: ratios[n])
    return {
        "milliseconds": {str(n): round(value, 4) for n, value in medians.items()},
        "milliseconds_per_token": {str(n): round(medians[n] / n, 5) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)},
        "blocks": len(find_blocks(int8)),
        "variants": variants,
        "largest_cliff": {"length": worst, "times_the_next_longer": round(ratios[worst], 3)},
    }


def main() -> None:
    """Measure both approaches and write the result."""
    result = {"layers": LAYERS, "rounds": ROUNDS, "machine": describe_machine(), "approaches": {}}
    for approach in ("static", "dynamic"):
        result["approaches"][approach] = measure(approach)
        print(approach, {k: v for k, v in result["approaches"][approach].items() if k != "milliseconds"}, flush=True)
    Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
