"""Access to channels: what a rule may return and read, grants for a limited time, and the answers to denials."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Blueprint, Flask, g, request, session
from werkzeug.exceptions import Forbidden, InternalServerError, Unauthorized

from flask_sse_emitters import SSE, AccessDenied, CloseReason, SseEmitter
from flask_sse_emitters.access import Grant
from flask_sse_emitters.testing import open_stream
from tests.support.board import Board, by_header, levels, texts
from tests.support.waiting import until


def test_authorizer_is_called_once_per_channel_before_any_registration() -> None:
    calls: list[tuple[str, int, dict[str, int]]] = []
    board = Board(None)
    board.sse.channel("b", public=True)

    @board.sse.authorizer
    def may_read(channel: str) -> bool:
        calls.append((channel, board.clients, board.sse.stats()["channels"]))
        return channel != "c"

    assert board.get("/events?channel=a&channel=b&channel=a&channel=c&channel=d").status_code == 403
    assert calls == [("a", 0, {}), ("c", 0, {})]


@pytest.mark.parametrize(
    "result", [True, "ann", Grant(), Grant("ann"), Grant(seconds=60), Grant(seconds=timedelta(days=1))]
)
def test_authorizer_result_that_allows_opens_the_stream(result: Any) -> None:
    board = Board(lambda _: result)
    with board.open("a") as stream:
        board.publish("a", "x")
        assert texts(stream.ready()) == ["x"]


def giving(result: Any) -> Callable[[str], Any]:
    """Return a rule that returns this, or raises it."""

    def may_read(_channel: str) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    return may_read


@pytest.mark.parametrize(
    "result",
    [False, None, "", Grant(seconds=0), Grant("ann", seconds=-5), Unauthorized(), Forbidden(), InternalServerError()],
)
def test_authorizer_result_that_denies_is_a_403_without_a_log(result: Any, caplog: pytest.LogCaptureFixture) -> None:
    answer = Board(giving(result)).get("/events/a")
    assert answer.status_code == 403
    assert (answer.text, levels(caplog)) == ("Forbidden\n", [])


@pytest.mark.parametrize(
    "result",
    [7, 1, [], ["ann"], b"ann", "x" * 501, "\ud800", object(), RuntimeError("boom"), KeyError("user"), TypeError()],
)
def test_authorizer_that_raises_or_returns_no_answer_denies_and_is_logged(
    result: Any, caplog: pytest.LogCaptureFixture
) -> None:
    board = Board(giving(result))
    answer = board.get("/events/a")
    assert (answer.status_code, answer.text, levels(caplog)) == (403, "Forbidden\n", ["ERROR"])
    assert "the authorizer failed for channel 'a': access denied" in caplog.text
    assert caplog.records[0].exc_info
    assert board.clients == 0


def test_authorizer_can_read_the_request_the_session_and_g() -> None:
    board = Board(lambda channel: channel == f"{g.tenant}/{session.get('user')}")

    @board.app.before_request
    def note() -> None:
        g.tenant = request.headers.get("Tenant")

    assert board.get("/events/acme/ann", Tenant="acme").status_code == 403
    with board.client.session_transaction() as mine:
        mine["user"] = "ann"
    with open_stream(board.client, "/events/acme/ann", headers={"Tenant": "acme"}):
        pass
    assert board.get("/events/acme/ann", Tenant="other").status_code == 403


def test_access_rules_take_one_function_each() -> None:
    sse = SSE()
    assert sse.authorizer(by_header) is by_header
    assert sse.authorizer(by_header) is by_header, "registering it twice is harmless"
    with pytest.raises(RuntimeError, match="has an authorizer already"):
        sse.authorizer(lambda _: True)
    with pytest.raises(TypeError, match="takes a function"):
        SSE().authorizer("news")  # type: ignore[type-var]

    async def waits(_channel: str) -> bool:
        return True

    registers: list[Callable[[Any], object]] = [SSE().publisher, SSE().monitor_access]
    for register in registers:
        with pytest.raises(TypeError, match="none that is async"):
            register(waits)
    sse.monitor_access(lambda: True)
    with pytest.raises(RuntimeError, match="already"):
        sse.monitor_access(lambda: True)
    assert sse.publisher(by_header) is by_header
    with pytest.raises(RuntimeError, match="has a publisher already"):
        sse.publisher(cookies=True)(lambda _: True)


@pytest.mark.parametrize("public", [True, False])
def test_channel_public_that_contradicts_the_earlier_value_is_rejected(public: bool) -> None:
    board = Board(by_header)
    for _ in range(2):
        board.sse.channel("news", public=public)
        board.sse.channel("news")
    with pytest.raises(ValueError, match=rf"public={not public} contradicts sse.channel\('news', public={public}\)"):
        board.sse.channel("news", public=not public)
    with board.get("/events/news") as answer:
        assert answer.status_code == (200 if public else 403)


def test_view_that_subscribes_decides_on_access_and_can_deny() -> None:
    board = Board(None)

    @board.app.get("/mine")
    def mine() -> SseEmitter:
        if "User" not in request.headers:
            raise AccessDenied("who are you?", challenge="Seal")
        emitter = board.sse.channel("a").subscribe(identity=request.headers["User"], timeout=60)
        emitter.send("hello")
        return emitter

    assert board.get("/mine").status_code == 401
    with open_stream(board.client, "/mine", headers={"User": "ann"}) as stream:
        board.publish("a", "x")
        assert texts(stream.ready()) == ["hello", "x"]
        board.sse.disconnect("ann")
        assert board.emitters[0].close_reason is CloseReason.COMPLETED


def test_grant_expiry_ends_the_stream_as_a_timeout() -> None:
    board = Board(lambda channel: Grant("ann", seconds=0.05 if channel == "b" else 3600))
    with board.open("a", "b") as stream:
        [emitter] = board.emitters
        until(lambda: not emitter.is_open, "its end")
        assert emitter.close_reason is CloseReason.TIMEOUT
        board.sse.publish("a", "late")
        assert stream.ready() == []


@pytest.mark.parametrize(
    ("seconds", "error"),
    [("60", TypeError), (True, TypeError), (float("inf"), ValueError), (float("nan"), ValueError)],
)
def test_grant_seconds_must_be_finite(seconds: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="seconds"):
        Grant(seconds=seconds)


@pytest.mark.parametrize(
    "path", ["/events/a", "/events?channel=a", "/events?channel=news&channel=a", "/events?channel=~"]
)
def test_denial_of_a_channel_without_a_rule_is_logged_once(path: str, caplog: pytest.LogCaptureFixture) -> None:
    board = Board(None)
    board.sse.channel("news", public=True)
    for _ in range(3):
        answer = board.get(path)
        assert answer.status_code == 403
        assert (answer.text, answer.content_type) == ("Forbidden\n", "text/plain; charset=utf-8")
        assert (answer.headers["Cache-Control"], "WWW-Authenticate" in answer.headers) == ("no-store", False)
    assert levels(caplog) == ["WARNING"], "the call to add is logged once"
    assert "public=True" in caplog.text
    assert "@sse.authorizer" in caplog.text
    stats = board.sse.stats()
    assert [stats[name] for name in ("denied", "opened", "clients", "channels")] == [3, 0, 0, {}]
    board.app.debug = True
    assert "sse.channel('orders/7', public=True)" in board.get("/events/orders/7").text


def test_denial_with_a_challenge_is_a_401_with_www_authenticate() -> None:
    board = Board(giving(AccessDenied("no seal", challenge='Seal realm="a"')))
    answer = board.get("/events/a")
    assert (answer.status_code, answer.text) == (401, "Unauthorized\n")
    assert answer.headers["WWW-Authenticate"] == 'Seal realm="a"'
    board.app.debug = True
    assert "no seal" in board.get("/events/a").text


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

    app, sse = Flask(__name__), SSE()
    if not comes_first:
        sse.init_app(app)
    app.register_error_handler(Expired, lambda _: ("expired", 410))
    if comes_first:
        sse.init_app(app)
    app.register_blueprint(sse.blueprint)
    expired = giving(Expired("yesterday"))
    app.add_url_rule("/mine", view_func=lambda: expired("mine"))
    client = app.test_client()
    assert client.get("/events/a").status_code == 403, "without a rule it is another denial"
    sse.authorizer(expired)
    assert [client.get(path).status_code for path in ("/events/a", "/mine")] == [410, 410]


def test_denial_reason_is_logged_at_debug_without_the_query(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "flask_sse_emitters")
    Board(lambda _: False).get("/events/a?token=secret")
    assert "GET '/events/a' is denied: the authorizer returned False for channel 'a'" in caplog.messages
    assert "secret" not in caplog.text
    Board().get("/events/a", **{"Sec-Fetch-Site": "cross-site"})
    assert "a page of another site has opened this" in caplog.text, "no origin was sent"
