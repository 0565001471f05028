"""The signal of a broker's state, as a slow receiver gets it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flask import Flask

from flask_sse_emitters import signals
from flask_sse_emitters.brokers.redis.health import Health
from flask_sse_emitters.server import app_state
from tests.support.board import Board
from tests.support.waiting import until
from tests.unit.doubles.clock import ManualScheduler


def test_signal_broker_changed_gives_a_slow_receiver_the_last_state() -> None:
    board = Board()
    broker = board.sse._channels().broker
    health = Health("somewhere", lambda: broker.changed())
    broker.status = health.status  # type: ignore[method-assign]
    sent: list[str] = []
    begun, blocked = threading.Event(), threading.Event()

    def note(_: Flask, state: str, **values: Any) -> None:
        begun.set()
        blocked.wait(60)
        sent.append(state)

    with signals.broker_changed.connected_to(note, board.app):
        health.failed("publishing", OSError("gone"))
        until(begun.is_set, "the first")
        health.worked("publishing")
        health.failed("publishing", OSError("gone again"))
        health.worked("publishing")
        blocked.set()
        until(lambda: sent[-1:] == ["ok"], "the last")
        health.failed("publishing", OSError("gone again"))
        until(lambda: sent == ["degraded", "ok", "degraded"], "the next")


def test_signal_broker_changed_is_prepared_for_its_own_app_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    board, scheduler = Board(), ManualScheduler()
    monkeypatch.setattr(app_state, "SCHEDULER", scheduler)
    for listening, jobs in [(Flask("another one"), 0), (board.app, 1)]:
        with signals.broker_changed.connected_to(lambda *_, **__: None, listening):
            board.sse._channels().broker.changed()
        assert len(scheduler.jobs) == jobs
