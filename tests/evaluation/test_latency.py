"""Paired timing, on a clock that the test moves."""

from __future__ import annotations

import gc

import pytest

from optimum_int8.errors import ConfigError
from optimum_int8.evaluation import PairedLatency, paired_latency


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


def timed(cases: int = 1, **milliseconds: list[float]) -> PairedLatency:
    return PairedLatency(milliseconds, cases)


def test_a_ratio_that_scatters_is_no_speedup() -> None:
    # The machine was busy in half of the rounds, while FP32 ran: the medians say 25 times.
    busy = timed(fp32=[10, 252, 11, 260, 12, 249], int8=[5, 10, 5, 10, 5, 10])
    assert busy.ratio("fp32", "int8") > 10
    assert not busy.ratio_quartiles("fp32", "int8").is_steady
    assert busy.speedup("fp32", "int8") is None


@pytest.mark.parametrize(
    ("fp32", "int8", "expected"),
    [
        ([50, 51, 49, 50], [10, 10, 10, 10], 5.0),
        ([50, 100, 50, 100], [10, 20, 10, 20], 5.0),  # a load that meets both alike
        ([10, 11, 9, 10], [10, 10, 10, 10], 1.0),  # as fast, within what both scatter
        ([50, 50, 50, 50, 900], [10, 10, 10, 10, 10], 5.0),  # one disturbed round
        ([50], [10], 5.0),
    ],
)
def test_a_steady_ratio_is_a_speedup(fp32: list[float], int8: list[float], expected: float) -> None:
    assert timed(fp32=fp32, int8=int8).speedup("fp32", "int8") == pytest.approx(expected)


def test_inputs_of_different_gain_do_not_count_as_scatter() -> None:
    # Short texts gain 2 times, long ones 6 times, in all rounds alike.
    fp32, int8 = [20.0, 120.0] * 4, [10.0, 20.0] * 4
    assert timed(fp32=fp32, int8=int8).speedup("fp32", "int8") is None
    by_case = timed(2, fp32=fp32, int8=int8)
    assert by_case.ratio_quartiles("fp32", "int8") == (by_case.ratio("fp32", "int8"),) * 2
    assert by_case.speedup("fp32", "int8") is not None
    # ... and a disturbance is found in them as well.
    assert timed(2, fp32=[20, 120, 90, 500, 20, 120, 100, 480], int8=int8).speedup("fp32", "int8") is None


def test_too_few_rounds_for_the_inputs_are_compared_as_they_are() -> None:
    assert timed(4, fp32=[10, 100, 10, 100], int8=[5, 5, 5, 5]).speedup("fp32", "int8") is None


def test_quartiles_of_the_times() -> None:
    times = timed(fp32=[1, 2, 3, 4, 5], int8=[1, 1, 1, 1, 1])
    assert times.quartiles("fp32") == (2, 4)
    assert times.quartiles("int8") == (1, 1)


def test_the_load_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (6.2, 1.0, 1.0))
    assert paired_latency({"a": int}, rounds=1, cases=3).load == 6.2
    assert paired_latency({"a": int}, rounds=1, cases=3).cases == 3


def test_a_system_without_a_load_average(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.getloadavg", raising=False)
    assert paired_latency({"a": int}, rounds=1).load is None
