"""What an app's state counts, and the signals that it sends, in cases that only parts of the package can cause."""

from __future__ import annotations

import threading
from typing import Any

from flask import Flask

from flask_sse_emitters import SseEmitter, SseEmitters, signals
from flask_sse_emitters.brokers.redis.health import Health
from flask_sse_emitters.testing import open_stream
from tests.support.board import Board
from tests.support.waiting import until


def test_stats_count_list_events_that_an_emitter_takes_during_a_pass() -> None:
    board, listed = Board(), SseEmitters()
    emitter = SseEmitter()
    board.app.add_url_rule("/emitter", view_func=lambda: emitter)
    with open_stream(board.client, "/emitter") as stream:
        stream.ready()
        listed.add(emitter)
        listed._delivery._is_passing = True  # as if another thread were delivering, and had not reached this client
        listed.send("first")
        listed.send("second")
        emitter.send("own")
        assert [event.data for event in stream.ready()] == ["first", "second", "own"]
    assert board.sse.stats()["deliveries"] == 3


def test_signal_broker_changed_reports_the_last_state_last_to_a_slow_receiver() -> None:
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
