"""`Int8Trainer`: Transformers' loop on fake quantization; resuming, freezing, distillation, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from optimum_int8 import ConfigError, Int8Config
from optimum_int8.errors import CalibrationError
from optimum_int8.hub import OptimizedModel
from optimum_int8.nn.fake import FakeQuantize
from optimum_int8.training import Int8Trainer, QatSettings, prepare_qat
from tests.quantizers.tiny import make_dataset, make_model, make_tokenizer

TOKEN = "hf_" + "secret" * 6
STEPS = 12


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    tokenizer, dataset = make_tokenizer(), make_dataset(make_model(), 48)
    pairs = zip(dataset["sentence"], dataset["label"], strict=True)
    return [{**tokenizer(sentence), "labels": label} for sentence, label in pairs]


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    values: dict[str, Any] = {
        "per_device_train_batch_size": 8, "num_train_epochs": 2, "learning_rate": 1e-3, "save_strategy": "no",
        "report_to": "none", "disable_tqdm": True, "use_cpu": True, "seed": 7, "dataloader_pin_memory": False,
    }  # fmt: skip
    return TrainingArguments(str(folder), **{**values, **changes})


def trainer(folder: Path, rows: list[Any], model: Any = None, **options: Any) -> Int8Trainer:
    settings = QatSettings(**{"calibration_samples": 16, **options.pop("settings", {})})
    own = {
        "int8_config": options.pop("int8_config", Int8Config(approach="qat", fuse=False)),
        "teacher": options.pop("teacher", None),
    }
    callbacks = options.pop("callbacks", None)
    return Int8Trainer(
        make_model() if model is None else model,
        arguments(folder, **options),
        train_dataset=rows,
        processing_class=make_tokenizer(),
        callbacks=callbacks,
        settings=settings,
        **own,
    )


def state(made: Int8Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in made.model.state_dict().items()}


def parts(made: Int8Trainer) -> list[FakeQuantize]:
    return [m for m in made.model.modules() if isinstance(m, FakeQuantize)]


@pytest.mark.slow
def test_it_trains_and_saves_an_int8_model(tmp_path: Path, rows: list[Any]) -> None:
    made = trainer(tmp_path / "run", rows)
    before = state(made)
    made.train()
    assert all(
        not torch.equal(before[n], t) for n, t in state(made).items() if n.endswith(("dense.weight", "log_gain"))
    )
    made.save_model(str(tmp_path / "int8"))
    assert {path.name for path in (tmp_path / "int8").iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    loaded = OptimizedModel.from_pretrained(tmp_path / "int8")
    inputs = make_tokenizer()("word1 word2 word3", return_tensors="pt")
    made.model.eval()
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, made.convert()(**inputs).logits)
        assert torch.allclose(loaded(**inputs).logits, made.model(**inputs).logits, atol=0.05)
    assert (
        json.loads((tmp_path / "int8" / "config.json").read_text())["quantization_config"]["config"]["approach"]
        == "qat"
    )


class Stop(TrainerCallback):
    """Ends a training in its middle, as a lost machine would."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        control.should_training_stop = state.global_step == STEPS // 2
        return control


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranges", "freeze"), [("learnable", 0.75), ("moving_average", 0.75), ("moving_average", 0.25)]
)
def test_an_interrupted_training_resumes_to_the_same_result(
    ranges: str, freeze: float, tmp_path: Path, rows: list[Any]
) -> None:
    options: dict[str, Any] = {
        "settings": {"ranges": ranges, "freeze_ranges_at": freeze, "averaging_constant": 0.2},
        "save_strategy": "steps", "save_steps": STEPS // 2,
    }  # fmt: skip
    whole = trainer(tmp_path / "whole", rows, **options)
    whole.train()
    first = trainer(tmp_path / "parts", rows, **options, callbacks=[Stop()])
    first.train()
    assert first.state.global_step == STEPS // 2
    second = trainer(tmp_path / "parts", rows, **options)
    second.train(resume_from_checkpoint=True)
    assert second.state.global_step == STEPS
    expected = state(whole)
    assert set(state(second)) == set(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in state(second).items())
    moved = any(not torch.equal(tensor, expected[name]) for name, tensor in state(first).items() if "fake" in name)
    assert moved == (freeze > 0.5)


