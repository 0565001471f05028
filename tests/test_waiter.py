"""How a thread sleeps until another wakes it."""

from __future__ import annotations

import threading

import pytest

from flask_sse_emitters.runtime.waiter import make_waiter

from .waiting import PATIENCE


def test_parker_woken_before_it_sleeps_does_not_sleep() -> None:
    sleeper = make_waiter()
    sleeper.wake_with(b"x")
    assert sleeper.wait() == b"x"
    sleeper.wake()
    assert sleeper.wait() is None


def test_parker_woken_from_another_thread_returns_what_it_was_given() -> None:
    sleeper = make_waiter()
    waker = threading.Thread(target=sleeper.wake_with, args=(b"x",))
    waker.start()
    assert sleeper.wait() == b"x"
    waker.join(PATIENCE)


def test_parker_woken_twice_for_one_sleep_raises() -> None:
    sleeper = make_waiter()
    sleeper.wake()
    with pytest.raises(RuntimeError):
        sleeper.wake()
    assert sleeper.wait() is None
