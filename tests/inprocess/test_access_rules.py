"""Access to channels: the rule of ``authorizer``, what it may return and read, and public channels."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask import abort, g, request, session

from flask_sse_emitters import SSE, AccessDenied, CloseReason, SseEmitter
from flask_sse_emitters.access import Grant
from flask_sse_emitters.testing import open_stream
from tests.support.board import Board, by_header, levels, texts


def test_public_channel_is_readable_without_a_call_of_the_rule() -> None:
    calls: list[str] = []
    board = Board(None)
    board.sse.authorizer(calls.append)
    board.sse.channel("news", public=True)
    with board.open("news") as stream:
        board.publish("news", "x")
        assert texts(stream.ready()) == ["x"]
    assert calls == []


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


@pytest.mark.parametrize("result", [False, None, "", Grant(seconds=0), Grant("ann", seconds=-5)])
def test_authorizer_result_that_denies_is_a_403_without_a_log(result: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert Board(lambda _: result).get("/events/a").status_code == 403
    assert levels(caplog) == []


@pytest.mark.parametrize("result", [7, 1, [], ["ann"], b"ann", "x" * 501, "\ud800", object()])
def test_authorizer_result_that_is_invalid_denies_and_is_logged(result: Any, caplog: pytest.LogCaptureFixture) -> None:
    board = Board(lambda _: result)
    assert (board.get("/events/a").status_code, levels(caplog)) == (403, ["ERROR"])
    assert "the authorizer failed for channel 'a': access denied" in caplog.text
    assert board.clients == 0


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyError("user"), TypeError()], ids=repr)
def test_authorizer_that_raises_denies_and_is_logged(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def may_read(_channel: str) -> bool:
        raise error

    answer = Board(may_read).get("/events/a")
    assert (answer.status_code, answer.text, levels(caplog)) == (403, "Forbidden\n", ["ERROR"])
    assert caplog.records[0].exc_info


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_authorizer_that_aborts_denies(status: int, caplog: pytest.LogCaptureFixture) -> None:
    answer = Board(lambda _: abort(status)).get("/events/a")
    assert (answer.status_code, answer.text, levels(caplog)) == (403, "Forbidden\n", [])


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


def test_authorizer_and_publisher_take_one_function_each() -> None:
    sse = SSE()
    assert sse.authorizer(by_header) is by_header
    assert sse.authorizer(by_header) is by_header, "registering it twice is harmless"
    with pytest.raises(RuntimeError, match="has an authorizer already"):
        sse.authorizer(lambda _: True)
    with pytest.raises(TypeError, match="takes a function"):
        SSE().authorizer("news")  # type: ignore[type-var]

    async def waits(_channel: str) -> bool:
        return True

    with pytest.raises(TypeError, match="none that is async"):
        SSE().publisher(waits)  # type: ignore[type-var]
    assert sse.publisher(by_header) is by_header
    with pytest.raises(RuntimeError, match="has a publisher already"):
        sse.publisher(cookies=True)(lambda _: True)


@pytest.mark.parametrize("public", ["false", 1, None, "yes"])
def test_channel_public_that_is_no_bool_is_rejected(public: Any) -> None:
    with pytest.raises(TypeError, match="public is True or False"):
        SSE().channel("news", public=public)


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
        return board.sse.channel("a").subscribe(identity=request.headers["User"])

    assert board.get("/mine").status_code == 401
    with open_stream(board.client, "/mine", headers={"User": "ann"}) as stream:
        board.publish("a", "x")
        assert texts(stream.ready()) == ["x"]
        board.sse.disconnect("ann")
        assert board.emitters[0].close_reason is CloseReason.COMPLETED
