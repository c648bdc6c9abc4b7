from __future__ import annotations

import pytest

from benchmarks.turns import STEADY, EngineFailed, Pair, alternate, is_steady, ratio_text


class Fake:
    """Takes `milliseconds` on a machine whose speed is `clock.slowness`."""

    def __init__(self, name: str, milliseconds: float, clock: Clock) -> None:
        self.name, self.milliseconds, self.clock = name, milliseconds, clock

    def turn(self) -> float:
        taken = self.milliseconds * self.clock.slowness()
        self.clock.now += taken / 1e3
        self.clock.order.append(self.name)
        return taken


class Clock:
    def __init__(self, slow_from: int = 10**9) -> None:
        self.now, self.order, self.slow_from = 0.0, [], slow_from  # type: ignore[var-annotated]

    def __call__(self) -> float:
        return self.now

    def slowness(self) -> float:
        return 5.0 if len(self.order) >= self.slow_from else 1.0


def test_the_two_of_a_pair_follow_each_other_and_swap_who_is_first() -> None:
    clock = Clock()
    ours = Fake("ours", 1, clock)
    pairs = [Pair(ours, Fake("a", 2, clock)), Pair(ours, Fake("b", 3, clock))]
    alternate(pairs, 0.0, least=2, clock=clock)
    assert clock.order == ["ours", "a", "ours", "b", "a", "ours", "b", "ours"]


def test_a_machine_that_slows_down_between_rounds_does_not_change_the_ratio() -> None:
    clock = Clock(slow_from=4)
    pair = Pair(Fake("ours", 1, clock), Fake("other", 4, clock))
    alternate([pair], 100.0, most=5, clock=clock)
    assert pair.times[0] == (1, 4) and pair.times[-1] == (5, 20)
    assert pair.to_dict()["ratio"] == 4 and pair.to_dict()["ratio_quartiles"] == [4, 4]
    assert pair.to_dict()["rounds"] == 5


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 3), (0.05, 5), (1.0, 25)])
def test_rounds_fill_the_time_but_are_three_at_least(seconds: float, rounds: int) -> None:
    clock = Clock()
    pair = Pair(Fake("ours", 4, clock), Fake("other", 6, clock))
    alternate([pair], seconds + 1e-9, clock=clock)
    assert len(pair.times) == rounds


def test_one_that_fails_does_not_stop_the_others() -> None:
    clock = Clock()

    class Broken:
        def turn(self) -> float:
            raise EngineFailed("gone")

    ours = Fake("ours", 1, clock)
    broken, fine = Pair(ours, Broken()), Pair(ours, Fake("a", 2, clock))
    alternate([broken, fine], 0.0, clock=clock)
    assert broken.failure is not None and not broken.times
    assert fine.failure is None and len(fine.times) == 3


@pytest.mark.parametrize(("times", "steady"), [([3.0, 3.1, 3.2], True), ([3.0, 25.0, 60.0], False)])
def test_a_ratio_is_one_number_only_where_its_quartiles_are_close(times: list[float], steady: bool) -> None:
    clock = Clock()
    pair = Pair(Fake("ours", 1, clock), Fake("other", 1, clock), [(1.0, time) for time in times])
    found = pair.to_dict()
    assert is_steady(found) is steady
    low, high = found["ratio_quartiles"]
    assert ratio_text(found) == (f"{times[1]:.2f}x" if steady else f"unsteady, {low:.2f}x to {high:.2f}x")


def test_quartiles_at_the_limit_are_steady() -> None:
    assert is_steady({"ratio": 1.2, "ratio_quartiles": [1.0, STEADY]})
    assert not is_steady({"ratio": 1.2, "ratio_quartiles": [1.0, STEADY + 1e-6]})
