"""`int8_programs.json`: a loaded model gives the same bits and captures nothing; what does not fit is captured anew."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from optimum_int8 import Int8Config, OptimizedModel, quantize
from optimum_int8.fx import structure_key
from optimum_int8.hub import programs
from optimum_int8.hub.program_facts import text_of
from optimum_int8.passes import find_blocks
from tests.models import batch, classifier

Run = Callable[[Any], list[Tensor]]


def bert() -> tuple[PreTrainedModel, list[dict[str, Tensor]], Run]:
    def run(model: Any) -> list[Tensor]:
        calls = [batch(), batch(3, 7, 0), batch(1, 5, 0), batch(1, 1, 0)]
        return [model(**call).logits for call in calls]

    return classifier("Bert"), [batch(), batch(4, 17, 0, 2)], run


def gpt2() -> tuple[PreTrainedModel, list[dict[str, Tensor]], Run]:
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_embd=64, n_layer=2, n_head=2, vocab_size=100, n_positions=64, pad_token_id=0)
    return transformers.GPT2LMHeadModel(config).eval(), [{"input_ids": batch(padding=0)["input_ids"]}], generated


def t5() -> tuple[PreTrainedModel, list[dict[str, Tensor]], Run]:
    torch.manual_seed(0)
    sizes = {"d_model": 64, "d_kv": 32, "d_ff": 128, "num_layers": 2, "num_heads": 2, "vocab_size": 100}
    config = transformers.T5Config(**sizes, decoder_start_token_id=0, feed_forward_proj="relu")
    ids = batch(padding=0)["input_ids"]
    return (
        transformers.T5ForConditionalGeneration(config).eval(),
        [{"input_ids": ids, "decoder_input_ids": ids}],
        generated,
    )


def resnet() -> tuple[PreTrainedModel, list[dict[str, Tensor]], Run]:
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[32, 64], depths=[1, 2], layer_type="basic", num_channels=3
    )
    model = transformers.ResNetForImageClassification(config).eval()

    def run(model: Any) -> list[Tensor]:
        sizes = [(2, 32, 32), (1, 32, 32), (1, 48, 64)]
        return [model(pixel_values=images(*size)).logits for size in sizes]

    return model, [{"pixel_values": images(2, 32, 32)}], run


MODELS = {"bert": bert, "gpt2": gpt2, "t5": t5, "resnet": resnet}


def images(count: int, height: int, width: int) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(3))


def generated(model: Any) -> list[Tensor]:
    found = []
    for rows, length, padding in ((1, 6, 0), (2, 9, 3)):
        call = batch(rows, length, padding)
        settings = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
        found += model.generate(**call, **settings, pad_token_id=0).logits
    return found


@torch.no_grad()
def results(run: Run, model: Any) -> list[Tensor]:
    return run(model)


def captures(model: Any) -> dict[str, int]:
    return {n: sum(v is not None for v in b.variants.values()) for n, b in find_blocks(model).items()}


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Tensor], Run]:
    return saved_model("bert", "static", tmp_path_factory.mktemp("programs") / "bert")


def saved_model(name: str, approach: str, folder: Path) -> tuple[Path, list[Tensor], Run]:
    model, data, run = MODELS[name]()
    int8 = quantize(model, Int8Config(approach=approach), data if approach == "static" else None, progress=False)
    expected = results(run, int8)
    OptimizedModel.save_pretrained(int8, folder)
    return folder, expected, run


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["static", "dynamic"])
@pytest.mark.parametrize("name", MODELS)
def test_loaded_model_captures_nothing(
    name: str, approach: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, expected, run = saved_model(name, approach, tmp_path / "model")
    model = OptimizedModel.from_pretrained(folder)
    exports: list[Any] = []
    monkeypatch.setattr(torch.export, "export", lambda *args, **kwargs: exports.append(args))
    with caplog.at_level(logging.INFO, "optimum_int8"):
        found = results(run, model)
    assert not exports
    assert same(found, expected)
    assert not [r for r in caplog.records if programs.PROGRAMS_NAME in r.getMessage()]
    assert sum(captures(model).values()) > 1


@pytest.mark.parametrize("name", MODELS)
def test_what_a_block_has_to_be_names_no_address(name: str) -> None:
    """The address of an object (T5's and GPT-2's heads hold their table) is another one in the process that loads the file."""
    int8 = quantize(MODELS[name]()[0], Int8Config(approach="dynamic"), progress=False)
    blocks = find_blocks(int8)
    assert blocks
    for block in blocks.values():
        assert " at 0x" not in text_of(structure_key(block.module))


@pytest.mark.slow
def test_a_process_of_its_own_captures_nothing(tmp_path: Path) -> None:
    folder, _, _ = saved_model("t5", "static", tmp_path / "model")
    root = Path(__file__).parents[2]
    code = (
        "import sys, torch\nfrom optimum_int8 import OptimizedModel\nfrom tests.hub.test_programs import generated\n"
        "model = OptimizedModel.from_pretrained(sys.argv[1])\ntorch.export.export = None\ngenerated(model)\n"
        "print({r for b in model.lm_head.forward.compiler.blocks for r in b.compiler.failures.values()})"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.strip() == "set()"


@pytest.mark.slow
def test_what_cannot_be_captured_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = transformers.models.bert.modeling_bert.BertLayer.forward

    def by_value(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return hidden_states if float(hidden_states.sum()) == 0.25 else forward(self, hidden_states, *args, **kwargs)

    monkeypatch.setattr(transformers.models.bert.modeling_bert.BertLayer, "forward", by_value)
    folder, expected, run = saved_model("bert", "dynamic", tmp_path / "model")
    refused = [g for g in programs.parse(folder / programs.PROGRAMS_NAME)["graphs"] if g.get("refused")]
    assert refused
    model = OptimizedModel.from_pretrained(folder)
    exports: list[Any] = []
    monkeypatch.setattr(torch.export, "export", lambda *args, **kwargs: exports.append(args))
    assert same(results(run, model), expected)
    assert not exports


@pytest.mark.slow
def test_a_file_that_refuses_everything_leaves_own_code(saved: tuple[Path, list[Tensor], Run], tmp_path: Path) -> None:
    folder, expected, run = saved
    body = programs.parse(folder / programs.PROGRAMS_NAME)
    body["graphs"] = [
        {name: g[name] for name in ("name", "block", "key")} | {"refused": True}
        for g in body["graphs"]
        if g["name"].endswith(("encoder", "embeddings"))
    ]
    for file in folder.iterdir():
        if file.name != programs.PROGRAMS_NAME:
            (tmp_path / file.name).symlink_to(file)
    (tmp_path / programs.PROGRAMS_NAME).write_bytes(programs.signed(body))
    model = OptimizedModel.from_pretrained(tmp_path)
    found = results(run, model)
    assert all(torch.allclose(x, y, rtol=0.0, atol=0.05) for x, y in zip(found, expected, strict=True))
    assert not any(name.endswith("encoder") for name in captures(model))  # its layers are blocks


def in_a_thread(run: Run, model: Any) -> list[Tensor]:
    found: list[list[Tensor]] = []
    thread = threading.Thread(target=lambda: found.append(results(run, model)))
    thread.start()
    thread.join()
    return found[0]


@torch.inference_mode()
def in_inference_mode(run: Run, model: Any) -> list[Tensor]:
    return run(model)


@pytest.mark.slow
@pytest.mark.parametrize("call", [in_inference_mode, in_a_thread])
@pytest.mark.parametrize("auto_class", ["AutoModelForSequenceClassification", "OptimizedModel"])
@pytest.mark.parametrize("name", ["bert"])
def test_captures_nothing_however_it_is_called(
    name: str, auto_class: str, call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, expected, run = saved_model(name, "dynamic", tmp_path / "model")
    loader: Any = OptimizedModel if auto_class == "OptimizedModel" else getattr(transformers, auto_class)
    model = loader.from_pretrained(folder)
    exports: list[Any] = []
    monkeypatch.setattr(torch.export, "export", lambda *args, **kwargs: exports.append(args))
    assert same(call(run, model), expected)
    assert not exports


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "t5", "resnet"])
def test_other_kinds_capture_nothing_in_inference_mode(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, expected, run = saved_model(name, "static", tmp_path / "model")
    model = OptimizedModel.from_pretrained(folder)
    exports: list[Any] = []
    monkeypatch.setattr(torch.export, "export", lambda *args, **kwargs: exports.append(args))
    assert same(in_inference_mode(run, model), expected)
    assert not exports


def test_an_older_folder_has_none_and_stays_as_it_is(saved: tuple[Path, list[Tensor], Run], tmp_path: Path) -> None:
    folder, expected, run = saved
    int8 = OptimizedModel.from_pretrained(folder)
    OptimizedModel.save_pretrained(int8, tmp_path / "uncalled")  # nothing was captured
    assert not (tmp_path / "uncalled" / programs.PROGRAMS_NAME).exists()


def test_saving_over_an_older_checkpoint_removes_its_programs(
    saved: tuple[Path, list[Tensor], Run], tmp_path: Path
) -> None:
    folder, _, run = saved
    model = OptimizedModel.from_pretrained(folder)
    results(run, model)
    OptimizedModel.save_pretrained(model, tmp_path / "model")
    assert (tmp_path / "model" / programs.PROGRAMS_NAME).is_file()
    OptimizedModel.save_pretrained(OptimizedModel.from_pretrained(folder), tmp_path / "model")
    assert not (tmp_path / "model" / programs.PROGRAMS_NAME).exists()


def test_what_a_loaded_model_saves_again_is_the_same_file(
    saved: tuple[Path, list[Tensor], Run], tmp_path: Path
) -> None:
    folder, _, run = saved
    model = OptimizedModel.from_pretrained(folder)
    results(run, model)
    first = programs.parse(folder / programs.PROGRAMS_NAME)
    OptimizedModel.save_pretrained(model, tmp_path / "again")
    second = programs.parse(tmp_path / "again" / programs.PROGRAMS_NAME)
    assert second["made_for"] == first["made_for"]
    graphs = [{(g["block"], g["key"]): g for g in body["graphs"]} for body in (first, second)]
    assert graphs[0] == graphs[1]


def refused(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if programs.PROGRAMS_NAME in r.getMessage()]


def load_changed(folder: Path, tmp_path: Path, **facts: Any) -> Any:
    """The model from a copy whose programs say that they were made for something else."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).symlink_to(file)
    body = programs.parse(folder / programs.PROGRAMS_NAME)
    body["made_for"] |= facts
    (copy / programs.PROGRAMS_NAME).unlink()
    (copy / programs.PROGRAMS_NAME).write_bytes(programs.signed(body))
    return OptimizedModel.from_pretrained(copy)


