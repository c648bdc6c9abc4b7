"""`best_ends` against trying every pair."""

import numpy as np
import pytest

from optimum_int8.observers.search import POINTS, best_ends


def bowl(low_at: float, high_at: float):
    def cost(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        assert low.shape[1] == 1 and high.shape[0] == 1
        assert low.size == 1 or high.size == 1 or max(low.size, high.size) <= POINTS
        return (low - low_at) ** 2 + 0.5 * (high - high_at) ** 2 + 0.3 * (low - low_at) * (high - high_at)

    return cost


@pytest.mark.parametrize("counts", [(1, 1), (1, 2000), (2000, 1), (2, 2), (33, 33), (34, 33), (20, 2000), (1025, 1024)])
def test_a_smooth_cost(counts: tuple[int, int]) -> None:
    for share in (0.0, 0.013, 0.37, 0.5, 0.91, 1.0):
        low, high = round(share * (counts[0] - 1)), round((1 - share) * (counts[1] - 1))
        assert best_ends(*counts, bowl(low, high)) == (low, high)


def test_a_small_side_is_searched_completely() -> None:
    costs = np.random.default_rng(0).uniform(size=(POINTS, POINTS - 5))
    expected = np.unravel_index(np.argmin(costs), costs.shape)
    assert best_ends(*costs.shape, lambda low, high: costs[low, high]) == expected


def test_the_widest_of_equal_ranges() -> None:
    assert best_ends(500, 400, lambda low, high: np.zeros((low.size, high.size))) == (0, 0)


def test_pairs_that_are_not_allowed() -> None:
    def cost(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        return np.where(low + high > 6, np.inf, -(low + 2.0 * high))

    assert best_ends(1000, 1000, cost) == (0, 6)
