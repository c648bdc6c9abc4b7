"""What takes over two seconds says so, once."""

from __future__ import annotations

import io
import logging
import threading

import pytest

from optimum_int8.fx import notice
from optimum_int8.fx.notice import Notice


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when a notice has been given."""
    event = threading.Event()
    say = Notice._say

    def and_set(self: Notice) -> None:
        say(self)
        event.set()

    monkeypatch.setattr(Notice, "_say", and_set)
    return event


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_long_one_is_logged_and_shown_on_a_terminal(
    stream: type[io.StringIO],
    said: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(notice, "AFTER_SECONDS", 0.01)
    error = stream()
    monkeypatch.setattr(notice.sys, "stderr", error)
    made = Notice()
    with caplog.at_level(logging.INFO, "optimum_int8"):
        with made:
            assert said.wait(20)
        with made:  # said once
            assert made._timer is None
    assert [r.levelname for r in caplog.records] == ["INFO"] and "warmup" in caplog.records[0].message
    assert error.getvalue().count("\n") == (1 if stream is Terminal else 0)


def test_short_ones_add_up(said: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice, "AFTER_SECONDS", 1000.0)
    made = Notice()
    with made:
        pass
    assert not made.said
    made._spent = 1000.0
    with made:
        assert said.wait(20)


def test_a_short_one_says_nothing_and_leaves_no_thread() -> None:
    made = Notice()
    with made:
        timer = made._timer
        assert timer is not None
    timer.join(20)
    assert not timer.is_alive() and not made.said
