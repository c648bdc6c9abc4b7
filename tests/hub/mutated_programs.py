"""Changed program files, whose sums are right, tried one after another in a process of their own: a kernel that runs on what they say may
end it.

`python -m tests.hub.mutated_programs FOLDER SEED COUNT` prints how many were taken, and fails where one led to another value.
"""

from __future__ import annotations

import copy
import json
import random
import sys
from pathlib import Path
from typing import Any

import torch

from optimum_int8 import OptimizedModel
from optimum_int8.errors import OptimumInt8Error
from optimum_int8.fx import build
from optimum_int8.hub import programs
from optimum_int8.passes import find_blocks
from tests.models import batch

_NUMBERS = (-1, 0, 1, 2, 3, 64, 65, 1 << 20, 1 << 40, -(1 << 40), 1 << 62, True, False, None, 0.5, "s0", [], {})


def leaves(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every place in a value of JSON: its container and its key there."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((value, key))
        if isinstance(item, (dict, list)):
            leaves(item, found)
    return found


def mutate(body: dict[str, Any], chance: random.Random) -> None:
    """Change one thing in a graph, as somebody would who knows the format."""
    graph = chance.choice(body["graphs"])
    nodes = graph["nodes"]
    calls = [n for n in nodes if n[0] == "call"]
    named = [n for n in nodes if n[0] == "tensor"]
    match chance.randrange(9):
        case 0:  # another operand
            places = [(c, k) for c, k in leaves(calls, []) if isinstance(c, dict) and k == "node"]
            place, key = chance.choice(places)
            place[key] = chance.choice([chance.randrange(len(nodes)), place[key] - 1, place[key] + 1, -1, 1 << 30])
        case 1:  # another operator
            chance.choice(calls)[1] = chance.choice(calls)[1]
        case 2:  # operands the other way round
            chance.shuffle(chance.choice(calls)[2])
        case 3:  # a tensor under another name
            chance.choice(named)[1] = chance.choice(
                [chance.choice(named)[1], "weight", "", "a.b", "__class__", "training"]
            )
        case 4:  # another shape or dtype
            vals = [v for c, k in leaves(nodes, []) if isinstance(v := c[k], dict) and "shape" in v]
            val = chance.choice(vals)
            if chance.random() < 0.3 or not val["shape"]:
                val["dtype"] = chance.choice(["uint8", "float32", "int64", "bool", "float64", "nothing"])
            else:
                val["shape"][chance.randrange(len(val["shape"]))] = chance.choice([1, 32, 65, 1 << 33, "s0", "s77", -1])
        case 5:  # a node less, a node more
            place = chance.randrange(len(nodes))
            nodes[place : place + 1] = [] if chance.random() < 0.5 else [nodes[place]] * 2
        case 6:  # other assumptions
            graph["assumed"] = chance.choice(
                [[], [["<=", ["size", 1], 3]], [["//", ["size", 9999], 0]], [["**", ["size", 0], 8]], [[]], "x"]
            )
        case 7:  # a number of a call
            places = [(c, k) for c, k in leaves([n[2:4] for n in calls], []) if type(c[k]) in (int, float, bool)]
            place, key = chance.choice(places)
            place[key] = chance.choice(_NUMBERS)
        case _:  # anything, of any type
            place, key = chance.choice(leaves(graph, []))
            place[key] = chance.choice(_NUMBERS)


def main(folder: Path, seed: int, count: int) -> None:
    """Try changed files; see above."""
    model = OptimizedModel.from_pretrained(folder)
    calls = [batch(), batch(3, 12, 5), batch(1, 1, 0)]
    body = programs.parse(folder / programs.PROGRAMS_NAME)
    expected, memory = genuine(model, calls)
    chance = random.Random(seed)
    blocks = find_blocks(model)
    compiler = next(iter(blocks.values())).compiler
    refused = []

    def capture(module: Any, forward: Any, key: Any, tensors: Any) -> Any:  # what torch.export would give, at once
        refused.append(key)
        return copy.copy(memory[id(module), key])

    build.capture = capture  # type: ignore[assignment]
    taken = 0
    for _ in range(count):
        changed = copy.deepcopy(body)
        mutate(changed, chance)
        file = folder.parent / "changed.json"
        file.write_bytes(programs.signed(changed))
        compiler.release()
        compiler.stored = programs.Programs(file, lambda: body["made_for"])
        refused.clear()
        try:
            found = [model(**call).logits for call in calls]
        except OptimumInt8Error:
            continue
        assert all(map(torch.equal, found, expected)), json.dumps(changed)
        taken += not refused
    print(taken)


def genuine(model: Any, calls: list[Any]) -> tuple[list[Any], dict[Any, Any]]:
    """Results of the file as it was written, and the captured graphs."""
    expected = [model(**call).logits for call in calls]
    memory = {
        (id(block.module), key): variant.captured
        for block in find_blocks(model).values()
        for key, variant in block.variants.items()
        if variant is not None
    }
    return expected, memory


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
