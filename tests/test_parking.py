"""How a thread sleeps until another wakes it."""

from __future__ import annotations

import threading

import pytest

from flask_sse_emitters.runtime.parking import parker

from .waiting import PATIENCE


def test_parker_woken_before_it_sleeps_does_not_sleep() -> None:
    sleeper = parker()
    sleeper.give(b"x")
    assert sleeper.park() == b"x"
    sleeper.unpark()
    assert sleeper.park() is None


def test_parker_woken_from_another_thread_returns_what_it_was_given() -> None:
    sleeper = parker()
    waker = threading.Thread(target=sleeper.give, args=(b"x",))
    waker.start()
    assert sleeper.park() == b"x"
    waker.join(PATIENCE)


def test_parker_woken_twice_for_one_sleep_raises() -> None:
    sleeper = parker()
    sleeper.unpark()
    with pytest.raises(RuntimeError):
        sleeper.unpark()
    assert sleeper.park() is None
