"""Latency of INT8 models with random weights, next to every other engine that is installed.

Every engine has a process of its own and takes turns with ours, so that the ratios of one run count. Engines that are not
installed are skipped and named (`pip install -e ".[benchmark]"` installs them). Each model gives one file in the output folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engines import NAMES
from ..results import FOLDER, save
from ..shapes import Shape
from ..tables import make_table
from . import check_names

if TYPE_CHECKING:
    from ..suites import Session

HELP = "models in turns with every other engine: by shape, by length, mixed lengths, threads and processes"

SHAPES = "1x8,1x16,1x128,1x384,8x128,32x128"
SCALING_SHAPES = "1x16,1x128,8x128"
RAGGED_SHAPE = "32x8-128"
LENGTHS = (1, 2, 3, 5, 7, 9, 13, 15, 16, 17, 21, 27, 31, 32, 33, 41, 47, 49, 57, 63, 64, 65, 79, 81, 95, 97, 113, 127, 128, 129,
           161, 191, 193, 225, 255, 257, 289, 321, 383, 385, 449, 511, 512)  # fmt: skip
"""Both sides of tile edges, and odd lengths between."""

KINDS = ("lengths", "ragged", "scaling")
"""Options that measure something else than latency by shape."""

SECONDS = {"latency": 130.0, "images": 60.0, "lengths": 150.0, "ragged": 60.0, "scaling": 120.0}
"""Time for measuring one model; converting and compiling come on top, the first time."""

FEW = ("int8_dynamic", "eager_fp32", "onnxruntime_dynamic", "openvino_int8")
ENGINES = {
    "latency": tuple(name for name in NAMES if name != "eager_channels_last"),
    "images": ("eager_fp32", "eager_channels_last", "openvino_int8"),
    "lengths": ("int8_dynamic", "eager_fp32", "openvino_int8"),
    "ragged": FEW,
    "scaling": FEW[1:],
}


def shape_list(text: str) -> list[Shape]:
    """An `argparse` type: `1x16,32x8-128`."""
    try:
        return [Shape.parse(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def engine_list(text: str) -> list[str]:
    """An `argparse` type: names of engines."""
    names = text.split(",")
    try:
        check_names("engine", names, NAMES)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--lengths", action="store_true", help="latency of one sequence against its tokens, 1 to 512")
    kind.add_argument(
        "--ragged", action="store_true", help=f"a batch of mixed lengths against a full one ({RAGGED_SHAPE})"
    )
    kind.add_argument("--scaling", action="store_true", help="1 thread, 2 threads, and two processes serving at once")
    parser.add_argument(
        "--models",
        default="bert-base,minilm",
        help="default: bert-base,minilm; any preset or config.json; on images: resnet-50, yolo-v2",
    )
    parser.add_argument("--shapes", type=shape_list, help=f"default: {SHAPES}; with --lengths 43 lengths up to 512")
    parser.add_argument("--engines", type=engine_list, help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--threads", type=int, default=2, help="threads of a call (default: 2)")
    seconds = ", ".join(f"{kind} {value:.0f}" for kind, value in SECONDS.items())
    parser.add_argument("--seconds", type=float, help=f"time for measuring each model (default: {seconds})")
    parser.add_argument(
        "--output", type=Path, default=FOLDER, help="folder of the results (default: benchmarks/results)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results of this run to one more file")


def run(args: argparse.Namespace) -> int:
    """Measure, save and print; returns the exit code."""
    from optimum_int8.errors import OptimumInt8Error

    from ..pool import say
    from ..turns import EngineFailed

    kind = next((name for name in KINDS if getattr(args, name)), "latency")
    found = []
    for model in args.models.split(","):
        try:
            result = measure(args, kind, model)
        except (EngineFailed, OptimumInt8Error) as error:
            print(f"error: {model}: {error}", file=sys.stderr)
            return 2
        found.append(result)
        threads = [] if kind == "scaling" else [f"{result['settings']['threads']}t"]
        # the instruction set is part of the name, so that results of different machines stand side by side
        stem = "-".join([kind, Path(model).stem, *threads, result["machine"]["isa_used"]])
        say(f"wrote {save(result, args.output / f'{stem}.json').name}")
        make_table(result).print()
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


def measure(args: argparse.Namespace, kind: str, model: str) -> dict[str, Any]:
    """The result of one model."""
    from optimum_int8.errors import ConfigError

    from .. import suites
    from ..images import image_size
    from ..models import find_model, is_image_model

    config = find_model(model)
    if is_image_model(config):
        if kind != "latency":
            raise ConfigError(f"{model} is a model on images, which have one kind of result; leave out --{kind}")
        with open_session(args, "images", model) as session:
            return suites.measure_latency(session, args.shapes or [Shape(1, image_size(config))])
    limit = config.max_position_embeddings
    with open_session(args, kind, model) as session:
        if kind == "lengths":
            lengths = [shape.length for shape in args.shapes] if args.shapes else LENGTHS
            return suites.measure_lengths(session, [length for length in lengths if length <= limit])
        if kind == "ragged":
            return suites.measure_ragged(session, (args.shapes or shape_list(RAGGED_SHAPE))[0])
        if kind == "scaling":
            return suites.measure_scaling(session, args.shapes or shape_list(SCALING_SHAPES))
        return suites.measure_latency(session, args.shapes or shape_list(SHAPES))


@contextlib.contextmanager
def open_session(args: argparse.Namespace, kind: str, model: str) -> Iterator[Session]:
    """The engines of one run."""
    from ..suites import Session

    engines = args.engines or ENGINES[kind]
    threads = 2 if kind == "scaling" else args.threads
    with Session(model, engines, threads, args.seconds or SECONDS[kind], fixed_shapes=kind != "lengths") as session:
        yield session
