"""The config: its defaults, its checks, and whose it is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Flask

from flask_sse_emitters import SSE, CloseReason, SseEmitter
from tests.support.board import Board
from tests.support.waiting import until


def test_config_defaults_are_filled_in() -> None:
    app = Flask(__name__)
    app.config["SSE_TIMEOUT"] = timedelta(minutes=1)
    SSE(app)
    assert {key: value for key, value in app.config.items() if key.startswith("SSE_")} == {
        "SSE_TIMEOUT": timedelta(minutes=1),
        "SSE_HEARTBEAT": 15,
        "SSE_RETRY": 3000,
        "SSE_MAX_PENDING": 1000,
        "SSE_MAX_PENDING_BYTES": 1048576,
        "SSE_OVERFLOW": "close",
        "SSE_ATTACH_SECONDS": 30,
        "SSE_WRITE_SECONDS": 30,
        "SSE_HANDOFF": "auto",
        "SSE_MAX_EVENT_BYTES": 1048576,
        "SSE_MAX_CLIENTS": 10000,
        "SSE_HISTORY": 1000,
        "SSE_HISTORY_SECONDS": 300,
        "SSE_BROKER_URL": "memory://",
        "SSE_BROKER_PREFIX": "sse",
        "SSE_PUBLISH_SECONDS": 2,
        "SSE_DRAIN_SECONDS": 5,
        "SSE_MAX_CLIENTS_PER_IDENTITY": None,
        "SSE_MAX_CLIENTS_PER_ADDRESS": None,
        "SSE_CORS_ORIGINS": (),
    }


@pytest.mark.parametrize(
    ("key", "value", "accepts"),
    [
        ("SSE_TIMEOUT", -1, "seconds as a number or a timedelta, 0 for never"),
        ("SSE_TIMEOUT", None, "seconds as a number or a timedelta, 0 for never"),
        ("SSE_HEARTBEAT", "15", "seconds as a number or a timedelta, 0 for never"),
        ("SSE_RETRY", 1.5, "an int of milliseconds, 0 or more"),
        ("SSE_RETRY", -1, "an int of milliseconds, 0 or more"),
        ("SSE_RETRY", True, "an int of milliseconds, 0 or more"),
        ("SSE_MAX_PENDING", 0, "an int, 1 or more"),
        ("SSE_MAX_PENDING_BYTES", "1MB", "an int, 1 or more"),
        ("SSE_OVERFLOW", "block", '"close", "drop_oldest" or "coalesce"'),
        ("SSE_WRITE_SECONDS", -1, "seconds as a number or a timedelta, 0 for never"),
        ("SSE_ATTACH_SECONDS", 0, "seconds as a number or a timedelta, more than 0"),
        ("SSE_HANDOFF", True, '"auto", "on" or "off"'),
        ("SSE_MAX_EVENT_BYTES", 0, "an int, 1 or more"),
    ],
)
def test_config_value_that_is_invalid_is_named(key: str, value: object, accepts: str) -> None:
    app = Flask(__name__)
    app.config[key] = value
    with pytest.raises(ValueError, match=f"{key} must be {accepts}, not") as caught:
        SSE(app)
    assert repr(value) in str(caught.value)
    assert "sse_emitters" not in app.extensions


def test_config_of_the_app_that_returns_an_emitter_holds_for_it() -> None:
    board = Board(SSE_MAX_PENDING=2, SSE_TIMEOUT=0.05)
    emitter, own = SseEmitter(), SseEmitter(timeout=0, max_pending=3)
    late = SseEmitter()
    with board.app.test_request_context():
        responses = [emitter.response(), own.response(), late.response()]
    assert [emitter.try_send(n) for n in range(3)] == [True, True, False]
    assert [own.try_send(n) for n in range(3)] == [True, True, True]
    until(lambda: late.close_reason is CloseReason.TIMEOUT, "the timeout of its app")
    assert own.is_open
    assert own.try_send(4) is False
    for response in responses:
        response.close()
