"""From a float model to fake quantization and on to INT8: same class, same parameters, equal outputs up to float rounding."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optimum_int8 import CalibrationError, ConfigError, Int8Config, QuantizationError, quantize
from optimum_int8.hub import OptimizedModel
from optimum_int8.hub.save import save_pretrained
from optimum_int8.training import convert_qat, prepare_qat
from optimum_int8.training.prepare import remove_fake_quantize
from tests import zoo
from tests.models import batch, classifier, logits

CONFIG = Int8Config(approach="qat", fuse=False)
ARCHITECTURES = ("bert", "albert", "bart", "gpt2", "llama", "t5", "vit", "deberta-v2")


def prepared(model: nn.Module, config: Int8Config = CONFIG, **options: Any) -> Any:
    return prepare_qat(model, config, [batch(), batch(4, 17, 0, 2)], progress=False, **options)


def test_the_model_keeps_its_class_its_modules_and_its_parameters() -> None:
    model = classifier()
    classes = {name: type(module) for name, module in model.named_modules()}
    parameters = dict(model.named_parameters())
    found = prepared(model, inplace=True, learnable=False)
    assert found is model
    assert all(isinstance(found.get_submodule(name), cls) for name, cls in classes.items())
    assert all(a is b for a, b in zip(found.parameters(), parameters.values(), strict=True))
    assert set(parameters) < set(found.state_dict())
    assert found.config._attn_implementation == "optimum_int8_fake_quantized"
    assert "quantization_config" not in found.config.to_dict()


def test_a_copy_leaves_the_model_alone() -> None:
    model = classifier()
    before, state = logits(model, **batch()), copy.deepcopy(model.state_dict())
    prepared(model)
    assert torch.equal(logits(model, **batch()), before)
    assert set(model.state_dict()) == set(state)


@pytest.mark.slow
@pytest.mark.parametrize("learnable", [True, False])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("bits", [8, 6])
def test_untrained_it_converts_to_what_static_quantization_gives(bits: int, granularity: str, learnable: bool) -> None:
    scheme: dict[str, Any] = {"activation_bits": bits, "weight_granularity": granularity, "fuse": False}
    model, data = classifier("DistilBert"), [batch(), batch(4, 17, 0, 2)]
    static = quantize(model, Int8Config(approach="static", **scheme), data, progress=False)
    trained = convert_qat(prepared(model, Int8Config(approach="qat", **scheme), learnable=learnable))
    assert torch.equal(logits(static, **batch(4, 12, 3, 5)), logits(trained, **batch(4, 12, 3, 5)))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_site_trains_and_the_conversion_is_equal(name: str) -> None:
    """Rounding puts a value on the neighbouring level now and then, so that single outputs differ by more than float rounding."""
    model = zoo.make(name)
    config = Int8Config(approach="qat", fuse=False)
    found = prepare_qat(model, config, [zoo.inputs(model, seed=s) for s in (2, 3)], progress=False)
    given = zoo.inputs(model, rows=4, seed=4)
    found.train()(**given).logits.float().square().mean().backward()
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.grad is not None:
                parameter -= 1e-2 * parameter.grad / parameter.grad.norm().clamp(min=1e-6) * parameter.norm()
    gains = [p for key, p in found.named_parameters() if key.endswith("log_gain")]
    assert gains and all(p.grad is not None for p in gains)
    fake, int8 = zoo.logits(found.eval(), given), zoo.logits(convert_qat(found), given)
    difference = (fake - int8).abs() / fake.abs().max()
    assert difference.median() < 2e-6
    assert difference.max() < 0.05


@pytest.mark.slow
def test_the_fused_model_with_fewer_bits_computes_the_same_and_comes_back(tmp_path: Path) -> None:
    config = Int8Config(approach="qat", activation_bits=6)
    found = prepared(classifier(), config)
    int8, plain = (
        convert_qat(found),
        convert_qat(prepared(classifier(), Int8Config(approach="qat", activation_bits=6, fuse=False))),
    )
    given = batch(4, 12, 3, 5)
    difference = (logits(int8, **given) - logits(plain, **given)).abs().max()
    assert difference < 0.05 * logits(plain, **given).abs().max()
    save_pretrained(int8, tmp_path / "int8")
    loaded = OptimizedModel.from_pretrained(tmp_path / "int8")
    assert torch.equal(logits(loaded, **given), logits(int8, **given))
    assert loaded.config.quantization_config.config["activation_bits"] == 6


def test_removing_it_gives_the_float_model_back() -> None:
    model = classifier()
    found = remove_fake_quantize(prepared(model))
    assert torch.equal(logits(found, **batch()), logits(model, **batch()))
    assert {n: type(m) for n, m in found.named_modules()} == {n: type(m) for n, m in model.named_modules()}
    assert set(found.state_dict()) == set(model.state_dict())


def test_any_module_trains() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    found = prepare_qat(model, CONFIG, [torch.randn(4, 3, 8, 8)], learnable=False, progress=False)
    x = torch.randn(2, 3, 8, 8)
    found(x).square().sum().backward()
    assert all(p.grad is not None for p in found.parameters())
    with torch.no_grad():
        assert torch.allclose(convert_qat(found)(x), found(x), atol=1e-5)


@pytest.mark.parametrize(
    ("error", "message", "config"),
    [
        (ConfigError, "the approach is 'static'", Int8Config(approach="static")),
        (ConfigError, "fix a model that is not trained", Int8Config(approach="qat", bias_correction=True)),
        (QuantizationError, "no module|does not have", Int8Config(approach="qat", exclude=("nowhere",))),
    ],
)
def test_settings_that_do_not_fit(error: type[Exception], message: str, config: Int8Config) -> None:
    with pytest.raises(error, match=message):
        prepared(classifier(), config)


def test_models_that_do_not_fit() -> None:
    model = classifier()
    with pytest.raises(CalibrationError, match="no batch"):
        prepare_qat(model, CONFIG, [], progress=False)
    with pytest.raises(QuantizationError, match="prepared for training already"):
        prepared(prepared(model))
    with pytest.raises(QuantizationError, match="INT8 already"):
        prepared(quantize(model, Int8Config(approach="dynamic")))
    with pytest.raises(QuantizationError, match="holds no fake quantization"):
        convert_qat(model)
    diverged = prepared(model)
    next(m for m in diverged.modules() if isinstance(m, nn.Linear)).weight.data[0, 0] = float("nan")
    with pytest.raises(QuantizationError, match="not finite"):
        convert_qat(diverged)
