"""Decoder layers of each family are one program a step, and say what their modules say: with and without cache, padded, on every
instruction set."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from optimum_int8 import Int8Config, inspect, kernels, quantize
from optimum_int8.kernels import library
from optimum_int8.kernels.program import Program

pytestmark = [
    pytest.mark.skipif(library() is None, reason="without the native library nothing is fused"),
    pytest.mark.filterwarnings("ignore"),
]

_SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
_SCALED = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 10000.0}
_PARTIAL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "llama with yarn": ("LlamaConfig", {"rope_parameters": _SCALED}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 32}),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "sliding mistral": ("MistralConfig", {"sliding_window": 7}),
    "smollm3": ("SmolLM3Config", {"no_rope_layers": [1, 0]}),
    "gemma": ("GemmaConfig", {"head_dim": 16}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 16, "sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"]}),
    "phi3": ("Phi3Config", {}),
    "partial phi3": ("Phi3Config", {"rope_parameters": _PARTIAL}),
    "gpt2": ("GPT2Config", {}),
    "opt": ("OPTConfig", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    "opt with norms last": ("OPTConfig", {"ffn_dim": 96, "word_embed_proj_dim": 64, "do_layer_norm_before": False}),
    "phi": ("PhiConfig", {}),
    "gptj": ("GPTJConfig", {"rotary_dim": 8}),
    "granite": ("GraniteConfig", {"residual_multiplier": 0.22}),
    "bloom": ("BloomConfig", {}),
    "neox": ("GPTNeoXConfig", {}),
    "gemma2": ("Gemma2Config", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 7, "attn_logit_softcapping": 2.0}),
    "glm": ("GlmConfig", {"head_dim": 16, "partial_rotary_factor": 0.5}),
}  # fmt: skip
STEPS = 6


def make(family: str, approach: str = "dynamic", **settings: Any) -> Any:
    name, more = FAMILIES[family]
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**{**_SIZES, **more})).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "norm" in key:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    data = [prompt(3)] if approach == "static" else None
    return quantize(model, Int8Config(approach=approach, **settings), data, progress=False)


def prompt(rows: int = 2, length: int = 9) -> dict[str, Tensor]:
    """Padded at the left but for the first row."""
    ids = torch.randint(2, 128, (rows, length), generator=torch.Generator().manual_seed(rows))
    kept = torch.arange(length) >= torch.arange(rows).unsqueeze(1) * 2
    return {"input_ids": torch.where(kept, ids, 0), "attention_mask": kept.long()}


def generate(model: Any, batch: dict[str, Tensor], **settings: Any) -> tuple[Tensor, Tensor]:
    """Tokens and the logits that they were chosen by."""
    given = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, **settings}
    found = model.generate(**batch, **given, return_dict_in_generate=True, output_logits=True)
    return found.sequences[:, -STEPS:], torch.stack(found.logits, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "approach"),
    [
        *((family, "dynamic") for family in FAMILIES),
        *((family, "static") for family in ("llama", "gemma3", "glm", "opt", "bloom")),
    ],
)
def test_fused_steps_say_what_the_modules_say(family: str, approach: str) -> None:
    unfused = make(family, approach, fuse=False)
    fused = make(family, approach)
    for batch in (prompt(1), prompt(2), {k: v[:, :1] for k, v in prompt(1).items()}):
        _, expected = generate(unfused, batch)
        tokens, found = generate(fused, batch)
        assert (found - expected).norm() <= 0.02 * expected.norm()
        uncached, logits = generate(fused, batch, use_cache=False)
        assert torch.equal(tokens, uncached)
        assert (found - logits).norm() <= 0.02 * logits.norm()
    assert not inspect(fused).failures


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_is_one_program_a_step(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(family)
    batch = prompt(1)
    generate(model, batch)
    with torch.no_grad():
        cache = model(**batch, use_cache=True).past_key_values
        lengths: list[int] = []
        run = Program.run
        monkeypatch.setattr(Program, "run", lambda self, *a, **k: (lengths.append(len(self)), run(self, *a, **k))[1])
        model(input_ids=batch["input_ids"][:, :1], past_key_values=cache, use_cache=True)
    layers = [length for length in lengths if length > 4]  # the others: the table of tokens, and the head
    assert len(layers) == model.config.num_hidden_layers, lengths
    assert set(layers) <= {*range(14, 24)}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "partial phi3", "glm", "gptj", "bloom", "gemma2"])
def test_every_instruction_set_gives_the_same_logits(family: str) -> None:
    model = make(family)
    expected = None
    for isa in kernels.info()["isa_found"]:
        with kernels.use_isa(isa):
            _, found = generate(model, prompt(2))
        expected = found if expected is None else expected
        assert torch.equal(found, expected), isa


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen3", "sliding mistral", "gemma3", "gpt2", "opt", "bloom", "gemma2"])
def test_a_padded_batch_gives_each_row_what_it_gets_alone(family: str) -> None:
    model = make(family)
    batch = prompt(3)
    together, _ = generate(model, batch)
    for row in range(3):
        kept = batch["attention_mask"][row].bool()
        alone, _ = generate(model, {name: value[row : row + 1, kept] for name, value in batch.items()})
        assert torch.equal(together[row], alone[0])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "sliding mistral"])
def test_beams_are_those_of_the_modules(family: str) -> None:
    expected, _ = generate(make(family, fuse=False), prompt(2), num_beams=3)
    found, _ = generate(make(family), prompt(2), num_beams=3)
    assert torch.equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_one_prompt_may_be_continued_in_several_ways(family: str) -> None:
    """Rows are appended in place: what one continuation appends is not seen by another, nor by the prompt."""
    model = make(family)
    batch = prompt(1, 5)
    with torch.no_grad():
        cache = model(**batch, use_cache=True).past_key_values
        cache = model(input_ids=torch.tensor([[7]]), past_key_values=cache, use_cache=True).past_key_values
        states = [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]
        copies = [copy.copy(cache), copy.deepcopy(cache), copy.copy(cache)]
        for other in copies:
            other.layers = [copy.copy(layer) for layer in other.layers]
        logits: list[list[Tensor]] = [[], [], []]
        for token in (11, 12, 13):
            for i, other in enumerate(copies):
                ids = torch.tensor([[token + 20 * (i == 2)]])
                logits[i].append(model(input_ids=ids, past_key_values=other, use_cache=True).logits)
        for layer, (keys, values) in zip(cache.layers, states, strict=True):
            assert torch.equal(layer.keys, keys) and torch.equal(layer.values, values)
        for first, second, third in zip(*logits, strict=True):
            assert torch.equal(first, second) and not torch.equal(first, third)
        alone = model(input_ids=torch.tensor([[*batch["input_ids"][0].tolist(), 7, 31, 32, 33]])).logits
    assert (alone[:, -1:] - logits[2][-1]).norm() <= 0.02 * alone[:, -1:].norm()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "sliding mistral"])
def test_a_cache_that_is_cropped_goes_on(family: str) -> None:
    model = make(family)
    batch = prompt(1, 4)
    expected, _ = generate(model, batch)
    looked_up, _ = generate(model, batch, prompt_lookup_num_tokens=2)
    assert torch.equal(looked_up, expected)


@pytest.mark.slow
def test_long_generation_beyond_the_window() -> None:
    """Several buffers of a sliding layer, and its count of tokens."""
    unfused = make("sliding mistral", fuse=False)
    fused = make("sliding mistral")
    expected, _ = generate(unfused, prompt(1), max_new_tokens=90, min_new_tokens=90)
    found, _ = generate(fused, prompt(1), max_new_tokens=90, min_new_tokens=90)
    assert torch.equal(found, expected)
