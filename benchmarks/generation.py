"""Tokens per second of `generate()`: what `python -m benchmarks generation` measures.

Random weights of the real sizes, prompts of full length, greedy, a fixed number of new tokens. Every engine has a process of its own (the
threads of one library slow down another's in the same process: T5 ours took 34 ms a step instead of 16 with CTranslate2 loaded) and takes
turns with our static INT8 model; CTranslate2 INT8 stands beside where it is installed and converts the model.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from optimum_int8 import Int8Config, quantize
from optimum_int8.evaluation.benchmark import describe_architecture

from . import results
from .engines import BASELINE, version
from .pool import say
from .turns import EngineFailed, Pair, alternate, ratio_text
from .worker import wait_until_quiet

PROMPT, NEW = 32, 32
BATCHES = (1, 8)
TITLES = {
    BASELINE: "optimum_int8 static",
    "int8_dynamic": "optimum_int8 dynamic",
    "eager_fp32": "eager FP32",
    "ctranslate2_int8": "CTranslate2 INT8",
}
_LETTERS = 26

Generate = Callable[[Tensor], list[list[int]]]
"""From prompts `[batch, length]` to the new tokens of each."""


def gpt2() -> Any:
    """GPT-2 (124 M)."""
    return transformers.GPT2LMHeadModel(transformers.GPT2Config())


def t5_base() -> Any:
    """T5-base (223 M)."""
    sizes = {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "decoder_start_token_id": 0}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes))


def tiny() -> Any:
    """For tests of the benchmark."""
    sizes = {"n_layer": 1, "n_embd": 64, "n_head": 2, "vocab_size": 500, "bos_token_id": 0, "eos_token_id": 1}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))


MODELS = {"gpt2": gpt2, "t5-base": t5_base, "tiny": tiny}


def make(name: str) -> Any:
    """The FP32 model, random weights."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    model.generation_config.eos_token_id = None  # every engine makes the same number of tokens
    model.generation_config.pad_token_id = 0
    return model


def prompts(model: Any, batch: int) -> Tensor:
    """Token ids `[batch, PROMPT]`."""
    draw = torch.Generator().manual_seed(1)
    return torch.randint(5, model.config.vocab_size - 200, (batch, PROMPT), generator=draw)


def in_torch(model: Any, new: int = NEW) -> Generate:
    """`generate()` of a Transformers model."""

    def run(ids: Tensor) -> list[list[int]]:
        options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False}
        found = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return found[:, -new:].tolist()

    return torch.no_grad()(run)


def int8(model: Any, approach: str) -> Any:
    """Ours."""
    ids = prompts(model, 8)
    batch = {"input_ids": ids} | ({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})
    return quantize(model, Int8Config(approach=approach), [batch] if approach == "static" else None, progress=False)


def ctranslate2_int8(model: Any, threads: int, folder: Path, new: int) -> Generate:
    """CTranslate2's own generation on the converted model; its converter insists on a tokenizer, which is made up."""
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    model.save_pretrained(folder / "checkpoint")
    words = _words(model.config.vocab_size)
    _save_tokenizer(folder / "checkpoint", words, model.config.model_type)
    TransformersConverter(str(folder / "checkpoint")).convert(str(folder / "model"), quantization="int8")
    options = {"inter_threads": 1, "intra_threads": threads, "compute_type": "int8"}
    lengths = {"beam_size": 1, "sampling_topk": 1}
    if model.config.is_encoder_decoder:
        translator = ctranslate2.Translator(str(folder / "model"), **options)

        def translate(ids: Tensor) -> list[list[int]]:
            tokens = [[words[i] for i in row] for row in ids.tolist()]
            found = translator.translate_batch(tokens, max_decoding_length=new, min_decoding_length=new, **lengths)
            return [[words.index(w) for w in f.hypotheses[0]] for f in found]

        return translate
    generator = ctranslate2.Generator(str(folder / "model"), **options)

    def run(ids: Tensor) -> list[list[int]]:
        tokens = [[words[i] for i in row] for row in ids.tolist()]
        found = generator.generate_batch(
            tokens, max_length=new, min_length=new, include_prompt_in_result=False, **lengths
        )
        return [list(f.sequences_ids[0]) for f in found]

    return run


def _words(size: int) -> list[str]:
    return ["<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(3, size))]


def _save_tokenizer(folder: Path, words: list[str], kind: str) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    special = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=core, **special).save_pretrained(folder)


