"""Limits of open streams: of a process, of each reader, of each address; what clients beyond them get."""

from __future__ import annotations

import re
import resource
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Response
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_sse_emitters import CloseReason, SseEmitter, SseEmitters, TooManyClients
from flask_sse_emitters.testing import open_stream
from tests.support.board import Board, by_header, levels, texts
from tests.support.waiting import until


def is_admitted(board: Board, **options: Any) -> bool:
    """Whether another client gets a stream, which it closes at once."""
    opened = len(board.emitters)
    with board.open("a", **options):
        return len(board.emitters) > opened


@pytest.mark.parametrize(
    ("limit", "owner"),
    [
        ("SSE_MAX_CLIENTS", ""),
        ("SSE_MAX_CLIENTS_PER_IDENTITY", " of the identity 'ann'"),
        ("SSE_MAX_CLIENTS_PER_ADDRESS", " of the address 127.0.0.1"),
        ("max_clients", " of the channel 'a'"),
    ],
)
def test_max_clients_ends_further_streams_with_a_random_retry(
    limit: str, owner: str, emitters: SseEmitters, caplog: pytest.LogCaptureFixture
) -> None:
    config: dict[str, Any] = {limit: 2} if limit.isupper() else {}
    board = Board(by_header, **config)
    board.sse.channel("a", max_clients=None if config else 2)
    made: list[SseEmitter] = []
    ends: list[BaseException] = []

    @board.app.get("/mine")
    def mine() -> SseEmitter:
        made.append(emitters.add(board.sse.channel("a").subscribe(identity="ann")))
        made[-1].send("connected!")
        made[-1].on_error(ends.append)
        return made[-1]

    with open_stream(board.client, "/mine"), board.open("a", "b", user="ann"):
        answers = [board.get(path, User="ann") for path in ("/mine", "/events/a") * 10]
        assert (len(emitters), board.sse.channel("a").subscribers()) == (1, 2)
        stats = board.sse.stats()
        assert (stats["clients"], stats["opened"], stats["refused_by"]) == (2, 2, {limit: 20})
    assert {answer.status_code for answer in answers} == {200}, "an error would stop an EventSource for good"
    assert {answer.content_type for answer in answers} == {"text/event-stream"}
    found = [re.fullmatch(r"retry: (\d+)\n\nid: \S+-0\n\n", answer.text) for answer in answers]
    retries = [int(match[1]) for match in found if match is not None]
    assert len(retries) == 20, "no event that its view sent; but its position, so that no later one is lost"
    assert all(1500 <= retry <= 6000 for retry in retries)
    assert len(set(retries)) > 5
    assert {emitter.close_reason for emitter in made[1:]} == {CloseReason.ERROR}
    until(lambda: len(ends) == 11, "the callbacks")
    errors = [str(error) for error in ends if isinstance(error, TooManyClients)]
    assert len(errors) == 10
    assert all(f"{limit}=2" in error and owner in error for error in errors)
    assert levels(caplog) == ["WARNING"]
    assert f"{limit}=2" in caplog.text
    assert board.clients == 0
    with open_stream(board.client, "/mine") as stream:
        assert texts(stream.ready()) == ["connected!"]


def test_max_clients_is_lower_where_few_files_can_be_opened(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (66, 4096))
    board = Board()
    with board.open("a"), board.open("a"):
        answer = board.get("/events/a")
        stats = board.sse.stats()
    assert (answer.status_code, answer.text.partition(" ")[0]) == (200, "retry:")
    assert (stats["max_clients"], stats["clients"], stats["refused_by"]) == (2, 2, {"RLIMIT_NOFILE": 1})
    assert "than RLIMIT_NOFILE=66 (less 64 for other files)" in caplog.text


