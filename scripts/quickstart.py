"""The program behind `scripts/quickstart`: quantize a text classifier both ways, evaluate, measure speed, one table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

from optimum_int8 import Int8Config, OptimumInt8Error, TextClassificationQuantizer
from optimum_int8.cli.command_line import EXIT_ERROR, EXIT_INTERRUPTED, write_json
from optimum_int8.cli.options import add_common, check_output_folder, check_writable, positive
from optimum_int8.errors import ConfigError
from optimum_int8.evaluation import EvaluationReport
from optimum_int8.evaluation.architectures import find_config
from optimum_int8.evaluation.benchmark import TITLES, BenchmarkReport, benchmark
from optimum_int8.evaluation.data import load_dataset, take

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "quickstart"
OUTPUT = Path("outputs/quickstart")
ARCHITECTURE = "bert-base"
SHAPE = (1, 128)
SEED = 42


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line. Raises `ConfigError` for those that do not go together."""
    parser = argparse.ArgumentParser(
        prog="scripts/quickstart",
        description="Quantize a text classifier statically and dynamically; show FP32 versus INT8.",
    )
    parser.add_argument("--model", help="fine-tuned FP32 classifier: a folder or a name on the Hub; default: embedded")
    parser.add_argument("--dataset", help="a file, a folder or a name on the Hub; default: the embedded sentences")
    parser.add_argument("--dataset-config", metavar="NAME", help='configuration of a Hub dataset ("sst2" of "glue")')
    parser.add_argument("--text-column", metavar="NAME[,NAME]", help="column of texts; two for sentence pairs")
    parser.add_argument("--label-column", metavar="NAME", help="column of labels")
    parser.add_argument("--train-split", default="train", help="split to calibrate on (default: train)")
    parser.add_argument("--split", default="validation", help="split to evaluate on (default: validation)")
    parser.add_argument("--calibration-samples", metavar="N", type=positive, default=128, help="default: 128")
    parser.add_argument("--samples", metavar="N", type=positive, help="evaluate on N examples only (default: all)")
    parser.add_argument("--output", metavar="FOLDER", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")
    parser.add_argument("--no-speed", action="store_true", help="leave out the speed of BERT-base")
    parser.add_argument("--rounds", metavar="N", type=positive, default=20, help="timed calls per model (default: 20)")
    add_common(parser)
    options = parser.parse_args(arguments)
    if bool(options.model) != bool(options.dataset):
        given, other = ("--model", "--dataset") if options.model else ("--dataset", "--model")
        raise ConfigError(f"{given} without {other}; give both, or neither for the embedded model and sentences")
    check_writable(options.json, "--json")
    check_output_folder(options.output)
    return options


def evaluate_approaches(options: argparse.Namespace) -> dict[str, EvaluationReport]:
    """Quantize with each approach, save, load back and evaluate what was loaded.

    Returns:
        The reports by approach. The checkpoints are `<output>/int8-static` and `<output>/int8-dynamic`.
    """
    source = options.dataset or EXAMPLE / "sentences"
    train, validation = (
        load_dataset(source, split=split, name=options.dataset_config) for split in (options.train_split, options.split)
    )
    if options.samples:
        validation = take(validation, options.samples, SEED)
    quantizer = TextClassificationQuantizer.from_pretrained(
        options.model or EXAMPLE / "model", text_column=options.text_column, label_column=options.label_column
    )
    reports = {}
    for approach in ("static", "dynamic"):
        folder = options.output / f"int8-{approach}"
        say(f"quantizing ({approach}), saving to {folder}, loading it back, evaluating on {len(validation)} examples")
        calibration = take(train, options.calibration_samples, SEED) if approach == "static" else None
        quantizer.quantize(Int8Config(approach=approach), calibration, save_directory=folder)
        quantizer.load_int8(folder)
        reports[approach] = quantizer.evaluate(validation, latency_rounds=options.rounds)
    return reports


def measure_speed(rounds: int) -> BenchmarkReport:
    """FP32, BF16 and INT8 speed of BERT-base with random weights, in turns within one run."""
    batch, tokens = SHAPE
    say(f"timing {ARCHITECTURE} with random weights at {batch} x {tokens} tokens: FP32, BF16 and INT8 in turns")
    return benchmark(find_config(ARCHITECTURE), [SHAPE], rounds=rounds)


def summary_table(reports: dict[str, EvaluationReport], speed: BenchmarkReport | None) -> Table:
    """Metric, size and latency of the classifier, then the latency of BERT-base if it was measured."""
    first = next(iter(reports.values()))
    machine = first.machine
    caption = f"{machine['cpu']}, {machine['isa_used']}, {machine['threads']} threads; medians of calls in turns"
    table = Table(title="FP32 versus INT8", caption=caption)
    for heading in ("model", "", first.metric, "change", "size", "latency", "speed"):
        table.add_column(heading, justify="left" if heading in ("model", "") else "right")
    fp32 = first.fp32
    table.add_row(
        "classifier", "FP32", f"{fp32.value:.4f}", "", f"{fp32.size_mb:.2f} MB", f"{fp32.latency_ms:.2f} ms", "1.00x"
    )
    for approach, report in reports.items():
        loss = "" if report.relative_loss is None else f"{0.0 - report.relative_loss:+.2%}"
        size = f"{report.int8.size_mb:.2f} MB (1/{report.compression_ratio:.2f})"
        latency = f"{report.int8.latency_ms:.2f} ms"
        row = (f"INT8 {approach}", f"{report.int8.value:.4f}", loss, size, latency, speed_text(report.speedup))
        table.add_row("", *row)
    if speed is not None:
        table.add_section()
        row = speed.rows[0]
        label = f"{ARCHITECTURE}, {row['batch']} x {row['sequence']}"
        for name, milliseconds in row["latency_ms"].items():
            table.add_row(label, TITLES[name], "", "", "", f"{milliseconds:.2f} ms", speed_text(row["speedup"][name]))
            label = "(random weights)" if label.startswith(ARCHITECTURE) else ""
    return table


def speed_text(speedup: float | None) -> str:
    """How many times faster than FP32; None where the machine was too busy to tell."""
    return "not measurable" if speedup is None else f"{speedup:.2f}x"


def run(options: argparse.Namespace) -> None:
    """Everything: evaluate, measure, print the table and the folder, write the JSON."""
    # What Transformers reports while loading would bury the result.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    reports = evaluate_approaches(options)
    speed = None if options.no_speed else measure_speed(options.rounds)
    result: dict[str, Any] = {
        "folder": str(options.output),
        "classifier": {approach: report.to_dict() for approach, report in reports.items()},
        "speed": speed.to_dict() if speed else None,
    }
    if options.json:
        write_json(result, options.json)
    console = Console(highlight=False)
    # Piped output has no width; 80 columns would break the cells of the table.
    console = console if console.is_terminal else Console(width=140, highlight=False)
    console.print(summary_table(reports, speed))
    console.print(f"wrote {options.output}: {', '.join(f'int8-{approach}' for approach in reports)}", markup=False)


def say(text: str) -> None:
    """Progress, on standard error; standard output holds the result alone."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the quickstart; returns the exit code, with one line on standard error for an error of ours."""
    options = None
    try:
        options = parse_arguments(arguments)
        run(options)
    except OptimumInt8Error as error:
        if options is not None and options.debug:
            raise
        say(f"error: {' '.join(str(error).split())}")
        return EXIT_ERROR
    except KeyboardInterrupt:
        say("interrupted")
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
