"""Training through a quantizer: its defaults, what overrides them, and the INT8 model that comes out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from optimum_int8 import ConfigError, Int8Config, QatSettings, TextClassificationQuantizer
from optimum_int8.quantizers.steps.training import DEFAULTS, SETTINGS, TrainingRequest, make_trainer
from optimum_int8.training import Int8Trainer
from tests.quantizers.tiny import make_dataset, make_model, make_tokenizer


def trainer(folder: Any, settings: Any = None, arguments: Any = None) -> Int8Trainer:
    quantizer = TextClassificationQuantizer(make_model(), make_tokenizer())
    data = make_dataset(quantizer.model, 16)
    request = TrainingRequest(data, arguments, settings)
    return make_trainer(quantizer, Int8Config(approach="qat"), request, None, str(folder))


def test_a_finished_model_is_its_own_teacher(tmp_path: Any) -> None:
    made = trainer(tmp_path)
    assert made.settings == QatSettings(**SETTINGS) and made.settings.distillation_weight > 0
    assert made.teacher is not None and made.args.learning_rate == DEFAULTS["learning_rate"]


def test_what_is_given_wins(tmp_path: Any) -> None:
    made = trainer(tmp_path, {"freeze_ranges_at": 0.25}, {"learning_rate": 0.5})
    assert made.settings == QatSettings(**SETTINGS, freeze_ranges_at=0.25) and made.args.learning_rate == 0.5
    assert trainer(tmp_path, QatSettings()).teacher is None
    with pytest.raises(ConfigError, match="distillation_weight is 2"):
        trainer(tmp_path, {"distillation_weight": 2})


@pytest.mark.slow
def test_quantize_trains_a_copy() -> None:
    quantizer = TextClassificationQuantizer(make_model(), make_tokenizer())
    before = {name: tensor.clone() for name, tensor in quantizer.model.state_dict().items()}
    data = make_dataset(quantizer.model, 16)
    config, arguments = (
        Int8Config(approach="qat"),
        {"learning_rate": 1e-3, "per_device_train_batch_size": 4, "disable_tqdm": True},
    )
    trained = quantizer.quantize(config, train_dataset=data, training_args=arguments)
    assert all(torch.equal(tensor, before[name]) for name, tensor in quantizer.model.state_dict().items())
    static = TextClassificationQuantizer(make_model(), make_tokenizer()).quantize(Int8Config(approach="static"), data)
    name = "bert.encoder.layer.0.output.dense.weight_scale"
    assert not torch.equal(trained.state_dict()[name], static.state_dict()[name])
    assert trained.config.quantization_config["config"]["approach"] == "qat"
