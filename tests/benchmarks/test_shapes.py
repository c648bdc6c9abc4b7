from __future__ import annotations

import pytest

from benchmarks.models import find_model, make_inputs
from benchmarks.shapes import Shape


@pytest.mark.parametrize(
    ("text", "shape"), [("8x128", Shape(8, 128)), ("32x8-128", Shape(32, 128, 8)), (" 1x1 ", Shape(1, 1))]
)
def test_a_shape_is_read_and_written_alike(text: str, shape: Shape) -> None:
    assert Shape.parse(text) == shape
    assert str(shape) == text.strip()


@pytest.mark.parametrize("text", ["", "8", "8x", "x8", "0x8", "8x0", "8x0-4", "8x9-4", "8x4-8-9", "-1x4", "1x1.5"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Shape.parse(text)


def test_ragged_lengths_are_spread_evenly_over_the_whole_range() -> None:
    lengths = Shape(32, 128, 8).lengths()
    assert (lengths[0], lengths[-1], len(lengths)) == (8, 128, 32)
    steps = [b - a for a, b in zip(lengths, lengths[1:], strict=False)]
    assert max(steps) - min(steps) <= 1
    assert Shape(32, 128, 8).tokens() == sum(lengths)
    assert Shape(32, 128, 8).full() == Shape(32, 128)


def test_inputs_mask_exactly_the_padding_and_are_the_same_every_time() -> None:
    config, shape = find_model("tiny"), Shape(3, 12, 4)
    inputs, again = make_inputs(config, shape), make_inputs(config, shape)
    assert inputs["attention_mask"].sum(1).tolist() == shape.lengths() == [4, 8, 12]
    assert (inputs["input_ids"][inputs["attention_mask"] == 0] == config.pad_token_id).all()
    assert all(inputs[name].equal(again[name]) for name in inputs)