class Watch(TrainerCallback):
    """Notes the scales after each step."""

    def __init__(self) -> None:
        self.scales: list[list[float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        modules = kwargs["model"].modules()
        self.scales.append([float(m.current_scale().detach()) for m in modules if isinstance(m, FakeQuantize)])


@pytest.mark.slow
@pytest.mark.parametrize("ranges", ["learnable", "moving_average"])
def test_ranges_move_until_they_freeze(ranges: str, tmp_path: Path, rows: list[Any]) -> None:
    watch = Watch()
    made = trainer(tmp_path, rows, settings={"ranges": ranges, "averaging_constant": 0.2})
    made.add_callback(watch)  # after the schedule
    made.train()
    moved = [a != b for a, b in zip(watch.scales, watch.scales[1:], strict=False)]
    half = STEPS // 2
    assert moved == [True] * (half - 1) + [False] * half


@pytest.mark.slow
def test_padding_does_not_count(tmp_path: Path, rows: list[Any]) -> None:
    """A row whose padding token makes huge activations: the ranges follow the true tokens only."""
    model = make_model()
    with torch.no_grad():
        model.bert.embeddings.LayerNorm.elementwise_affine = True
        model.bert.embeddings.word_embeddings.weight[0] = 1e3
    made = trainer(
        tmp_path, rows, model, settings={"ranges": "moving_average", "averaging_constant": 1.0, "freeze_ranges_at": 1.0}
    )
    made.train()
    query = made.model.bert.encoder.layer[0].attention.self.query.input_fake_quantize
    assert query.maximum < 30


def test_learnable_ranges_have_a_learning_rate_of_their_own_and_no_decay(tmp_path: Path, rows: list[Any]) -> None:
    made = trainer(tmp_path, rows, weight_decay=0.1, settings={"range_learning_rate": 0.007})
    groups = made.create_optimizer().param_groups
    gains = {id(part.log_gain) for part in parts(made)}
    assert {id(p) for p in groups[-1]["params"]} == gains
    assert (groups[-1]["lr"], groups[-1]["weight_decay"]) == (0.007, 0.0)
    assert not gains & {id(p) for group in groups[:-1] for p in group["params"]}


@pytest.mark.slow
def test_distillation_pulls_towards_the_teacher(tmp_path: Path, rows: list[Any]) -> None:
    """With labels that say the opposite of the model, the one that listens to the FP32 model keeps its answers."""
    wrong = [{**row, "labels": 1 - row["labels"]} for row in rows]
    right = {}
    for weight in (0.0, 1.0):
        made = trainer(tmp_path, wrong, settings={"distillation_weight": weight})
        made.train()
        logits = torch.tensor(made.predict(rows).predictions)
        right[weight] = float((logits.argmax(-1) == torch.tensor([row["labels"] for row in rows])).float().mean())
    assert right[1.0] > right[0.0] + 0.25


def test_distillation_takes_part_of_the_loss(tmp_path: Path, rows: list[Any]) -> None:
    made = trainer(tmp_path, rows, settings={"distillation_weight": 0.25, "temperature": 3.0})
    inputs = made.data_collator(rows[:8])
    made.model.train()
    for module in made.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    made.current_gradient_accumulation_steps = 1
    loss, outputs = made.compute_loss(made.model, dict(inputs), return_outputs=True)
    with torch.no_grad():
        taught = made.teacher(**{k: v for k, v in inputs.items() if k != "labels"}).logits / 3
    divergence = torch.nn.functional.kl_div(
        (outputs.logits / 3).log_softmax(-1), taught.log_softmax(-1), reduction="batchmean", log_target=True
    )
    assert float(loss.detach()) == pytest.approx(
        float((0.75 * outputs.loss + 0.25 * 9 * divergence).detach()), rel=1e-4
    )


@pytest.mark.slow
def test_mixed_precision(tmp_path: Path, rows: list[Any]) -> None:
    made = trainer(tmp_path, rows, bf16=True, settings={"distillation_weight": 0.5})
    made.train()
    inputs = make_tokenizer()("word1 word2", return_tensors="pt")
    int8 = made.convert()
    with torch.no_grad():
        assert int8(**inputs).logits.dtype == torch.float32
        assert torch.allclose(int8(**inputs).logits, made.model.eval()(**inputs).logits.float(), atol=0.1)


@pytest.mark.slow
def test_gradient_accumulation_moves_ranges_once_per_step(tmp_path: Path, rows: list[Any]) -> None:
    watch = Watch()
    made = trainer(tmp_path, rows, gradient_accumulation_steps=3, settings={"ranges": "moving_average"})
    made.add_callback(watch)
    made.train()
    assert len(watch.scales) == made.state.global_step == 4


@pytest.mark.slow
def test_a_token_is_never_written(tmp_path: Path, rows: list[Any]) -> None:
    made = trainer(tmp_path, rows, hub_token=TOKEN, save_strategy="epoch")
    made.train()
    made.save_model(str(tmp_path / "int8"))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "training_args.bin" for path in files)
    assert [path.name for path in files if TOKEN.encode() in path.read_bytes()] == []
    assert made.args.hub_token == TOKEN


@pytest.mark.slow
def test_only_the_int8_model_is_pushed(tmp_path: Path, rows: list[Any], hub: Any) -> None:
    made = trainer(
        tmp_path, rows, push_to_hub=True, hub_model_id="alice/tiny-int8", hub_token="hf_alice", save_strategy="epoch",
        hub_strategy="all_checkpoints",
    )  # fmt: skip
    made.train()
    pushed = made.push_to_hub()
    assert pushed.repo_id == "alice/tiny-int8"
    loaded = OptimizedModel.from_pretrained("alice/tiny-int8")
    assert loaded.config.quantization_config.config["approach"] == "qat"
    sent = set(hub.store.repositories["alice/tiny-int8"].files())
    assert not any(path.endswith((".bin", ".pt", ".pth")) or "checkpoint" in path for path in sent)


@pytest.mark.slow
def test_a_model_can_be_made_by_model_init(tmp_path: Path, rows: list[Any]) -> None:
    made = Int8Trainer(
        args=arguments(tmp_path), train_dataset=rows, processing_class=make_tokenizer(), model_init=lambda: make_model()
    )
    made.train()
    assert parts(made)
    made.convert()


def test_what_does_not_fit(tmp_path: Path, rows: list[Any]) -> None:
    with pytest.raises(CalibrationError, match="no training data"):
        trainer(tmp_path, [])
    model = prepare_qat(make_model(), calibration_data=[make_tokenizer()("word1", return_tensors="pt")], progress=False)
    with pytest.raises(ConfigError, match="pass the FP32 model as teacher"):
        trainer(tmp_path, rows, model, settings={"distillation_weight": 0.5})
    with pytest.raises(ConfigError, match="freeze_ranges_at is 2"):
        QatSettings(freeze_ranges_at=2)
    with pytest.raises(ConfigError, match="the approach is 'static'"):
        trainer(tmp_path, rows, int8_config=Int8Config(approach="static"))