def test_max_clients_per_identity_leaves_room_for_others() -> None:
    board = Board(by_header, SSE_MAX_CLIENTS_PER_IDENTITY=1)
    board.sse.channel("news", public=True)
    with board.open("a", user="ann"):
        assert [is_admitted(board, user=user) for user in ("ann", "bob")] == [False, True]
        with board.open("news", user="ann"):
            assert board.emitters[-1].is_open, "a public channel knows no identity"


def test_max_clients_per_address_leaves_room_for_other_addresses() -> None:
    board = Board(SSE_MAX_CLIENTS=10, SSE_MAX_CLIENTS_PER_ADDRESS=4)
    with ExitStack() as stack:

        def connect(address: str) -> bool:
            opened = len(board.emitters)
            stack.enter_context(board.open("a", environ_overrides={"REMOTE_ADDR": address}))
            return len(board.emitters) > opened

        assert [connect("192.0.2.1") for _ in range(50)].count(True) == 4
        assert connect("192.0.2.2")
        assert not connect("::ffff:192.0.2.1"), "the same address, as an IPv6 socket shows it"
        assert [connect(f"2001:db8::{number:x}") for number in range(10)].count(True) == 4, (
            "a customer has all of a /64"
        )
        assert connect("2001:db8:0:1::1")
        assert board.clients == 10
    assert board.clients == 0
    assert is_admitted(board, environ_overrides={"REMOTE_ADDR": "192.0.2.1"})


def test_max_clients_per_address_counts_the_address_from_proxy_fix() -> None:
    board = Board(SSE_MAX_CLIENTS_PER_ADDRESS=1)
    with ExitStack() as stack:

        def is_refused(forwarded: str, header: str = "X-Forwarded-For") -> bool:
            response = stack.enter_context(board.get("/events/a", **{header: forwarded}))
            return b"stream open" not in next(response.iter_encoded())

        assert not is_refused("192.0.2.1")
        for header in (
            "X-Forwarded-For",
            "X-Real-IP",
            "X-Client-IP",
            "True-Client-IP",
            "CF-Connecting-IP",
            "Remote-Addr",
        ):
            assert is_refused("192.0.2.2", header), "any client can send that header"
        assert is_refused("for=192.0.2.2", "Forwarded")
        board.app.wsgi_app = ProxyFix(board.app.wsgi_app)  # type: ignore[method-assign]
        assert [is_refused("192.0.2.3"), is_refused("192.0.2.4"), is_refused("192.0.2.4")] == [False, False, True]
        assert is_refused("192.0.2.9, 192.0.2.3"), "only what the proxy has added counts"


def test_max_clients_per_address_without_an_address_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    board = Board(SSE_MAX_CLIENTS_PER_ADDRESS=1)
    assert all(is_admitted(board, environ_overrides={"REMOTE_ADDR": ""}) for _ in range(2))
    assert levels(caplog) == ["WARNING"]
    assert "ProxyFix" in caplog.text
    assert board.sse.stats()["warnings"] == caplog.messages


@pytest.mark.parametrize("ends", ["HEAD", "a view that fails", "after_request", "completed and after_request", "never"])
def test_limits_do_not_count_clients_that_never_got_a_stream(ends: str) -> None:
    board = Board(by_header, SSE_MAX_CLIENTS_PER_IDENTITY=1, SSE_MAX_CLIENTS_PER_ADDRESS=1, SSE_ATTACH_SECONDS=0.05)
    requests = iter([True])

    @board.app.get("/mine")
    def mine() -> Any:
        emitter = board.sse.channel("a").subscribe(identity="ann")
        if "completed" in ends:
            emitter.complete()
        if ends == "a view that fails":
            raise RuntimeError("the view failed")
        return "" if ends == "never" else emitter

    @board.app.after_request
    def after(response: Response) -> Response:
        if "after_request" in ends and next(requests, False):
            raise RuntimeError("after_request failed")
        return response

    board.client.open("/mine", method="HEAD" if ends == "HEAD" else "GET").close()
    until(lambda: is_admitted(board, user="ann"), "room for a client")
    assert board.clients == 0
