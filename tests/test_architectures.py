"""The promises for whole models, on small configurations of each architecture: fused as unfused, padding, every ISA, what `inspect` says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from transformers.activations import GELUActivation, NewGELUActivation

from optimum_int8 import kernels, numerics
from optimum_int8.fx.call import SHORT
from optimum_int8.passes import find_blocks, inspect, install, remove
from tests.models import ARCHITECTURES, batch, classifier, int8_classifier, logits

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="without the native library nothing is fused")
CASES = [
    pytest.param((name, approach), id=f"{name}-{approach}", marks=() if name == "Bert" else pytest.mark.slow)
    for name in ARCHITECTURES
    for approach in ("static", "dynamic")
]


DEFINED = {
    GELUActivation: numerics.gelu,
    NewGELUActivation: numerics.gelu_tanh,
    torch.nn.Tanh: numerics.tanh,
}


@contextlib.contextmanager
def defined_activations() -> Iterator[None]:
    """Modules compute activations as blocks do, so that both round alike."""
    with contextlib.ExitStack() as stack:
        for module, function in DEFINED.items():
            stack.enter_context(mock.patch.object(module, "forward", lambda _, x, f=function: f(x)))
        yield


class Made:
    """One quantized model, its answers before it was fused, and the FP32 ones."""

    def __init__(self, architecture: str, approach: str) -> None:
        self.architecture, self.approach = architecture, approach
        fp32 = classifier(architecture)
        self.exact = logits(fp32, **batch())
        self.model = int8_classifier(model=fp32, approach=approach, fuse=False)
        with defined_activations():
            self.unfused = {masked: self(masked) for masked in (True, False)}
        self.compiler = install(self.model)
        self.fused = {masked: self(masked) for masked in (True, False)}

    def __call__(self, masked: bool = True) -> Tensor:
        given = batch() if masked else {"input_ids": batch(padding=0)["input_ids"]}
        return logits(self.model, **given)


_made: dict[tuple[str, str], Made] = {}


@pytest.fixture(params=CASES)
def made(request: pytest.FixtureRequest) -> Made:
    """Capturing costs seconds: each model is made once."""
    if request.param not in _made:
        _made[request.param] = Made(*request.param)
    return _made[request.param]


def test_fused_computes_what_its_modules_compute(made: Made) -> None:
    for masked in (True, False):
        error = (made.fused[masked] - made.unfused[masked]).abs().max()
        assert error <= 1e-6 * made.unfused[masked].abs().max(), f"{made.architecture} {made.approach} masked={masked}"
        assert torch.equal(made(masked), made.fused[masked])  # and again


def test_is_near_fp32(made: Made) -> None:
    assert (made.fused[True] - made.exact).abs().max() < 0.1 * made.exact.abs().max()


@pytest.mark.slow
def test_the_encoder_is_one_block_and_every_layer_one_for_many_tokens(made: Made) -> None:
    """A layer: four linears, attention, two norms and a quantization; dynamic ones also measure the rows of three values."""
    many = batch(SHORT // 32 + 1, 32)
    for masked in (True, False):
        found = logits(made.model, **(many if masked else {"input_ids": many["input_ids"]}))
        assert (
            found[:2] - logits(made.model, **{name: x[:2] for name, x in many.items()})
        ).abs().max() <= 1e-5 or not masked
    report = inspect(made.model)
    instructions = 8 if made.approach == "static" else 11
    stack_path = ARCHITECTURES[made.architecture][0].rsplit(".", 2)[0]
    stack = next(row for row in report.blocks if row.path == stack_path)
    layers = [row for row in report.blocks if row.path.startswith(f"{stack_path}.") and row.variants]
    assert len(layers) == (1 if made.architecture == "Albert" else 2)  # ALBERT's are one
    for row, calls in [*((layer, 1) for layer in layers), (stack, 2)]:
        assert row.left_in_torch == []
        assert 0 < row.instructions <= instructions * calls + (row is stack)
        assert row.variants == 2  # with a mask and without
        assert row.note == ""
    assert all(row.gemms == 6 for row in layers) and stack.gemms >= 6 * len(layers)
    assert report.block_share <= 1.0  # what stack and layers share counts once
    assert report.int8_share == 1.0
    assert not report.fp32
    assert all("ModelOutput" in reason or "BaseModelOutput" in reason for reason in report.failures.values())


@pytest.mark.slow
def test_block_coverage_of_a_full_sized_model_is_at_least_95_percent() -> None:
    """Layers are what counts there; in a small one the poolers and heads weigh more. ALBERT's layers share their weights, which
    `inspect` counts once: 12 x 768**2 of ALBERT-base's 13 x 768**2."""
    for architecture, least in (("Bert", 0.95), ("Albert", 0.92)):
        model = int8_classifier(
            model=classifier(architecture, num_hidden_layers=4, intermediate_size=512), approach="dynamic"
        )
        logits(model, **batch())
        report = inspect(model)
        assert report.block_share >= least, (architecture, report.block_share)


