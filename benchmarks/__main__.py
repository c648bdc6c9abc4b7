"""`python -m benchmarks`; `scripts/benchmark` makes the environment for it."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .engines import NAMES
from .results import FOLDER, KINDS, ResultError, load, save
from .shapes import Shape
from .tables import make_table

if TYPE_CHECKING:
    from .suites import Session

SHAPES = "1x8,1x16,1x128,1x384,8x128,32x128"
SCALING_SHAPES = "1x16,1x128,8x128"
RAGGED_SHAPE = "32x8-128"
LENGTHS = (1, 2, 3, 5, 7, 9, 13, 15, 16, 17, 21, 27, 31, 32, 33, 41, 47, 49, 57, 63, 64, 65, 79, 81, 95, 97, 113, 127, 128, 129,
           161, 191, 193, 225, 255, 257, 289, 321, 383, 385, 449, 511, 512)  # fmt: skip
"""Both sides of tile edges, and odd lengths between."""

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
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown engine {', '.join(unknown)}; expected some of {', '.join(NAMES)}")
    return names


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/benchmark", description="Our INT8 models in turns with every other engine, on random weights."
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--lengths", action="store_true", help="latency of one sequence against its tokens, 1 to 512")
    kind.add_argument(
        "--ragged", action="store_true", help=f"a batch of mixed lengths against a full one ({RAGGED_SHAPE})"
    )
    kind.add_argument("--scaling", action="store_true", help="1 thread, 2 threads, and two processes serving at once")
    kind.add_argument("--show", type=Path, nargs="+", metavar="FILE", help="print the tables of result files")
    kind.add_argument(
        "--render", type=Path, nargs="*", metavar="FILE", help="make the tables of README.md or FILE anew"
    )
    parser.add_argument(
        "--check", action="store_true", help="with --render: fail if tables are out of date, change nothing"
    )
    parser.add_argument(
        "--models",
        default="bert-base,minilm",
        help="default: bert-base,minilm; any preset or config.json; on images: resnet-50, yolo-v2",
    )
    parser.add_argument("--shapes", type=shape_list, help=f"default: {SHAPES}; with --lengths 43 lengths up to 512")
    parser.add_argument("--engines", type=engine_list, help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--threads", type=int, default=2, help="threads of a call (default: 2)")
    parser.add_argument("--seconds", type=float, help=f"time for measuring each model (default: {SECONDS})")
    parser.add_argument(
        "--output", type=Path, default=FOLDER, help="folder of the results (default: benchmarks/results)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results of this run to one more file")
    return parser


@contextlib.contextmanager
def open_session(args: argparse.Namespace, kind: str, model: str) -> Iterator[Session]:
    """The engines of one run."""
    from .suites import Session

    engines = args.engines or ENGINES[kind]
    threads = 2 if kind == "scaling" else args.threads
    with Session(model, engines, threads, args.seconds or SECONDS[kind], fixed_shapes=kind != "lengths") as session:
        yield session


def measure(args: argparse.Namespace, kind: str, model: str) -> dict[str, Any]:
    """One result."""
    from optimum_int8.errors import ConfigError

    from . import suites
    from .images import image_size
    from .models import find_model, is_image_model

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


def main(arguments: list[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = make_parser().parse_args(arguments)
    try:
        if args.show:
            for path in args.show:
                make_table(load(path)).print()
            return 0
        if args.render is not None:
            return render_files(args.render or [FOLDER.parents[1] / "README.md"], args.check)
        return run(args)
    except ResultError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def render_files(paths: list[Path], check: bool) -> int:
    """1 if `check` finds something out of date."""
    from .render import render_file

    status = 0
    for path in paths:
        fresh = render_file(path, check=check)
        print(f"{path.name}: {'up to date' if fresh else 'out of date' if check else 'made anew'}")
        status |= int(check and not fresh)
    return status


def run(args: argparse.Namespace) -> int:
    """Measure, save and print."""
    from optimum_int8.errors import OptimumInt8Error

    from .pool import EngineFailed, say

    kind = next((name for name in KINDS if getattr(args, name, False)), "latency")
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


if __name__ == "__main__":
    sys.exit(main())
