"""Calibration of encoder-decoders and decoders: decoding steps are seen, the padding of both sides is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from optimum_int8 import CalibrationError, Int8Config
from optimum_int8.calibration import collect_ranges, generation_batches
from optimum_int8.sites import find_sites
from tests import zoo

CONFIG = Int8Config(approach="static")


def ranges_of(model: Any, data: Any) -> dict[str, dict[str, tuple[float, float]]]:
    return collect_ranges(model, find_sites(model, CONFIG), CONFIG, data, progress=False)


def pair(length: int, targets: int, encoder_padding: int = 0, decoder_padding: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 100, (2, length), generator=draw)
    decoded = torch.randint(3, 100, (2, targets), generator=draw)
    batch = {"input_ids": ids, "decoder_input_ids": decoded}
    for name, tokens, padding in (
        ("attention_mask", ids, encoder_padding),
        ("decoder_attention_mask", decoded, decoder_padding),
    ):
        batch[name] = torch.ones_like(tokens)
        if padding:
            batch[name][0, -padding:] = 0
    return batch


@pytest.mark.parametrize("targets", [6, 8], ids=["other length", "equal lengths"])
@pytest.mark.parametrize("name", ["bart", "t5"])
def test_padding_of_neither_side_counts(name: str, targets: int) -> None:
    """Equal lengths are the case where a row's shape alone would not tell its side."""
    model = zoo.make(name)
    batch = pair(8, targets, encoder_padding=3, decoder_padding=2)
    with torch.no_grad():
        model.get_input_embeddings().weight[90:95, 7] = 30.0  # tokens that show wherever they count
    other = {key: value.clone() for key, value in batch.items()}
    other["input_ids"][0, -3:] = torch.tensor([90, 91, 92])
    other["decoder_input_ids"][0, -2:] = torch.tensor([93, 94])
    assert ranges_of(model, [batch]) == ranges_of(model, [other])
    for mask in ("attention_mask", "decoder_attention_mask"):
        without = [{key: value for key, value in b.items() if key != mask} for b in (batch, other)]
        assert ranges_of(model, without[:1]) != ranges_of(model, without[1:])


def test_labels_of_minus_100_are_padding() -> None:
    model = zoo.make("bart")
    batch = pair(8, 6)
    labels = batch["decoder_input_ids"].clone()
    labels[0, 4:] = -100
    masked = {**batch, "labels": labels}
    del masked["decoder_attention_mask"]
    expected = {**batch, "decoder_attention_mask": (labels != -100).long()}
    assert ranges_of(model, [masked]) == ranges_of(model, [expected])
    assert ranges_of(model, [masked]) != ranges_of(model, [batch])


def test_references_alone_teach_a_decoder() -> None:
    model = zoo.make("t5")
    batch = pair(8, 6)
    labelled = {"input_ids": batch["input_ids"], "labels": batch["decoder_input_ids"]}
    assert set(ranges_of(model, [labelled])) == set(find_sites(model, CONFIG).of_kind("linear", "attention"))


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_a_batch_without_decoding_steps_is_an_error(name: str) -> None:
    model = zoo.make(name)
    with pytest.raises(CalibrationError, match="neither labels nor decoder_input_ids.*generation_batches"):
        ranges_of(model, [{"input_ids": torch.tensor([[5, 6]])}])


@pytest.mark.parametrize("name", ["t5", "bart", "gpt2", "llama"])
def test_generated_batches_hold_what_each_step_sees(name: str) -> None:
    """In one call the generated tokens give the layers what they saw one by one."""
    model = zoo.make(name)
    batch = zoo.inputs(model)
    linear = next(n for n in find_sites(model, CONFIG).of_kind("linear") if "decoder" in n or zoo.is_decoder(model))
    seen: list[Tensor] = []
    handle = model.get_submodule(linear).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    (made,) = generation_batches(model, [batch], max_new_tokens=5)
    handle.remove()
    rows = torch.cat(seen, 1)
    steps = made["decoder_input_ids" if model.config.is_encoder_decoder else "input_ids"]
    assert steps.shape[1] == rows.shape[1] + 1  # the last token is not fed back
    if name != "gpt2":  # its positions follow the mask only inside generate
        counted = (made.get("decoder_attention_mask", made["attention_mask"])[:, :-1] != 0).unsqueeze(-1)
        low, high = ranges_of(model, [{k: v[:, :-1] if v.shape == steps.shape else v for k, v in made.items()}])[
            linear
        ]["input"]
        expected = rows.masked_select(counted)
        torch.testing.assert_close((low, high), (float(expected.min()), float(expected.max())), rtol=1e-4, atol=1e-5)


def test_steps_after_the_end_token_do_not_count() -> None:
    model = zoo.make("bart")
    model.generation_config.eos_token_id = None
    draft = next(generation_batches(model, [zoo.inputs(model)], max_new_tokens=6))
    assert (draft["decoder_attention_mask"] == 1).all()
    model.generation_config.eos_token_id = int(draft["decoder_input_ids"][0, 3])
    ended = next(generation_batches(model, [zoo.inputs(model)], max_new_tokens=6))
    assert ended["decoder_attention_mask"][0].tolist()[:5] == [1, 1, 1, 1, 0][: len(ended["decoder_attention_mask"][0])]
