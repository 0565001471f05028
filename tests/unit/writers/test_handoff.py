"""What decides whether a stream is handed off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flask_sse_emitters.writers.handoff import Facts, why_not

YES = Facts(
    mode="auto",
    is_gevent_worker=True,
    has_tls=False,
    is_http2=False,
    is_uwsgi=False,
    hangups_show=True,
    is_own_body=True,
    is_own_iteration=True,
    is_own_start_response=True,
    is_begun=True,
)
OBSTACLES: dict[str, dict[str, Any]] = {
    "SSE_HANDOFF is off": {"mode": "off"},
    "the server is not gunicorn with its gevent worker": {"is_gevent_worker": False},
    "the worker itself does TLS": {"has_tls": True},
    "the client speaks HTTP/2": {"is_http2": True},
    "the worker speaks uwsgi": {"is_uwsgi": True},
    "this system does not tell when a client leaves": {"hangups_show": False},
    "the app has put another body around the stream": {"is_own_body": False},
    "the response has a Content-Length, or has not begun": {"is_begun": False},
}
MIDDLEWARE: dict[str, dict[str, Any]] = {
    "a middleware has replaced start_response": {"is_own_start_response": False},
    "a middleware iterates over the stream": {"is_own_iteration": False},
}


def test_handoff_happens_where_no_obstacle_is_found() -> None:
    assert why_not(YES) is None
    assert why_not(replace(YES, mode="on")) is None


@pytest.mark.parametrize("reason", OBSTACLES)
def test_handoff_obstacle_holds_in_mode_on_too(reason: str) -> None:
    facts = replace(YES, **OBSTACLES[reason])
    assert why_not(facts) == reason
    assert why_not(facts if facts.mode == "off" else replace(facts, mode="on")) == reason


@pytest.mark.parametrize("reason", MIDDLEWARE)
def test_handoff_obstacle_of_a_middleware_is_overruled_by_mode_on(reason: str) -> None:
    facts = replace(YES, **MIDDLEWARE[reason])
    assert why_not(facts) == reason
    assert why_not(replace(facts, mode="on")) is None
