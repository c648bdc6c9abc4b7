"""`MovingAverageObserver` against the recurrence on literals and against torch.ao."""

import warnings

import pytest
import torch

from optimum_int8.observers import MovingAverageObserver


def test_the_recurrence() -> None:
    observer = MovingAverageObserver(averaging_constant=0.25)
    for low, high in ((-4.0, 8.0), (-8.0, 16.0), (-1.0, 2.0)):
        observer.observe(torch.tensor([low, 0.5, high]))
    # low: -4, then -4 + (-8 + 4) / 4 = -5, then -5 + (-1 + 5) / 4 = -4. high: 8, 10, 8.
    assert observer.range() == (-4.0, 8.0)


def test_symmetric_takes_the_larger_average() -> None:
    observer = MovingAverageObserver(symmetric=True, averaging_constant=0.5)
    observer.observe(torch.tensor([-9.0, 2.0]))
    observer.observe(torch.tensor([-1.0, 4.0]))
    assert observer.range() == (-5.0, 5.0)


def test_averages_are_of_the_batches_not_of_zero() -> None:
    observer = MovingAverageObserver(averaging_constant=0.5)
    observer.observe(torch.tensor([-4.0, 3.0]))
    observer.observe(torch.tensor([2.0, 3.0]))
    # The second batch's low is 2, although 0.0 is in every range: (-4 + 2) / 2 = -1, not -2.
    assert observer.range() == (-1.0, 3.0)


def test_a_batch_of_padding_is_no_batch() -> None:
    observer = MovingAverageObserver(averaging_constant=0.5)
    observer.observe(torch.tensor([[-1.0, 3.0]]))
    observer.observe(torch.tensor([[-9.0, 9.0]]), torch.tensor([False]))
    assert observer.range() == (-1.0, 3.0)


@pytest.mark.parametrize("constant", [0.01, 0.3, 1.0])
def test_the_same_as_torch_ao(constant: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        observer_module = pytest.importorskip("torch.ao.quantization.observer")
        reference = observer_module.MovingAverageMinMaxObserver(averaging_constant=constant)
    observer = MovingAverageObserver(averaging_constant=constant)
    generator = torch.Generator().manual_seed(0)
    for step in range(10):
        x = torch.randn(40, generator=generator) * (1 + step)
        reference(x)
        observer.observe(x)
    expected = (reference.min_val.item(), reference.max_val.item())
    assert observer.range() == pytest.approx(expected, rel=1e-6)
