"""Folders of Sentence Transformers: what an INT8 folder carries over from the original, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertModel

from optimum_int8 import FeatureExtractionQuantizer, Int8Config
from optimum_int8.errors import CheckpointError, ConfigError
from optimum_int8.quantizers.steps.sentence_files import SETTINGS, read_settings
from optimum_int8.quantizers.steps.sentence_modules import POOLINGS, pool_tokens

from ..test_sentence_transformers import TEXTS, closeness, folder_of

DYNAMIC = Int8Config(fuse=False)
PROMPTS = {"query": "word1 word2 ", "document": "word3 "}


def saved(path: Path, *more: str, pooling: Any = "mean", **settings: Any) -> str:
    """A model with prompts, pooled so, and modules of these names behind."""
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling

    torch.manual_seed(0)
    transformer = Transformer(folder_of(BertModel, path / "bert"), do_lower_case=settings.pop("do_lower_case", False))
    pooled = Pooling(32, pooling_mode=pooling, include_prompt=settings.pop("include_prompt", True))
    width = pooled.get_embedding_dimension()
    made: dict[str, Any] = {
        "Dense": lambda: Dense(width, 16), "Residual": lambda: Dense(width, 16, activation_function=torch.nn.GELU(), use_residual=True),
        "LayerNorm": lambda: LayerNorm(16), "Dropout": Dropout, "Normalize": Normalize,
    }  # fmt: skip
    options: dict[str, Any] = {
        "prompts": PROMPTS,
        "default_prompt_name": "query",
        "similarity_fn_name": "dot",
        **settings,
    }
    model = library.SentenceTransformer(
        modules=[transformer, pooled, *(made[name]() for name in more)], device="cpu", **options
    )
    model.save(str(path / "fp32"), create_model_card=False)
    return str(path / "fp32")


def loaded(path: str | Path, **options: Any) -> Any:
    """As a user of Sentence Transformers loads it."""
    return pytest.importorskip("sentence_transformers").SentenceTransformer(str(path), device="cpu", **options)


def vectors(model: Any, **options: Any) -> Tensor:
    """Of the texts."""
    return torch.as_tensor(model.encode(TEXTS, convert_to_tensor=True, **options))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "options"),
    [
        ((), {}),
        (("Normalize",), {"include_prompt": False}),
        (("Dense",), {}),
        (("Residual", "LayerNorm", "Dropout", "Normalize"), {"include_prompt": False}),
        (("Normalize", "Dense"), {"do_lower_case": True}),
        (("Normalize",), {"pooling": ("mean", "max")}),
        *(((), {"pooling": mode, "include_prompt": mode == "cls"}) for mode in POOLINGS),
    ],
)
def test_an_int8_folder_gives_the_vectors_of_the_original(
    tmp_path: Path, more: tuple[str, ...], options: dict[str, Any]
) -> None:
    original = loaded(saved(tmp_path, *more, **options))
    quantizer = FeatureExtractionQuantizer.from_pretrained(tmp_path / "fp32")
    quantizer.quantize(DYNAMIC, save_directory=tmp_path / "int8")
    int8 = loaded(tmp_path / "int8")
    assert (int8.prompts, int8.default_prompt_name, int8.similarity_fn_name) == (PROMPTS, "query", "dot")
    for asked in ({}, {"prompt_name": "document"}, {"prompt": "word7 word8 "}):
        expected = vectors(original, **asked)
        found = vectors(int8, **asked)
        assert found.shape == expected.shape
        assert 1e-7 < (found - expected).norm() < 0.1 * expected.norm()
        torch.testing.assert_close(quantizer.encode(TEXTS, **asked), found, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(quantizer.encode(TEXTS, int8=False, **asked), expected, rtol=1e-4, atol=1e-5)
    wrong = vectors(original, prompt="")
    assert closeness(wrong, vectors(original)) < closeness(vectors(int8), vectors(original))
    cut = vectors(loaded(tmp_path / "int8", truncate_dim=8))
    assert torch.equal(cut, vectors(int8)[:, :8])


@pytest.mark.slow
def test_the_length_and_an_older_layout(tmp_path: Path) -> None:
    folder = Path(saved(tmp_path, "Normalize"))
    inner = folder / "0_Transformer"
    inner.mkdir()
    for file in list(folder.iterdir()):
        if file.is_file() and file.name not in ("modules.json", SETTINGS):
            file.rename(inner / file.name)
    (inner / "sentence_bert_config.json").rename(inner / "sentence_roberta_config.json")
    (inner / "sentence_roberta_config.json").write_text(json.dumps({"max_seq_length": 7, "do_lower_case": False}))
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    quantizer = FeatureExtractionQuantizer.from_pretrained(folder)
    assert quantizer.max_length == 7
    quantizer.quantize(DYNAMIC, save_directory=tmp_path / "int8")
    assert loaded(tmp_path / "int8").max_seq_length == 7
    torch.testing.assert_close(quantizer.encode(TEXTS, int8=False), vectors(loaded(folder)), rtol=1e-4, atol=1e-5)


def changed(folder: str, file: str, **values: Any) -> str:
    """The folder with other values in a file."""
    path = Path(folder) / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


def with_module(folder: str, position: int, kind: str) -> str:
    """The folder with a module of another class."""
    path = Path(folder) / "modules.json"
    modules = json.loads(path.read_text())
    modules[position]["type"] = kind
    path.write_text(json.dumps(modules))
    return folder


def test_what_cannot_be_carried_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, "Dense")
    models = "sentence_transformers.models."
    cases = [
        (lambda: with_module(folder, 2, "custom_st.Dense"), r"own class 'custom_st.Dense'.*quantize\(SentenceTransformer"),
        (lambda: with_module(folder, 2, models + "LSTM"), "made of Transformer, Pooling, LSTM; expected Transformer, Pooling"),
        (lambda: with_module(folder, 2, models + "LayerNorm"), "its LayerNorm cannot be read"),
        (lambda: changed(with_module(folder, 2, models + "Dense"), "2_Dense/config.json", activation_function="os.system"), "activation 'os.system'"),
        (lambda: changed(folder, "2_Dense/config.json", activation_function="torch.nn.modules.activation.GELU", module_input_name="token_embeddings"),
         "module_input_name 'token_embeddings'"),
        (lambda: changed(folder, "2_Dense/config.json", module_input_name="sentence_embedding", in_features=8), "its Dense cannot be read"),
        (lambda: changed(folder, "2_Dense/config.json", in_features=32) and changed(folder, SETTINGS, model_type="SparseEncoder"), "is a SparseEncoder"),
        (lambda: changed(folder, SETTINGS, model_type=None, default_prompt_name="other"), "default prompt of .* is 'other'; expected one of"),
        (lambda: changed(folder, SETTINGS, default_prompt_name=None) and changed(folder, "sentence_bert_config.json", transformer_task="fill-mask"),
         "of the task 'fill-mask'; expected last_hidden_state"),
    ]  # fmt: skip
    for change, message in cases:
        change()
        with pytest.raises(ConfigError, match=message):
            FeatureExtractionQuantizer.from_pretrained(folder)
    (Path(folder) / "2_Dense" / "model.safetensors").write_bytes(b"damaged")
    changed(folder, "sentence_bert_config.json", transformer_task="feature-extraction")
    with pytest.raises(CheckpointError, match="the Dense of"):
        read_settings(folder)


def test_an_unknown_prompt(tmp_path: Path) -> None:
    quantizer = FeatureExtractionQuantizer.from_pretrained(saved(tmp_path))
    with pytest.raises(ConfigError, match="has no prompt 'passage'; it has document, query"):
        quantizer.encode("word1", prompt_name="passage", int8=False)


def test_pooling_does_not_see_padding_nor_prompts() -> None:
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(1, 5, 4, generator=draw)
    for mode in POOLINGS:
        alone = pool_tokens(states, torch.ones(1, 5), [mode], skipped=2)
        for before, behind in ((0, 3), (3, 0)):
            mask = torch.tensor([[0] * before + [1] * 5 + [0] * behind])
            padded = torch.cat([torch.full((1, before, 4), 9.0), states, torch.full((1, behind, 4), 9.0)], dim=1)
            torch.testing.assert_close(pool_tokens(padded, mask, [mode], skipped=2), alone)