def test_padding_to_a_longer_length_changes_rounding_at_most(made: Made) -> None:
    generator = torch.Generator().manual_seed(3)
    for length in (1, 5, 8):
        ids = torch.randint(3, 100, (1, length), generator=generator)
        alone = logits(made.model, input_ids=ids, attention_mask=torch.ones_like(ids))
        for more in (1, 7, 24):
            padded = torch.cat([ids, torch.ones(1, more, dtype=torch.long)], 1)
            mask = torch.cat([torch.ones_like(ids), torch.zeros(1, more, dtype=torch.long)], 1)
            found = logits(made.model, input_ids=padded, attention_mask=mask)
            assert (found - alone).abs().max() <= 1e-5, (length, more)


def test_batching_with_longer_sentences_changes_rounding_at_most(made: Made) -> None:
    generator = torch.Generator().manual_seed(4)
    lengths = (3, 11, 1, 30)
    sentences = [torch.randint(3, 100, (1, n), generator=generator) for n in lengths]
    alone = torch.cat([logits(made.model, input_ids=ids, attention_mask=torch.ones_like(ids)) for ids in sentences])
    ids = torch.ones(len(lengths), max(lengths), dtype=torch.long)
    for row, sentence in zip(ids, sentences, strict=True):
        row[: sentence.shape[1]] = sentence
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)).long()
    assert (logits(made.model, input_ids=ids, attention_mask=mask) - alone).abs().max() <= 1e-5


def test_the_same_logits_to_the_bit_on_every_isa(made: Made) -> None:
    found: Any = kernels.info()["isa_found"]
    given = batch(3, 17, 5)
    with_best = logits(made.model, **given)
    for isa in found:
        with kernels.use_isa(isa):
            assert torch.equal(logits(made.model, **given), with_best), isa


@pytest.fixture(scope="module")
def bert() -> Any:
    model = int8_classifier("Bert")
    logits(model, **batch())
    logits(model, **batch(padding=0))  # Transformers makes no mask of it
    return model


def variants(model: Any) -> int:
    return sum(len(block.variants) for block in find_blocks(model).values())


def test_every_batch_and_length_runs_the_same_graphs(bert: Any) -> None:
    before = variants(bert)
    for length in range(1, 41):
        for rows in (1, 3):
            logits(bert, **batch(rows, length, 0))
            logits(bert, **batch(rows, length, length // 2))
    assert variants(bert) == before


def _shapes(output: Any) -> list[Any]:
    parts = output if isinstance(output, tuple) else output.to_tuple()
    return [part.shape if isinstance(part, Tensor) else [t.shape for t in part] for part in parts]


def test_hidden_states_attentions_and_tuples_are_transformers_own(bert: Any) -> None:
    fp32 = classifier("Bert")
    with torch.no_grad():
        for extra in ({"output_hidden_states": True}, {"output_attentions": True}, {"return_dict": False}):
            expected, found = fp32(**batch(), **extra), bert(**batch(), **extra)
            assert type(found) is type(expected)
            assert _shapes(found) == _shapes(expected)
        states = bert(**batch(), output_hidden_states=True).hidden_states
        assert len({id(s) for s in states}) == 3
        exact = fp32(**batch(), output_hidden_states=True).hidden_states
        kept = batch()["attention_mask"].bool()
        for one, other in zip(states, exact, strict=True):
            assert (one - other)[kept].square().mean() < 0.01 * other[kept].square().mean()
        assert torch.equal(bert(**batch()).logits, bert(**batch(), output_hidden_states=True).logits)


def test_a_float_mask_token_types_and_embeddings_as_input(bert: Any) -> None:
    given = batch()
    expected = logits(bert, **given)
    with torch.no_grad():
        types = torch.zeros_like(given["input_ids"])
        assert (logits(bert, **given, token_type_ids=types) - expected).abs().max() < 1e-5
        embedded = bert.bert.embeddings.word_embeddings(given["input_ids"])
        found = logits(bert, inputs_embeds=embedded, attention_mask=given["attention_mask"])
        assert (found - expected).abs().max() < 0.01
        longer = torch.zeros(2, 1, 9, 9).masked_fill(
            given["attention_mask"][:, None, None] == 0, torch.finfo(torch.float32).min
        )
        assert (logits(bert, input_ids=given["input_ids"], attention_mask=longer) - expected).abs().max() < 1e-5


def test_remove_and_install_change_the_speed_only(bert: Any) -> None:
    expected = logits(bert, **batch())
    remove(bert)
    assert not find_blocks(bert)
    assert (logits(bert, **batch()) - expected).abs().max() < 0.01 * expected.abs().max()
    install(bert)
    assert torch.equal(logits(bert, **batch()), expected)


def test_the_report_is_json_and_a_table(bert: Any) -> None:
    import io
    import json

    from rich.console import Console

    report = inspect(bert)
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    text = io.StringIO()
    Console(file=text, width=200).print(report.table())
    for word in ("bert.encoder", "BertEncoder", "15 instr.", "classifier", "100.0% of the multiply-adds in INT8"):
        assert word in text.getvalue()
