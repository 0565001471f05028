"""Denials: their answers, what the log and debug mode say, and the app's own error handlers."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask import Blueprint, Flask

from flask_sse_emitters import SSE, AccessDenied
from tests.support.board import Board, levels


@pytest.mark.parametrize(
    "path", ["/events/a", "/events?channel=a", "/events?channel=news&channel=a", "/events?channel=~"]
)
def test_denial_of_a_channel_without_a_rule_is_logged_once(path: str, caplog: pytest.LogCaptureFixture) -> None:
    board = Board(None)
    board.sse.channel("news", public=True)
    for _ in range(3):
        answer = board.get(path)
        assert (answer.status_code, answer.text) == (403, "Forbidden\n")
        assert answer.content_type == "text/plain; charset=utf-8"
        assert (answer.headers["Cache-Control"], "WWW-Authenticate" in answer.headers) == ("no-store", False)
    assert levels(caplog) == ["WARNING"], "the call to add is logged once"
    assert "public=True" in caplog.text
    assert "@sse.authorizer" in caplog.text
    stats = board.sse.stats()
    assert [stats[name] for name in ("denied", "opened", "clients", "channels")] == [3, 0, 0, {}]


def test_denial_in_debug_mode_names_the_call_to_add() -> None:
    answer = Board(None, debug=True).get("/events/orders/7")
    assert answer.status_code == 403
    assert "sse.channel('orders/7', public=True)" in answer.text
    assert "@sse.authorizer" in answer.text


def test_denial_with_a_challenge_is_a_401_with_www_authenticate() -> None:
    def may_read(_channel: str) -> bool:
        raise AccessDenied("no seal", challenge='Seal realm="a"')

    answer = Board(may_read).get("/events/a")
    assert (answer.status_code, answer.text) == (401, "Unauthorized\n")
    assert answer.headers["WWW-Authenticate"] == 'Seal realm="a"'
    assert "no seal" in Board(may_read, debug=True).get("/events/a").text


@pytest.mark.parametrize(("handled", "status"), [(Exception, 403), (403, 403), (AccessDenied, 418)])
def test_denial_answer_is_replaced_by_a_handler_of_access_denied_alone(handled: Any, status: int) -> None:
    board = Board(None)
    board.app.register_error_handler(handled, lambda _: ("teapot", 418))
    assert board.get("/events/a").status_code == status


def test_denial_handler_of_the_app_wins_over_one_of_a_blueprint() -> None:
    app, outer = Flask(__name__), Blueprint("outer", __name__)
    app.register_error_handler(AccessDenied, lambda _: ("teapot", 418))
    outer.register_error_handler(Exception, lambda _: ("not for this", 500))
    sse = SSE(app)
    outer.register_blueprint(sse.blueprint)
    app.register_blueprint(outer, url_prefix="/outer")
    assert app.test_client().get("/outer/events/a").status_code == 418


@pytest.mark.parametrize("comes_first", [True, False])
def test_denial_handler_can_be_for_a_subclass_of_access_denied(comes_first: bool) -> None:
    class Expired(AccessDenied):
        pass

    def expired(_channel: str) -> bool:
        raise Expired("yesterday")

    app = Flask(__name__)
    sse = SSE()
    if comes_first:
        app.register_error_handler(Expired, lambda _: ("expired", 410))
    sse.init_app(app)
    if not comes_first:
        app.register_error_handler(Expired, lambda _: ("expired", 410))
    app.register_blueprint(sse.blueprint)
    app.get("/mine")(lambda: str(expired("mine")))
    client = app.test_client()
    assert client.get("/events/a").status_code == 403, "without a rule it is another denial"
    sse.authorizer(expired)
    assert [client.get(path).status_code for path in ("/events/a", "/mine")] == [410, 410]


def test_denial_reason_is_logged_at_debug_without_the_query(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "flask_sse_emitters")
    Board(lambda _: False).get("/events/a?token=secret")
    assert "GET '/events/a' is denied: the authorizer returned False for channel 'a'" in caplog.messages
    assert "secret" not in caplog.text


def test_denial_log_names_no_origin_that_was_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "flask_sse_emitters")
    Board(lambda _: True).get("/events/a", **{"Sec-Fetch-Site": "cross-site"})
    assert "a page of another site has opened this" in caplog.text
