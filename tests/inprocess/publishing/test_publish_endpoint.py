"""Publishing over HTTP: what the endpoint takes from whom, and what it answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from flask import request, session

from flask_sse_emitters import BrokerUnavailable, Event
from flask_sse_emitters.access import Grant, Rule
from flask_sse_emitters.testing import published
from tests.apps.own_broker import OwnBroker
from tests.support.board import Board, by_header

FOREIGN = "https://evil.example"


@pytest.fixture
def press() -> Board:
    """A board where a client with the token may publish to channels that begin with "open"."""
    board = Board()

    @board.sse.publisher
    def may_publish(channel: str) -> bool:
        return channel.startswith("open") and request.headers.get("Authorization") == "Bearer t"

    return board


def send(board: Board, path: str = "/events/open", headers: dict[str, str] | None = None, **options: Any) -> Any:
    return board.client.post(path, headers={"Authorization": "Bearer t", **(headers or {})}, **options)


def text(body: bytes, query: str = "") -> dict[str, Any]:
    return {"data": body, "content_type": "text/plain", "query_string": query}


@pytest.mark.parametrize(
    ("options", "event"),
    [
        ({"json": {"a": 1}}, Event('{"a": 1}')),
        ({"json": "text"}, Event("text")),
        ({"json": 0}, Event("0")),
        ({"data": b"null", "content_type": "application/json"}, Event("null")),
        ({"data": "안녕\nworld".encode(), "content_type": "text/plain"}, Event("안녕\nworld")),
        ({"data": b"", "content_type": "text/plain; charset=UTF-8"}, Event("")),
        ({"json": 1, "query_string": {"event": "created"}}, Event("1", event="created")),
        # Nothing that is sent ends the event, or becomes a field of it.
        (text(b"a\r\n\r\nevent: injected\ndata: injected\n\n"), Event("a\n\nevent: injected\ndata: injected\n\n")),
        (text(b"a\r\rid: injected\rretry: 1\r\r"), Event("a\n\nid: injected\nretry: 1\n\n")),
        (text(b"a\n\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), Event("a\n\n0\n\nHTTP/1.1 200 OK\n\n")),
        ({"json": "a\n\ndata: injected"}, Event("a\n\ndata: injected")),
        ({"json": {"event": "x", "id": "x"}}, Event('{"event": "x", "id": "x"}')),
        (text(b"a", "id=injected%0d%0adata:%20injected"), Event("a")),
        (text(b"a", "key=k%0d%0aX-Injected:%201%0d%0a%0d%0ainjected"), Event("a")),
        (
            text("a\u2028\u0085b".encode(), "event=a%E2%80%A8data:%20x%C2%85"),
            Event("a\u2028\u0085b", event="a\u2028data: x\u0085"),
        ),
    ],
)
def test_publish_endpoint_publishes_json_and_text(press: Board, options: dict[str, Any], event: Event) -> None:
    with press.open("open") as stream:
        answer = send(press, **options)
        events = stream.ready()
    assert answer.status_code == 201
    assert events == [Event(event.data, event=event.event, id=answer.json["id"])]
    assert re.fullmatch(r"[A-Za-z0-9]+-1", answer.json["id"])
    assert not [value for value in answer.headers.values() if "njected" in value]


def test_publish_endpoint_key_is_apart_from_the_apps_keys(press: Board) -> None:
    """And what is sent with it again is published once."""
    with published(press.sse, "open") as events:
        theirs = send(press, json="theirs", query_string={"key": "paid-8"}).json["id"]
        assert press.sse.publish("open", "the app's", key="paid-8") != theirs
        assert send(press, json="theirs", query_string={"key": "paid-8"}).json["id"] == theirs
        assert send(press, json="other", query_string={"key": "paid-9"}).json["id"] != theirs
    assert [event.data for event in events] == ["theirs", "the app's", "other"]


@pytest.mark.parametrize("rule", [by_header, lambda _: Grant(request.headers["User"])], ids=["str", "Grant"])
def test_publish_endpoint_key_belongs_to_the_publishing_identity(rule: Rule) -> None:
    board = Board()
    board.sse.publisher(rule)
    with published(board.sse, "a") as events:
        for user in ("one", "two", "one", "two"):
            answer = board.client.post("/events/a?key=1", json=user, headers={"User": user})
            assert answer.status_code == 201
    assert [event.data for event in events] == ["one", "two"]


@pytest.mark.parametrize(
    ("options", "answered"),
    [
        ({"json": 1, "path": "/events/closed"}, 403),
        ({"json": 1, "headers": {"Authorization": "Bearer x"}}, 403),
        ({"json": 1, "headers": {"Origin": FOREIGN}}, 403),
        ({"json": 1, "path": "/events/a b"}, 400),
        ({"json": 1, "path": "/events/~"}, 400),
        ({"json": 1, "path": "/events/~ann"}, 400),
        ({"json": 1, "path": "/events/!revoked"}, 400),
        ({"json": 1, "path": "/events"}, 405),
        ({"data": b"x"}, 415),
        ({"data": {"a": "b"}}, 415),
        ({"data": b"x", "content_type": "multipart/form-data; boundary=x"}, 415),
        ({"data": b"1", "content_type": "application/json-seq"}, 415),
        ({"data": "é".encode("latin-1"), "content_type": "text/plain; charset=latin-1"}, 415),
        ({"data": b"\xff", "content_type": "text/plain"}, 400),
        ({"data": b"{", "content_type": "application/json"}, "no JSON: Expecting"),
        ({"data": b"NaN", "content_type": "application/json"}, "NaN is no JSON"),
        ({"data": b"\xff", "content_type": "application/json"}, "not UTF-8: invalid start"),
        ({"data": b"", "content_type": "application/json"}, 400),
        ({"data": b'"\\ud800"', "content_type": "application/json"}, 400),
        ({"data": b"[1e999]", "content_type": "application/json"}, 400),
        pytest.param({"data": b"[" * 100_000, "content_type": "application/json"}, 400, id="deep"),
        pytest.param({"data": b"1" * 5000, "content_type": "application/json"}, 400, id="a long number"),
        ({"json": 1, "query_string": {"event": "a\nb"}}, 400),
        ({"json": 1, "query_string": {"event": "gap"}}, 400),
        ({"json": 1, "query_string": {"event": "open"}}, 400),
        ({"json": 1, "query_string": {"event": "error"}}, 400),
        ({"json": 1, "query_string": {"retry": "0"}}, 400),
        ({"json": 1, "query_string": {"retry": "3000"}}, 400),
        ({"json": 1, "query_string": {"retry": ""}}, 400),
        ({"json": 1, "query_string": {"key": ""}}, 400),
        ({"json": 1, "headers": {"Transfer-Encoding": "chunked"}}, 411),
        pytest.param({"data": b"x" * 1_048_577, "content_type": "text/plain"}, 413, id="too large"),
        pytest.param({"data": b"\n" * 1_000_000, "content_type": "text/plain"}, 400, id="too large once encoded"),
    ],
    ids=str,
)
def test_publish_endpoint_rejects_invalid_requests_without_publishing(
    press: Board, options: dict[str, Any], answered: int | str
) -> None:
    """With a status; or with 400 and a reason."""
    with published(press.sse, "open", "closed") as events:
        answer = send(press, **options)
    assert (answer.status_code, events) == (400 if isinstance(answered, str) else answered, [])
    assert isinstance(answered, int) or answered in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [(ValueError("the broker is odd"), 500, ""), (BrokerUnavailable("away"), 503, "with a key")],
    ids=["odd", "away"],
)
def test_publish_endpoint_broker_error_is_not_blamed_on_the_body(
    error: Exception, status: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise error

    monkeypatch.setattr(OwnBroker, "publish", fail)
    package = tmp_path / "own-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[flask_sse_emitters.brokers]\nown = tests.apps.own_broker:OwnBroker\n")
    monkeypatch.syspath_prepend(tmp_path)  # type: ignore[no-untyped-call, unused-ignore]
    board = Board(SSE_BROKER_URL="own://")
    board.sse.publisher(lambda _: True)
    answer = send(board, json=1)
    assert (answer.status_code, answer.headers.get("Retry-After")) == (status, "1" if status == 503 else None)
    assert says in answer.text
    assert not any(word in answer.text for word in ("Content-Type", "JSON"))


def test_publish_endpoint_with_a_cookie_alone_is_denied_unless_enabled() -> None:
    def logged_in_board(cookies: bool) -> Board:
        board = Board()
        board.sse.publisher(cookies=cookies)(lambda _: "user" in session)
        with board.client.session_transaction() as mine:
            mine["user"] = "ann"
        return board

    board = logged_in_board(cookies=False)
    assert board.client.post("/events/a", json=1).status_code == 403
    assert board.client.post("/events/a", json=1, headers={"Authorization": "Bearer x"}).status_code == 201
    board = logged_in_board(cookies=True)
    assert board.client.post("/events/a", json=1).status_code == 201
    assert board.client.post("/events/a", json=1, headers={"Origin": FOREIGN}).status_code == 403
    for value, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 201), ("none", 201)):
        assert board.client.post("/events/a", json=1, headers={"Sec-Fetch-Site": value}).status_code == status


def test_publish_endpoint_denies_foreign_pages_though_every_page_may_read() -> None:
    board = Board(SSE_CORS_ORIGINS="*")
    board.sse.publisher(lambda _: True)
    headers = {"Authorization": "Basic YTpi", "Origin": FOREIGN}
    options: dict[str, Any] = {"data": "x", "content_type": "text/plain", "headers": headers}
    assert board.client.post("/events/a", **options).status_code == 403
    headers["Origin"] = "http://localhost"
    assert board.client.post("/events/a", **options).status_code == 201


def test_publisher_rule_can_read_the_body() -> None:
    board = Board(None)
    board.sse.publisher(lambda _: request.get_json()["from"] == "ann")
    assert [board.client.post("/events/a", json={"from": user}).status_code for user in ("ann", "bob")] == [201, 403]


def test_publish_endpoint_respects_max_content_length() -> None:
    board = Board(None, MAX_CONTENT_LENGTH=10)
    board.sse.publisher(lambda _: True)
    assert board.client.post("/events/a", json="x" * 50).status_code == 413


def test_publish_endpoint_without_a_rule_is_a_405() -> None:
    board = Board()
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert board.client.open("/events/a", method=method, json=1).status_code == 405
    assert "POST" not in board.client.post("/events/a").headers["Allow"]
