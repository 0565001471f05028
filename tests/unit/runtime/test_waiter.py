"""A waiter sleeps until another thread wakes it."""

from __future__ import annotations

import threading

import pytest

from flask_sse_emitters.runtime.waiter import make_waiter
from tests.support.waiting import PATIENCE


def test_waiter_woken_before_wait_returns_at_once() -> None:
    waiter = make_waiter()
    waiter.wake_with(b"x")
    assert waiter.wait() == b"x"
    waiter.wake()
    assert waiter.wait() is None


def test_waiter_woken_by_another_thread_returns_its_payload() -> None:
    waiter = make_waiter()
    waker = threading.Thread(target=waiter.wake_with, args=(b"x",))
    waker.start()
    assert waiter.wait() == b"x"
    waker.join(PATIENCE)


def test_waiter_woken_twice_for_one_wait_raises() -> None:
    waiter = make_waiter()
    waiter.wake()
    with pytest.raises(RuntimeError):
        waiter.wake()
    assert waiter.wait() is None