@pytest.mark.slow
@pytest.mark.parametrize(
    "facts",
    [
        {"transformers": "5.0.0"},
        {"torch": "2.0"},
        {"sources": {"transformers.models.bert.modeling_bert": "0" * 64}},
        {"settings": "0"},
        {"operators": "0"},
        {"optimum_int8": "99"},
        {"more": 1},
    ],
    ids=lambda facts: next(iter(facts)),
)
def test_programs_of_something_else_are_ignored_with_one_line(
    facts: dict[str, Any],
    saved: tuple[Path, list[Tensor], Run],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, expected, run = saved
    model = load_changed(folder, tmp_path, **facts)
    with caplog.at_level(logging.INFO, "optimum_int8"):
        assert same(results(run, model), expected)
    (line,) = refused(caplog)
    assert next(iter(facts)) in line


@pytest.mark.slow
def test_a_changed_setting_of_the_loaded_model_is_noticed(
    saved: tuple[Path, list[Tensor], Run], caplog: pytest.LogCaptureFixture
) -> None:
    folder, _, run = saved
    model = OptimizedModel.from_pretrained(folder, layer_norm_eps=0.5)
    with caplog.at_level(logging.INFO, "optimum_int8"):
        found = results(run, model)
    assert "settings" in refused(caplog)[0]
    (folder.parent / "plain").mkdir()
    for file in folder.iterdir():
        if file.name != programs.PROGRAMS_NAME:
            (folder.parent / "plain" / file.name).symlink_to(file)
    assert same(found, results(run, OptimizedModel.from_pretrained(folder.parent / "plain", layer_norm_eps=0.5)))


@pytest.mark.slow
def test_an_attribute_changed_before_the_first_call_is_noticed(saved: tuple[Path, list[Tensor], Run]) -> None:
    folder, expected, run = saved
    model = OptimizedModel.from_pretrained(folder)
    for layer in model.bert.encoder.layer:
        layer.output.LayerNorm.eps = 0.5
    found = results(run, model)
    fresh = OptimizedModel.from_pretrained(folder)
    for block in find_blocks(fresh).values():
        block.compiler.stored = None
    for layer in fresh.bert.encoder.layer:
        layer.output.LayerNorm.eps = 0.5
    assert same(found, results(run, fresh))
    assert not same(found, expected)


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_file_is_not_read(seed: int, saved: tuple[Path, list[Tensor], Run], tmp_path: Path) -> None:
    content = bytearray((saved[0] / programs.PROGRAMS_NAME).read_bytes())
    chance = random.Random(seed)
    file = tmp_path / programs.PROGRAMS_NAME
    for _ in range(15):
        changed = bytearray(content)
        place = chance.randrange(len(content))
        match chance.randrange(4):
            case 0:
                changed[place] ^= 1 << chance.randrange(8)
            case 1:
                del changed[place:]
            case 2:
                del changed[place : place + chance.randrange(1, 9)]
            case _:
                changed[place:place] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
        file.write_bytes(changed)
        with pytest.raises((programs.Unstorable, ValueError)):
            programs.parse(file)


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_changed_files_with_right_sums_lead_to_no_other_value(approach: str, tmp_path: Path) -> None:
    data = [batch(), batch(4, 17, 0, 2)] if approach == "static" else None
    int8 = quantize(classifier(num_hidden_layers=1), Int8Config(approach=approach), data, progress=False)
    with torch.no_grad():
        for call in (batch(), batch(3, 12, 5), batch(1, 1, 0)):
            int8(**call)
    OptimizedModel.save_pretrained(int8, tmp_path / "model")
    command = [sys.executable, "-m", "tests.hub.mutated_programs", str(tmp_path / "model"), "1", "150"]
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert int(ended.stdout) > 0  # some change nothing that matters