def serve(connection: Any, engine: str, name: str, threads: int, new: int) -> None:
    """The process of an engine: ready, then one call for each batch size that is asked for, until None."""
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            model = make(name)
            if engine == "eager_fp32":
                run = in_torch(model, new)
            elif engine == "ctranslate2_int8":
                run = ctranslate2_int8(model, threads, Path(folder), new)
            else:
                run = in_torch(int8(model, "static" if engine == BASELINE else "dynamic"), new)
        connection.send(("ok", 0.0))
        while (batch := connection.recv()) is not None:
            ids = prompts(model, batch)
            start = time.perf_counter()
            found = run(ids)
            elapsed = (time.perf_counter() - start) * 1e3
            if any(len(row) != new for row in found):
                raise EngineFailed(f"made {[len(row) for row in found]} tokens instead of {new}")
            wait_until_quiet()
            connection.send(("ok", elapsed))
    except Exception as error:  # engines raise whatever they like; the reason goes into the result
        connection.send(("failed", f"{type(error).__name__}: {error}"[:200]))


class Engine:
    """One engine in its process. Raises EngineFailed with its word when it cannot do it."""

    def __init__(self, engine: str, name: str, threads: int, new: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, engine, name, threads, new), daemon=True)
        self._process.start()
        theirs.close()
        self._receive()

    def call(self, batch: int) -> float:
        """Milliseconds of one call."""
        self._connection.send(batch)
        return self._receive()

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._connection.send(None)
        self._process.join(5)
        self._process.kill()

    def _receive(self) -> float:
        try:
            status, value = self._connection.recv()
        except (EOFError, OSError) as error:
            raise EngineFailed("its process ended") from error
        if status != "ok":
            raise EngineFailed(value)
        return float(value)


@dataclass
class Calls:
    """One engine on one batch; a turn is one call."""

    engine: Engine
    batch: int

    def turn(self) -> float:
        """Milliseconds of a call."""
        return self.engine.call(self.batch)


def measure(
    name: str, threads: int, seconds: float, *, batches: Sequence[int] = BATCHES, new: int = NEW
) -> dict[str, Any]:
    """One model, every engine: a result as `results.save` takes it."""
    machine = results.describe(threads)
    engines: dict[str, Engine] = {}
    notes: dict[str, dict[str, Any]] = {}
    try:
        for engine, title in TITLES.items():
            requires = ("ctranslate2",) if engine == "ctranslate2_int8" else ()
            notes[engine] = {"title": title, "versions": {d: version(d) for d in requires}, "status": "ok"}
            try:
                engines[engine] = Engine(engine, name, threads, new)
                for batch in batches:
                    engines[engine].call(batch)  # captures, compiles
            except EngineFailed as error:
                if engine == BASELINE:
                    raise
                engines.pop(engine, None)
                notes[engine] |= {"status": "skipped", "reason": str(error)}
                say(f"{name} {engine}: skipped: {error}")
        rows = [_row(engines, batch, new, seconds / len(batches)) for batch in batches]
    finally:
        for process in engines.values():
            process.close()
    for row in rows:
        ratios = ", ".join(f"{engine} {ratio_text(values)}" for engine, values in row["engines"].items())
        say(f"{name} {row['shape']}: {row['baseline_ms']:.0f} ms; {ratios}")
    settings = {"seconds": seconds, "threads": threads, "prompt": PROMPT, "new_tokens": new}
    return {
        "schema": results.SCHEMA, "kind": "generation", "name": name, "model": describe_architecture(make(name)),
        "machine": machine, "settings": settings, "baseline": BASELINE, "engines": notes, "limits": {}, "rows": rows,
    }  # fmt: skip


def _row(engines: dict[str, Engine], batch: int, new: int, seconds: float) -> dict[str, Any]:
    ours = Calls(engines[BASELINE], batch)
    pairs = {name: Pair(ours, Calls(engine, batch)) for name, engine in engines.items() if name != BASELINE}
    alternate(list(pairs.values()), seconds)
    found = {name: pair.to_dict() for name, pair in pairs.items() if pair.failure is None}
    baseline = statistics.median(first for pair in pairs.values() for first, _ in pair.times)
    return {"shape": f"{batch}x{PROMPT}", "tokens": batch * new, "baseline_ms": baseline, "engines": found}
