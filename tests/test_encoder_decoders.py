"""Decoder layers with cross attention are one program a step, and say what their modules say: with and without cache, beams, padding, on
every instruction set."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from optimum_int8 import Int8Config, inspect, kernels, quantize
from optimum_int8.kernels import library
from optimum_int8.kernels.program import Program
from optimum_int8.kernels.sequence import ProgramSequence
from tests.test_decoders import generate

pytestmark = [
    pytest.mark.skipif(library() is None, reason="without the native library nothing is fused"),
    pytest.mark.filterwarnings("ignore"),
]

_SIZES: dict[str, Any] = {"vocab_size": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}
_T5: dict[str, Any] = {
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 96,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
_BART: dict[str, Any] = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": None,
}
_WHISPER: dict[str, Any] = {"num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 64}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5Config", _T5),
    "mt5": ("MT5Config", {**_T5, "feed_forward_proj": "gated-gelu"}),
    "bart": ("BartConfig", _BART),
    "mbart": ("MBartConfig", _BART),
    "marian": ("MarianConfig", _BART),
    "m2m100": ("M2M100Config", _BART),
    "whisper": ("WhisperConfig", {**_BART, **_WHISPER}),
    "whisper with a head of 24": ("WhisperConfig", {**_BART, **_WHISPER, "d_model": 96}),
}  # fmt: skip


def make(family: str, approach: str = "dynamic", **settings: Any) -> Any:
    name, more = FAMILIES[family]
    torch.manual_seed(3)
    config = getattr(transformers, name)(**{**_SIZES, **more})
    speech = name == "WhisperConfig"
    kind = transformers.AutoModelForSpeechSeq2Seq if speech else transformers.AutoModelForSeq2SeqLM
    model = kind.from_config(config).eval()
    if speech:
        for setting in ("suppress_tokens", "begin_suppress_tokens", "forced_decoder_ids"):
            setattr(model.generation_config, setting, None)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "norm" in key:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    said = torch.randint(2, 128, (3, 5), generator=torch.Generator().manual_seed(0))
    data = [{**prompt(family, 3), "decoder_input_ids": said}] if approach == "static" else None
    return quantize(model, Int8Config(approach=approach, **settings), data, progress=False)


def prompt(family: str, rows: int = 2, length: int = 9) -> dict[str, Tensor]:
    """Padded at the right but for the first row."""
    generator = torch.Generator().manual_seed(rows)
    if "whisper" in family:
        return {"input_features": torch.randn(rows, 8, 32, generator=generator)}
    ids = torch.randint(2, 128, (rows, length), generator=generator)
    kept = torch.arange(length) < length - torch.arange(rows).unsqueeze(1) * 2
    return {"input_ids": torch.where(kept, ids, 0), "attention_mask": kept.long()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "approach"),
    [*((family, "dynamic") for family in FAMILIES), *((family, "static") for family in ("t5", "bart", "whisper"))],
)
def test_a_layer_is_one_program_a_step_and_says_what_the_modules_say(
    family: str, approach: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfused = make(family, approach, fuse=False)
    fused = make(family, approach)
    calls: list[list[int]] = [[]]  # of the encoder, and of each step
    run = Program.run
    step = fused.forward
    monkeypatch.setattr(Program, "run", lambda self, *a, **k: (calls[-1].append(len(self)), run(self, *a, **k))[1])
    together = ProgramSequence.run
    monkeypatch.setattr(
        ProgramSequence,
        "run",
        lambda self, *a: (calls[-1].extend(map(len, self._programs)), together(self, *a))[1],
    )
    monkeypatch.setattr(fused, "forward", lambda *a, **k: (calls.append([]), step(*a, **k))[1])
    for rows in (1, 2):
        batch = prompt(family, rows)
        _, expected = generate(unfused, batch)
        tokens, found = generate(fused, batch)
        layers = [length for length in calls[-1] if length > 4]  # the others: tables of tokens and positions, the head
        assert len(layers) == 2 and set(layers) <= {*range(18, 30)}, calls[-1]
        assert (found - expected).norm() <= 0.02 * expected.norm()
        uncached, logits = generate(fused, batch, use_cache=False)
        assert torch.equal(tokens, uncached)
        assert (found - logits).norm() <= 0.02 * logits.norm()
    assert not inspect(fused).failures


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mt5", "mbart", "whisper"])
def test_every_instruction_set_gives_the_same_logits(family: str) -> None:
    model = make(family)
    expected = None
    for isa in kernels.info()["isa_found"]:
        with kernels.use_isa(isa):
            _, found = generate(model, prompt(family))
        expected = found if expected is None else expected
        assert torch.equal(found, expected), isa


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "whisper"])
def test_beams_are_those_of_the_modules(family: str) -> None:
    expected, _ = generate(make(family, fuse=False), prompt(family), num_beams=3)
    model = make(family)
    found, _ = generate(model, prompt(family), num_beams=3)
    assert torch.equal(found, expected)
    found, _ = generate(model, prompt(family), num_beams=3, use_cache=False)
    assert torch.equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "m2m100"])
def test_a_padded_batch_gives_each_row_what_it_gets_alone(family: str) -> None:
    model = make(family)
    batch = prompt(family, 3)
    together, _ = generate(model, batch)
    for row in range(3):
        kept = batch["attention_mask"][row].bool()
        alone, _ = generate(model, {name: value[row : row + 1, kept] for name, value in batch.items()})
        assert torch.equal(together[row], alone[0])


@pytest.mark.slow
def test_long_generation_passes_several_buffers() -> None:
    expected, _ = generate(make("t5", fuse=False), prompt("t5", 1), max_new_tokens=60, min_new_tokens=60)
    found, _ = generate(make("t5"), prompt("t5", 1), max_new_tokens=60, min_new_tokens=60)
    assert torch.equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "whisper"])
def test_later_layers_run_without_their_graphs(family: str) -> None:
    """T5's also pass on the bias of the first, which they were given."""
    model = make(family)
    generate(model, prompt(family, 1))
    decoder = model.get_decoder()
    layer = decoder.block[1] if family == "t5" else decoder.layers[1]
    variants = list(layer.forward.variants.values())
    steps = [variant for variant in variants[1:] if variant is not None]
    assert steps and all(variant.direct is not None for variant in steps)
