"""Every engine file has the same parts; engines that cannot run are skipped with a word."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
import torch

from benchmarks import engines, pool, suites
from benchmarks.__main__ import main
from benchmarks.engines import BASELINE, NAMES, find_engine, missing
from benchmarks.images import ImageWork
from benchmarks.models import (
    CHECK,
    Job,
    Work,
    check_shape,
    find_model,
    make_inputs,
    make_model,
    reference,
    relative_error,
)
from benchmarks.shapes import Shape
from optimum_int8.evaluation.architectures import random_model

FOLDER = Path(engines.__file__).parent
HELPERS = {"__init__", "torch_module", "onnx_model"}


def test_every_file_is_an_engine_and_is_listed() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {*NAMES, *HELPERS}
    assert NAMES[0] == BASELINE


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_are_the_same_in_the_same_order(name: str) -> None:
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    parts = []
    for node in tree.body:
        if isinstance(node, ast.Assign):
            parts += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            parts.append(node.target.id)
        elif isinstance(node, ast.FunctionDef):
            parts.append(node.name)
    expected = ["NAME", "TITLE", "REQUIRES", "LIMIT", "prepare", "load"]
    assert [part for part in parts if part in expected] == expected
    engine = find_engine(name)
    assert name == engine.NAME and 0 < engine.LIMIT < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["int8_static", "int8_dynamic", "eager_fp32", "eager_bf16", "torch_dynamic"])
def test_engines_of_torch_compute_the_model(name: str, tmp_path: Path) -> None:
    job, engine, threads = Job("tiny", tmp_path, 1), find_engine(name), torch.get_num_threads()
    try:
        loaded = engine.load(job)
        expected, mask = reference(job.fp32(), CHECK)
        output = loaded.output(loaded.bind(make_inputs(job.config(), CHECK))())
    finally:
        torch.set_num_threads(threads)
    assert output.shape == expected.shape and output.dtype == torch.float32
    assert relative_error(output, expected, mask) <= engine.LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime_dynamic", "onnxruntime_static", "openvino_int8", "ctranslate2_int8"])
def test_peers_compute_the_model(name: str, tmp_path: Path) -> None:
    if reason := missing(find_engine(name)):
        pytest.skip(reason)
    expected = reference(random_model(find_model("tiny")), CHECK)
    worker = pool.Worker(name, "tiny", 1, cache=tmp_path)
    try:
        assert pool.check(worker, expected) <= find_engine(name).LIMIT
    finally:
        worker.close()


def test_the_limit_sees_a_lost_mask_and_a_wrong_scale() -> None:
    model = random_model(find_model("tiny"))
    expected, mask = reference(model, CHECK)
    inputs = make_inputs(model.config, CHECK)
    inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
    with torch.inference_mode():
        unmasked = model(**inputs).last_hidden_state
    assert relative_error(expected, expected, mask) == 0
    assert relative_error(expected * 1.5, expected, mask) == pytest.approx(0.5)
    assert relative_error(unmasked, expected, mask) > 1e-3
    assert math.isnan(relative_error(expected * math.nan, expected, mask))


def test_work_counts_what_a_bert_layer_computes() -> None:
    config = find_model("tiny")  # 2 layers, 64 wide, feed-forward 128
    work = Work.of(random_model(config))
    per_token = 2 * (4 * 64 * 64 + 2 * 64 * 128)
    assert work.multiply_adds_per_token == per_token
    assert work.weight_bytes == per_token + 64 * 64  # and the pooler
    shape = Shape(2, 8, 4)
    assert work.operations(shape) == 2 * (per_token * 12 + 2 * 2 * 64 * (16 + 64))


def test_cliffs_are_found() -> None:
    line = suites.steepest([1, 2, 4, 8], [1.0, 2.0, 4.0, 8.0])
    assert line["over_longer"] < 1 and line["over_neighbours"] == 1
    cliff = suites.steepest([1, 15, 16, 17], [1.0, 9.0, 3.0, 3.1])
    assert (cliff["over_longer"], cliff["at"], cliff["at_neighbours"]) == (3.0, 15, 15)


def test_models_on_images_are_counted_compared_and_not_measured_by_length(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = find_model("resnet-50")
    config.depths, config.hidden_sizes, config.embedding_size = [1, 1], [32, 48], 16
    model, shape = make_model(config), check_shape(config)
    assert str(shape) == "1x224"
    work = ImageWork.of(model)
    stem = 7 * 7 * 3 * 16 * 112 * 112
    first = (16 * 8 + 8 * 8 * 9 + 8 * 32 + 16 * 32) * 56 * 56
    last = (32 * 12 + 32 * 48 // 4) * 56 * 56 + (12 * 12 * 9 + 12 * 48) * 28 * 28
    assert work.multiply_adds == stem + first + last
    assert work.weight_bytes == sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    assert work.operations(Shape(2, 112)) == work.multiply_adds
    output, mask = reference(model, shape)
    assert relative_error(output * 1.1, output, mask) == pytest.approx(0.1, rel=1e-4)
    assert main(["latency", "--models", "resnet-50", "--ragged"]) == 2
    assert "model on images" in capsys.readouterr().err
