"""Whatever class FP32 loads a checkpoint into, the INT8 checkpoint loads into, with the same warnings and near values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from transformers import PreTrainedModel

from optimum_int8 import Int8Config, quantize
from optimum_int8.errors import CheckpointError
from optimum_int8.hub import OptimizedModel, OptimizedModelForSequenceClassification
from optimum_int8.hub.ties import groups
from optimum_int8.nn import Int8Module
from tests.hub.helpers import edit_tensors

SMALL = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**SMALL, "intermediate_size": 64}
IMAGE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
T5 = {
    "vocab_size": 100,
    "d_model": 32,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 2,
    "d_kv": 16,
    "decoder_start_token_id": 0,
}
BART = {
    "vocab_size": 100,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 40,
}
MAKERS: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: t.BertModel(t.BertConfig(**TEXT)),
    "bert-mlm": lambda: t.BertForMaskedLM(t.BertConfig(**TEXT)),
    "bert-classifier": lambda: t.BertForSequenceClassification(t.BertConfig(**TEXT)),
    "roberta-classifier": lambda: t.RobertaForSequenceClassification(t.RobertaConfig(**TEXT, pad_token_id=0)),
    "t5": lambda: t.T5ForConditionalGeneration(t.T5Config(**T5)),
    "bart": lambda: t.BartForConditionalGeneration(t.BartConfig(**BART)),
    "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=2)),
    "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**TEXT)),
    "mixtral": lambda: t.MixtralForCausalLM(
        t.MixtralConfig(**TEXT, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2)
    ),
    "vit": lambda: t.ViTForImageClassification(t.ViTConfig(**IMAGE)),
    "clip": lambda: t.CLIPModel(t.CLIPConfig(text_config=TEXT, vision_config=IMAGE)),
    "owlvit": lambda: t.OwlViTModel(t.OwlViTConfig(text_config=TEXT, vision_config=IMAGE)),
    "clipseg": lambda: t.CLIPSegModel(t.CLIPSegConfig(text_config=TEXT, vision_config=IMAGE)),
    "llava": lambda: t.LlavaForConditionalGeneration(
        t.LlavaConfig(
            text_config=t.LlamaConfig(**TEXT), vision_config=t.CLIPVisionConfig(**IMAGE), image_token_index=99
        )
    ),
}
CLASSES = {
    "bert": "AutoModel BertForMaskedLM BertForSequenceClassification BertForQuestionAnswering",
    "bert-mlm": "AutoModel BertForMaskedLM BertForPreTraining BertForTokenClassification BertLMHeadModel",
    "bert-classifier": "BertModel BertForTokenClassification BertForMaskedLM",
    "roberta-classifier": "RobertaModel RobertaForTokenClassification RobertaForMaskedLM",
    "t5": "AutoModelForSeq2SeqLM T5Model T5EncoderModel T5ForSequenceClassification T5ForTokenClassification",
    "bart": "AutoModel BartForConditionalGeneration BartForSequenceClassification BartForCausalLM",
    "gpt2": "AutoModel GPT2LMHeadModel GPT2ForSequenceClassification",
    "llama": "AutoModel LlamaForCausalLM LlamaForSequenceClassification",
    "mixtral": "AutoModel MixtralForCausalLM MixtralForTokenClassification",
    "vit": "AutoModel ViTForMaskedImageModeling AutoModelForImageClassification",
    "clip": "AutoModel CLIPTextModel CLIPVisionModel CLIPTextModelWithProjection CLIPVisionModelWithProjection",
    "owlvit": "AutoModel OwlViTTextModel OwlViTVisionModel",
    "clipseg": "AutoModel CLIPSegTextModel CLIPSegVisionModel",
    "llava": "AutoModelForImageTextToText LlavaModel",
}
TIED = [
    ("t5", "shared", "T5ForConditionalGeneration T5Model T5EncoderModel"),
    ("t5", "lm_head", "T5ForConditionalGeneration T5Model T5EncoderModel"),
    ("t5", "decoder.embed_tokens", "T5ForConditionalGeneration T5EncoderModel"),
    ("bart", "model.shared", "BartForConditionalGeneration BartModel BartForSequenceClassification"),
    ("bart", "lm_head", "BartForConditionalGeneration BartModel"),
    ("bart", "model.decoder.embed_tokens", "BartForConditionalGeneration BartModel BartForCausalLM"),
    ("bert-mlm", "bert.embeddings.word_embeddings", "BertForMaskedLM BertForPreTraining BertModel"),
    ("bert-mlm", "cls.predictions.decoder", "BertForMaskedLM BertForPreTraining BertModel"),
    ("gpt2", "transformer.wte", "GPT2LMHeadModel GPT2Model GPT2ForSequenceClassification"),
    ("gpt2", "lm_head", "GPT2LMHeadModel GPT2Model"),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Path]]:
    """FP32 and INT8 checkpoint of a model, made once."""
    made: dict[tuple, tuple[Path, Path]] = {}

    def get(name: str, *exclude: str) -> tuple[Path, Path]:
        if (name, exclude) not in made:
            torch.manual_seed(0)
            model, folder = MAKERS[name]().eval(), tmp_path_factory.mktemp(name)
            model.save_pretrained(folder / "fp32")
            int8 = quantize(model, Int8Config(fuse=False, exclude=exclude), progress=False)
            OptimizedModel.save_pretrained(int8, folder / "int8")
            made[name, exclude] = folder / "fp32", folder / "int8"
        return made[name, exclude]

    return get


@torch.no_grad()
def outputs(model: PreTrainedModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    ids, image = torch.randint(3, 90, (2, 9), generator=generator), torch.randn(2, 3, 32, 32, generator=generator)
    inputs: dict[str, Any] = {"pixel_values": image} if model.main_input_name == "pixel_values" else {"input_ids": ids}
    if type(model).__name__ in ("CLIPModel", "OwlViTModel", "CLIPSegModel"):
        inputs["pixel_values"] = image
    if "Sequence" in type(model).__name__ and not model.config.is_encoder_decoder:
        model.config.pad_token_id = 0
    if type(model).__name__ in ("T5Model", "T5ForConditionalGeneration"):
        inputs["decoder_input_ids"] = ids
    if type(model).__name__ in ("BartForSequenceClassification", "T5ForSequenceClassification"):
        inputs["input_ids"] = torch.cat([ids, torch.full((2, 1), model.config.eos_token_id)], 1)
    return next(value for value in model(**inputs).values() if isinstance(value, torch.Tensor))


def compare(cls: str, fp32: Path, int8: Path, tied: bool = False) -> PreTrainedModel:
    expected, theirs = getattr(t, cls).from_pretrained(fp32, output_loading_info=True)
    found, ours = getattr(t, cls).from_pretrained(int8, output_loading_info=True)
    assert type(found) is type(expected)
    assert any(isinstance(module, Int8Module) for module in found.modules())
    tables = {name for group in groups(expected.all_tied_weights_keys) for name in group}
    missing = set(theirs["missing_keys"])
    if missing & tables:  # FP32 draws a random table where only the other side of a tie is stored
        assert set(ours["missing_keys"]) <= missing
        return found
    assert set(ours["missing_keys"]) == missing
    extra = set(ours["unexpected_keys"]) ^ set(theirs["unexpected_keys"])
    assert {name.rpartition("lm_head.")[2] if "lm_head" in name else name for name in extra} <= (
        {"weight", "cls.predictions.decoder.weight"} if tied or cls == "LlavaModel" else set()
    )
    for name in missing:
        assert not isinstance(found.get_submodule(name.rpartition(".")[0]), Int8Module)
        found.get_parameter(name).data = expected.get_parameter(name).data
    reference, result = outputs(expected), outputs(found)
    assert (result - reference).norm() < 0.12 * reference.norm()
    return found


@pytest.mark.parametrize(("name", "cls"), [(name, cls) for name, all in CLASSES.items() for cls in all.split()])
def test_every_class_that_fp32_loads(name: str, cls: str, folders: Any) -> None:
    compare(cls, *folders(name))


@pytest.mark.parametrize(("name", "exclude", "cls"), [(n, e, cls) for n, e, all in TIED for cls in all.split()])
def test_one_side_of_a_tie_excluded(name: str, exclude: str, cls: str, folders: Any) -> None:
    compare(cls, *folders(name, exclude), tied=True)


@pytest.mark.parametrize(
    ("name", "cls"),
    [("clip", "CLIPTextModel"), ("bert", "BertForMaskedLM"), ("t5", "T5EncoderModel"), ("bart", "BartForCausalLM")],
)
def test_saved_in_its_new_class(name: str, cls: str, folders: Any, tmp_path: Path) -> None:
    model = getattr(t, cls).from_pretrained(folders(name)[1])
    OptimizedModel.save_pretrained(model, tmp_path / "again")
    again = OptimizedModel.from_pretrained(tmp_path / "again")
    assert type(again).__name__ == cls
    assert torch.equal(outputs(again), outputs(model))


@pytest.mark.parametrize(("name", "exclude", "classes"), TIED)
def test_a_tie_with_one_side_excluded_is_saved_again(
    name: str, exclude: str, classes: str, folders: Any, tmp_path: Path
):
    folder = folders(name, exclude)[1]
    model = OptimizedModel.from_pretrained(folder)
    OptimizedModel.save_pretrained(model, tmp_path / "again")
    assert torch.equal(outputs(OptimizedModel.from_pretrained(tmp_path / "again")), outputs(model))
    size, again = ((place / "model.safetensors").stat().st_size for place in (folder, tmp_path / "again"))
    assert again == size


def test_what_is_new_stays_float_and_is_named(folders: Any) -> None:
    model = t.BertForSequenceClassification.from_pretrained(folders("bert")[1])
    assert type(model.classifier) is torch.nn.Linear
    assert model.classifier.weight.std() > 0
    assert "initialized anew" in model.config.quantization_config.fp32["classifier"]
    assert "classifier" not in model.config.quantization_config.modules


@pytest.mark.parametrize(
    "loader", [OptimizedModel, OptimizedModelForSequenceClassification, t.AutoModelForSequenceClassification]
)
def test_another_number_of_labels(loader: Any, folders: Any) -> None:
    folder = folders("bert-classifier")[1]
    with pytest.raises((CheckpointError, RuntimeError), match="ignore_mismatched_sizes"):
        loader.from_pretrained(folder, num_labels=5)
    model = loader.from_pretrained(folder, num_labels=5, ignore_mismatched_sizes=True)
    assert outputs(model).shape == (2, 5)
    assert type(model.classifier) is torch.nn.Linear
    assert isinstance(model.bert.pooler.dense, Int8Module)


@pytest.mark.parametrize("settings", [{"num_hidden_layers": 1}, {"num_hidden_layers": 3}])
def test_other_layers(settings: dict, folders: Any) -> None:
    fp32, int8 = folders("bert-classifier")
    expected = t.BertForSequenceClassification.from_pretrained(fp32, **settings)
    model = OptimizedModel.from_pretrained(int8, **settings)
    assert len(model.bert.encoder.layer) == len(expected.bert.encoder.layer)
    assert isinstance(model.bert.encoder.layer[0].output.dense, Int8Module)


def test_nothing_in_common(folders: Any) -> None:
    with pytest.raises(CheckpointError):
        t.GPT2Model.from_pretrained(folders("bert")[1])


@pytest.mark.parametrize("name", ["bert-classifier", "vit", "roberta-classifier"])
def test_float_tensors_alone_make_a_float_model(name: str, folders: Any, tmp_path: Path) -> None:
    body = MAKERS[name]().base_model_prefix
    fp32, int8 = folders(name, body)
    expected, found = t.AutoModel.from_pretrained(fp32), t.AutoModel.from_pretrained(int8)
    drawn = {name for name in expected.state_dict() if name.startswith("pooler.")}
    for key, value in expected.state_dict().items():
        assert key in drawn or torch.equal(found.state_dict()[key], value)
    found.save_pretrained(tmp_path / "again")
    again = t.AutoModel.from_pretrained(tmp_path / "again")
    assert torch.equal(outputs(again), outputs(found))
    assert not hasattr(found.config, "quantization_config")


def test_a_lost_tensor_is_no_other_class(folders: Any, tmp_path: Path) -> None:
    """A headless model may lack tensors; one that the checksums know of is damage."""
    model = OptimizedModel.from_pretrained(folders("bert-classifier")[1])
    OptimizedModel.save_pretrained(model, tmp_path / "x")
    name = "bert.encoder.layer.0.output.LayerNorm.weight"
    edit_tensors(tmp_path / "x" / "model.safetensors", lambda tensors: tensors.pop(name), resum=False)
    with pytest.raises(CheckpointError, match="LayerNorm.weight' is missing"):
        t.BertModel.from_pretrained(tmp_path / "x")


def test_half_an_int8_module_is_refused(folders: Any, tmp_path: Path) -> None:
    model = OptimizedModel.from_pretrained(folders("bert-classifier")[1])
    OptimizedModel.save_pretrained(model, tmp_path / "x")
    name = "bert.encoder.layer.0.output.dense.weight_scale"
    edit_tensors(tmp_path / "x" / "model.safetensors", lambda tensors: tensors.pop(name))
    with pytest.raises(CheckpointError, match="weight_scale' is missing"):
        t.BertModel.from_pretrained(tmp_path / "x")


def test_groups_follow_chains() -> None:
    assert groups({"b": "a", "c": "b", "d": "x"}) == [["a", "b", "c"], ["x", "d"]]
    assert groups({"a": "b", "b": "a"})  # a loop ends
