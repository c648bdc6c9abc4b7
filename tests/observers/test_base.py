"""What every observer promises: masks, errors, the form of the range, constant memory, independence of batch splits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimum_int8.config import OBSERVERS, Int8Config
from optimum_int8.errors import CalibrationError
from optimum_int8.observers import Observer, make_observer

SPLIT_INVARIANT = [name for name in OBSERVERS if name != "moving_average"]
every_observer = pytest.mark.parametrize("name", OBSERVERS)
both_forms = pytest.mark.parametrize("symmetric", [False, True])


def make(name: str, symmetric: bool = False) -> Observer:
    return make_observer(Int8Config(observer=name, histogram_bins=512, percentile=99.0), symmetric)


def skewed(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator=generator).exp() - 1.0


def state_bytes(observer: Observer) -> int:
    held = [observer, getattr(observer, "histogram", None)]
    values = [value for item in held if item is not None for value in vars(item).values()]
    assert not any(isinstance(value, (list, dict, set)) for value in values)
    return sum(value.untyped_storage().nbytes() for value in values if isinstance(value, torch.Tensor))


@every_observer
def test_nothing_observed(name: str) -> None:
    observer = make(name)
    observer.observe(torch.empty(0, 4))
    observer.observe(torch.ones(2, 4), torch.zeros(2, dtype=torch.bool))
    with pytest.raises(CalibrationError, match="no value was observed"):
        observer.range()


@every_observer
@both_forms
def test_a_mask_leaves_out_padding_even_when_it_is_not_finite(name: str, symmetric: bool) -> None:
    x = skewed(6 * 10 * 8).reshape(6, 10, 8)
    mask = torch.arange(10) < torch.tensor([10, 3, 7, 1, 5, 9])[:, None]
    expected = make(name, symmetric)
    expected.observe(x[mask])
    poisoned = x.clone()
    poisoned[~mask] = float("nan")
    found = make(name, symmetric)
    found.observe(poisoned, mask)
    assert found.range() == expected.range()


def test_a_mask_broadcasts() -> None:
    x = torch.zeros(2, 3, 4, 5)
    x[0, :, :2], x[0, :, 2:], x[1] = -1.0, -9.0, 2.0
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    observer = make("minmax")
    observer.observe(x, mask[:, None, :])
    assert observer.range() == (-1.0, 2.0)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (5, 3)])
def test_a_mask_that_does_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(CalibrationError, match=r"does not fit a tensor of shape \(2, 4, 8\)"):
        make("minmax").observe(torch.ones(2, 4, 8), torch.ones(shape, dtype=torch.bool))


def test_a_mask_of_integers_is_refused() -> None:
    with pytest.raises(CalibrationError, match="torch.int64; expected torch.bool"):
        make("minmax").observe(torch.ones(2, 4), torch.ones(2, dtype=torch.int64))


@every_observer
@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ([float("nan")] * 2, "2 NaN and 0 inf"),
        ([float("inf")], "0 NaN and 1 inf"),
        ([-float("inf")], "0 NaN and 1 inf"),
    ],
)
def test_values_that_are_not_finite_are_named_and_not_counted(name: str, bad: list[float], named: str) -> None:
    observer = make(name)
    observer.observe(skewed(1000))
    before = observer.range()
    with pytest.raises(CalibrationError, match=named):
        observer.observe(torch.cat([torch.tensor([1e6, *bad]), skewed(10)]))
    assert observer.range() == before


def test_float64_beyond_float32_is_not_finite() -> None:
    with pytest.raises(CalibrationError, match="1 infinite values among 2"):
        make("minmax").observe(torch.tensor([1.0, 1e300], dtype=torch.float64))


@every_observer
@both_forms
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, -1e-38])
def test_all_zero_gives_a_usable_range(name: str, symmetric: bool, value: float) -> None:
    observer = make(name, symmetric)
    observer.observe(torch.full((4, 8), value))
    assert observer.range() == (-1.0, 1.0)


@every_observer
@both_forms
@pytest.mark.parametrize("value", [5.0, -5.0, 0.3, 4.0, 3.4e38, -1e-30])
def test_a_constant_gives_the_range_from_zero_to_it(name: str, symmetric: bool, value: float) -> None:
    observer = make(name, symmetric)
    observer.observe(torch.full((40, 8), value))
    low, high = observer.range()
    exact = torch.tensor(value).item()
    # These two may be off by a bin, of which at least 256 reach from zero to the value.
    slack = abs(exact) / 256 if name in ("percentile", "mse") else 0.0
    assert (low, high) == (
        pytest.approx(-abs(exact) if symmetric else min(exact, 0.0), abs=slack),
        pytest.approx(abs(exact) if symmetric else max(exact, 0.0), abs=slack),
    )


def test_a_choice_that_collapses_onto_zero_gives_way_to_the_extremes() -> None:
    observer = make_observer(Int8Config(observer="percentile", percentile=50.0))
    observer.observe(torch.tensor([0.0] * 99 + [7.0]))
    assert observer.range() == (0.0, 7.0)


@every_observer
@both_forms
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_count_as_float32(name: str, symmetric: bool, dtype: torch.dtype) -> None:
    x = skewed(500).to(dtype)
    found, expected = make(name, symmetric), make(name, symmetric)
    found.observe(x)
    expected.observe(x.float())
    assert found.range() == expected.range()


def test_a_tensor_of_a_graph_and_one_that_is_not_contiguous() -> None:
    x = skewed(600).reshape(20, 30).requires_grad_()
    found, expected = make("mse"), make("mse")
    found.observe(x.t())
    expected.observe(x.detach())
    assert found.range() == expected.range()


@pytest.mark.parametrize("name", SPLIT_INVARIANT)
@both_forms
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_split_into_batches_does_not_matter(name: str, symmetric: bool, data: st.DataObject) -> None:
    wide = st.floats(width=32, allow_nan=False, allow_infinity=False)
    values = data.draw(st.lists(st.one_of(wide, st.floats(-8, 8, width=32), st.just(0.0)), min_size=1, max_size=60))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=5)))
    x = torch.tensor(values, dtype=torch.float32)
    whole, split = make(name, symmetric), make(name, symmetric)
    whole.observe(x)
    for batch in np.split(x.numpy(), cuts):
        split.observe(torch.from_numpy(batch.copy()))
    assert split.range() == whole.range()
    low, high = whole.range()
    assert low <= 0.0 <= high and low < high
    assert not symmetric or low == -high


@every_observer
def test_memory_is_constant(name: str) -> None:
    observer = make(name)
    observer.observe(skewed(10))
    before = state_bytes(observer)
    for seed in range(20):
        observer.observe(skewed(500, seed) * 4.0**seed)
    assert state_bytes(observer) == before
    assert before == (0 if name in ("minmax", "moving_average") else 8 * (2 * 512 - 1))
