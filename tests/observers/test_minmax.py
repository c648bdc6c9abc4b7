"""`MinMaxObserver` against numpy's extremes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimum_int8.observers import MinMaxObserver

finite = st.floats(-(2.0**100), 2.0**100, width=32)


@settings(max_examples=50, deadline=None)
@given(batches=st.lists(st.lists(finite, max_size=8), min_size=1, max_size=4))
def test_extremes(batches: list[list[float]]) -> None:
    values = np.array([0.0, *(value for batch in batches for value in batch)])
    affine, symmetric = MinMaxObserver(), MinMaxObserver(symmetric=True)
    for batch in batches:
        affine.observe(torch.tensor(batch))
        symmetric.observe(torch.tensor(batch))
    if values.max() - values.min() < 2.0**-100:
        return
    assert affine.range() == (values.min(), values.max())
    assert symmetric.range() == (-np.abs(values).max(), np.abs(values).max())


@pytest.mark.parametrize(("values", "expected"), [([2.0, 3.0], (0.0, 3.0)), ([-2.0, -3.0], (-3.0, 0.0))])
def test_one_sided(values: list[float], expected: tuple[float, float]) -> None:
    observer = MinMaxObserver()
    observer.observe(torch.tensor(values))
    assert observer.range() == expected
