"""Paired timing, on a clock that the test moves."""

from __future__ import annotations

import gc

import pytest

from optimum_int8.errors import ConfigError
from optimum_int8.evaluation import paired_latency


class Clock:
    """Seconds that pass only when a call takes them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def call(self, name: str, *seconds: float):
        durations = iter(seconds * 1000)

        def run() -> None:
            self.log.append(name)
            self.now += next(durations)

        return run


def test_medians_and_ratio() -> None:
    clock = Clock()
    calls = {"fp32": clock.call("fp32", 0.030, 0.010, 0.020), "int8": clock.call("int8", 0.005, 0.005, 0.500)}
    result = paired_latency(calls, rounds=3, warmup=0, clock=clock)
    assert result.milliseconds["fp32"] == pytest.approx([30, 10, 20])
    assert result.medians() == {"fp32": pytest.approx(20), "int8": pytest.approx(5)}
    assert result.ratio("fp32", "int8") == pytest.approx(4)


def test_calls_alternate_and_the_first_one_rotates() -> None:
    clock = Clock()
    paired_latency({name: clock.call(name, 0.001) for name in "abc"}, rounds=3, warmup=1, clock=clock)
    assert "".join(clock.log) == "abc" + "abc" + "bca" + "cab"


def test_warm_up_is_not_timed() -> None:
    clock = Clock()
    result = paired_latency({"a": clock.call("a", 9.0, 9.0, 0.001)}, rounds=1, warmup=2, clock=clock)
    assert result.median("a") == pytest.approx(1)


def test_stops_early_but_not_before_three_rounds() -> None:
    clock = Clock()
    result = paired_latency({"a": clock.call("a", 10.0)}, rounds=50, warmup=0, max_seconds=1, clock=clock)
    assert len(result.milliseconds["a"]) == 3


def test_garbage_collection_is_off_while_timing_and_back_after() -> None:
    seen = []

    def fail() -> None:
        seen.append(gc.isenabled())
        raise RuntimeError

    with pytest.raises(RuntimeError):
        paired_latency({"a": fail}, warmup=0)
    assert seen == [False]
    assert gc.isenabled()


@pytest.mark.parametrize("arguments", [{"calls": {}}, {"calls": {"a": int}, "rounds": 0}])
def test_nothing_to_time(arguments: dict) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        paired_latency(**arguments)
