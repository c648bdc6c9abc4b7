"""CTranslate2 with INT8 weights and dynamic activations; converted in memory, with a made-up vocabulary that its converter insists on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...turns import EngineFailed
from ..models import WHISPER_PROMPT, Generated, Job, Loaded, make_inputs
from ..rows import Row

NAME = "ctranslate2_int8"
TITLE = "CTranslate2 INT8"
REQUIRES = ("ctranslate2",)
BYTES_PER_WEIGHT = 1.0


def load(job: Job) -> Loaded:
    """Convert and open: a generator for decoders, a translator for encoder-decoders, Whisper for itself."""
    import ctranslate2

    config = job.config()
    words = name_words(config)
    target = job.folder / f"ctranslate2_{ctranslate2.__version__}-int8"
    if not target.exists():
        _convert(job.fp32(), words, target)
    options = {"inter_threads": 1, "intra_threads": job.threads, "compute_type": "int8"}
    if config.model_type == "whisper":
        return CTranslate2Whisper(ctranslate2.models.Whisper(str(target), **options), config)
    if config.is_encoder_decoder:
        return CTranslate2Text(ctranslate2.Translator(str(target), **options), config, words)
    return CTranslate2Text(ctranslate2.Generator(str(target), **options), config, words)


class CTranslate2Text:
    """Prompts of tokens to tokens."""

    def __init__(self, engine: Any, config: Any, words: Sequence[str]) -> None:
        self.engine, self.config, self.words = engine, config, words
        self._numbers = {word: i for i, word in enumerate(words)}

    def run(self, row: Row) -> Generated:
        """One call; greedy ones tell when the first token came."""
        rows = make_inputs(self.config, row.batch, row.context)["input_ids"].tolist()
        prompts = [[self.words[i] for i in ids] for ids in rows]
        first: list[float] = []

        def note(_: Any) -> bool:
            if not first:
                first.append(time.perf_counter())
            return False

        options: dict[str, Any] = {"beam_size": row.beams, "max_batch_size": 0}
        if row.beams == 1:
            options["callback"] = note
        start = time.perf_counter()
        tokens = self._call(prompts, row.new, options)
        total = time.perf_counter() - start
        return Generated(tokens, total * 1e3, (first[0] - start) * 1e3 if first else None)

    def _call(self, prompts: list[list[str]], new: int, options: dict[str, Any]) -> list[list[int]]:
        if self.config.is_encoder_decoder:
            found = self.engine.translate_batch(prompts, max_decoding_length=new, min_decoding_length=new, **options)
            return [[self._numbers[word] for word in one.hypotheses[0]] for one in found]
        found = self.engine.generate_batch(
            prompts, max_length=new, min_length=new, include_prompt_in_result=False, **options
        )
        return [list(one.sequences_ids[0]) for one in found]


class CTranslate2Whisper:
    """Features of sounds to tokens."""

    def __init__(self, engine: Any, config: Any) -> None:
        self.engine, self.config = engine, config

    def run(self, row: Row) -> Generated:
        """One call; it does not tell when the first token came."""
        import ctranslate2

        features = make_inputs(self.config, row.batch, row.context)["input_features"].numpy()
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(features))
        prompt = list(WHISPER_PROMPT)
        options = {"suppress_blank": False, "suppress_tokens": [self.config.eos_token_id]}
        length = max(2 * row.new, len(prompt) + row.new)  # it makes half of it at most, and counts the prompt
        start = time.perf_counter()
        found = self.engine.generate(view, [prompt] * row.batch, beam_size=row.beams, max_length=length, **options)
        total = time.perf_counter() - start
        return Generated([list(one.sequences_ids[0]) for one in found], total * 1e3)


def name_words(config: Any) -> list[str]:
    """A word for each token; those that converters look for have the names they look for."""
    words = [f"w{i}" for i in range(config.vocab_size)]
    special = {config.eos_token_id: "</s>", config.pad_token_id: "<pad>"}
    if config.model_type == "whisper":
        names = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
        special = {config.eos_token_id: "<|endoftext|>"} | dict(zip(WHISPER_PROMPT, names, strict=True))
    for token, name in special.items():
        if token is not None:
            words[token] = name
    return words


class _Vocabulary:
    """What the converters ask a tokenizer for."""

    additional_special_tokens: tuple[str, ...] = ()

    def __init__(self, words: Sequence[str], end: int) -> None:
        self.words = words
        self.eos_token = self.bos_token = words[end]
        self.pad_token = "<pad>" if "<pad>" in words else words[end]
        self.unk_token = words[2]

    def convert_ids_to_tokens(self, token: int) -> str:
        """The word of an id."""
        return self.words[token]

    def get_vocab(self) -> dict[str, int]:
        """Words to ids."""
        return {word: i for i, word in enumerate(self.words)}


def _convert(model: Any, words: Sequence[str], target: Path) -> None:
    """Through CTranslate2's converter, whose two loading steps are answered from memory."""
    from ctranslate2.converters import TransformersConverter

    vocabulary = _Vocabulary(words, model.config.eos_token_id)

    class FromMemory(TransformersConverter):
        def load_model(self, *_: Any, **__: Any) -> Any:
            return model

        def load_tokenizer(self, *_: Any, **__: Any) -> Any:
            return vocabulary

    source = target.with_name(f"{target.name}-source")
    model.config.save_pretrained(source)
    partial = target.with_name(f"{target.name}-partial")
    try:
        FromMemory(str(source)).convert(str(partial), quantization="int8", force=True)
    except (ValueError, NotImplementedError) as error:
        raise EngineFailed(f"its converter refuses the model: {error}") from error
    partial.rename(target)
