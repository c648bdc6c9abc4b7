"""Round trips of architectures with tied weights, shared layers, Conv1D and encoder-decoder embeddings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    ElectraConfig,
    ElectraForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from optimum_int8 import CheckpointError, Int8Config, quantize
from optimum_int8.hub import OptimizedModel
from optimum_int8.hub.checkpoint import read_headers, weight_files
from tests.hub.helpers import logits_of

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
}
BART = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}


def build(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    makers = {
        "bert": lambda: BertForMaskedLM(BertConfig(**SIZES)),
        "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**SIZES)),
        "electra": lambda: ElectraForSequenceClassification(ElectraConfig(**SIZES, embedding_size=16)),
        "albert": lambda: AlbertForSequenceClassification(AlbertConfig(**SIZES, embedding_size=16)),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=32)),
        "bart": lambda: BartForConditionalGeneration(
            BartConfig(
                vocab_size=64, d_model=32, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=32, **BART
            )
        ),
        "t5": lambda: T5ForConditionalGeneration(
            T5Config(vocab_size=64, d_model=32, d_kv=16, d_ff=48, num_layers=1, num_heads=2, decoder_start_token_id=0)
        ),
    }
    return makers[name]().eval()


def inputs_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 64, (2, 7), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, **({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})}


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "approach"),
    [
        *((name, "static") for name in ("bert", "roberta", "electra", "albert", "gpt2", "bart", "t5")),
        *((name, "dynamic") for name in ("albert", "gpt2", "t5")),
    ],
)
def test_round_trip(name: str, approach: str, tmp_path: Path) -> None:
    model = build(name)
    inputs = inputs_of(model)
    int8 = quantize(
        model, Int8Config(approach=approach, fuse=False), [inputs] if approach == "static" else None, progress=False
    )
    OptimizedModel.save_pretrained(int8, tmp_path / "whole")
    OptimizedModel.save_pretrained(int8, tmp_path / "sharded", max_shard_size="20KB")
    for folder in ("whole", "sharded"):
        again = OptimizedModel.from_pretrained(tmp_path / folder)
        assert type(again) is type(model)
        assert torch.equal(again(**inputs).logits, int8(**inputs).logits)
        assert set(again.state_dict()) == set(int8.state_dict())


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    int8 = quantize(build("gpt2"), Int8Config(fuse=False), progress=False)
    headers = read_headers(weight_files(OptimizedModel.save_pretrained(int8, tmp_path / "gpt2")))
    assert "transformer.wte.weight" in headers and "lm_head.weight" not in headers
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "gpt2")
    assert again.lm_head.weight.data_ptr() == again.transformer.wte.weight.data_ptr()
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(logits_of(again, ids), logits_of(int8, ids))
    assert torch.equal(
        again.generate(ids, max_new_tokens=4, do_sample=False), int8.generate(ids, max_new_tokens=4, do_sample=False)
    )


def test_three_tied_tables_are_stored_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    int8 = quantize(build("t5"), Int8Config(fuse=False), progress=False)
    headers = read_headers(weight_files(OptimizedModel.save_pretrained(int8, tmp_path / "t5")))
    tables = [name for name, info in headers.items() if info.shape == (64, 32, 1)]
    assert tables == ["shared.weight"]
    OptimizedModel.from_pretrained(tmp_path / "t5")
    assert "MISSING" not in capfd.readouterr().err


def test_saved_by_transformers_before_anything_else(tmp_path: Path) -> None:
    """`model.save_pretrained` straight after `quantize`, without `OptimizedModel`."""
    int8 = quantize(build("gpt2"), Int8Config(fuse=False), progress=False)
    int8.save_pretrained(tmp_path / "gpt2")
    ids = torch.tensor([[5, 6, 7]])
    for loader in (OptimizedModel, AutoModelForCausalLM):
        assert torch.equal(logits_of(loader.from_pretrained(tmp_path / "gpt2"), ids), logits_of(int8, ids))


SCANNED = {
    "falcon_mamba": ("FalconMambaForCausalLM", "FalconMambaConfig", {"state_size": 8}),
    "jamba": (
        "JambaForCausalLM",
        "JambaConfig",
        {
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "use_mamba_kernels": False,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
        },
    ),
    "gpt_neo": (
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {"num_heads": 2, "attention_types": [[["global", "local"], 1]], "num_layers": 2},
    ),
}


SCANNED["mamba"] = ("MambaForCausalLM", "MambaConfig", {"state_size": 8})
SCANNED["mamba2"] = (
    "Mamba2ForCausalLM",
    "Mamba2Config",
    {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 8},
)
SCANNED["nemotron_h"] = (
    "NemotronHForCausalLM",
    "NemotronHConfig",
    {
        "layers_block_type": ["mamba", "attention"],
        "ssm_state_size": 8,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "n_groups": 1,
        "chunk_size": 8,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "use_mamba_kernels": False,
    },
)


@pytest.mark.parametrize("name", SCANNED)
def test_models_that_ask_whether_they_are_quantized(name: str, tmp_path: Path) -> None:
    cls, config, settings = SCANNED[name]
    torch.manual_seed(0)
    made = getattr(transformers, config)(vocab_size=100, hidden_size=32, num_hidden_layers=2, **settings)
    model = quantize(getattr(transformers, cls)(made).eval(), Int8Config(fuse=False), progress=False)
    OptimizedModel.save_pretrained(model, tmp_path / "x")
    again = OptimizedModel.from_pretrained(tmp_path / "x")
    ids = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)


@pytest.mark.parametrize("value", [float("inf"), [0.0, float("-inf")], {"top": {"limit": float("inf")}}], ids=str)
def test_a_setting_that_is_infinite(value: object, tmp_path: Path) -> None:
    model = build("gpt2")
    model.config.limits = value
    int8 = quantize(model, Int8Config(fuse=False), progress=False)
    OptimizedModel.save_pretrained(int8, tmp_path / "x")
    again = OptimizedModel.from_pretrained(tmp_path / "x")
    assert again.config.limits == value
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(logits_of(again, ids), logits_of(int8, ids))
    text = (tmp_path / "x" / "config.json").read_text()
    (tmp_path / "x" / "config.json").write_text(text.replace("Infinity", "NaN"))
    with pytest.raises(CheckpointError, match="limits"):
        OptimizedModel.from_pretrained(tmp_path / "x")
