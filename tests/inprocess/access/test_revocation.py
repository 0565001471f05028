"""Revocation in one process: whom ``disconnect`` and ``recheck`` end, and what may still reach them."""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Response, abort, current_app, g, request, session

from flask_sse_emitters import SSE, CloseReason, NotInitialized, SseEmitter, SseEmitters
from flask_sse_emitters.access import Grant
from flask_sse_emitters.testing import decode, open_stream
from tests.support.board import Board, by_header, levels
from tests.support.waiting import PATIENCE, until
from tests.support.watched import watching


@pytest.mark.parametrize(
    ("identity", "channel", "ended"),
    [("ann", None, "12"), (None, "a", "23"), ("ann", "a", "2")],
    ids=["by identity", "by channel", "by both"],
)
def test_disconnect_ends_only_the_streams_it_means(identity: str | None, channel: str | None, ended: str) -> None:
    board = Board(by_header)
    with (
        watching(board, "b", user="ann") as one,
        watching(board, "b", "a", user="ann") as two,
        watching(board, "a", user="bob") as three,
    ):
        board.sse.disconnect(identity, channel=channel)
        for name in "ab":
            board.publish(name, "late")
        for number, watched in zip("123", (one, two, three), strict=True):
            assert watched.is_open == (number not in ended)
            assert ("late" in watched.read()) == (number not in ended)
            assert watched.emitter.close_reason in (None, CloseReason.COMPLETED)
    assert board.clients == 0


def test_disconnect_by_channel_ends_public_streams_and_no_list() -> None:
    board, emitters = Board(None), SseEmitters()
    board.sse.channel("a", public=True)
    board.app.add_url_rule("/mine", view_func=lambda: emitters.add(SseEmitter()))
    with open_stream(board.client, "/mine"), watching(board, "a") as public:
        board.sse.disconnect("ann")
        assert public.is_open, "it has no identity"
        board.sse.disconnect(channel="a")
        assert (board.emitters[0].is_open, public.is_open) == (True, False)


def test_disconnect_without_an_app_or_arguments_is_an_error() -> None:
    with pytest.raises(NotInitialized):
        SSE().disconnect("ann")
    with pytest.raises(TypeError, match="an identity, a channel, or both"):
        Board(None).sse.disconnect()


def test_authorizer_can_disconnect_the_readers_other_streams() -> None:
    board = Board(None)

    @board.sse.authorizer
    def may_read(_channel: str) -> str:
        board.sse.disconnect("ann")
        return "ann"

    with board.open("a"), board.open("a"):
        assert [emitter.is_open for emitter in board.emitters] == [False, True]


@pytest.mark.parametrize(("identity", "channel"), [("ann", None), (None, "a")], ids=["by identity", "by channel"])
def test_revocation_while_rule_runs_denies_stream(identity: str | None, channel: str | None) -> None:
    asked, goes_on = threading.Event(), threading.Event()

    def slow_rule(_channel: str) -> str:
        asked.set()
        assert goes_on.wait(PATIENCE)
        return "ann"

    board, answers = Board(slow_rule), list[bytes]()
    thread = threading.Thread(target=lambda: answers.append(board.get("/events/a").data), daemon=True)
    thread.start()
    assert asked.wait(PATIENCE)
    board.sse.disconnect(identity, channel=channel)
    goes_on.set()
    thread.join(PATIENCE)
    board.publish("a", "secret")
    [answer] = answers
    assert b"secret" not in answer
    assert board.clients == 0


def test_revocation_discards_pending_and_replayed_events() -> None:
    board = Board(by_header, SSE_MAX_PENDING_BYTES=10**8)
    [first, *_] = board.publish("a", "x", *("x" * 10_000 for _ in range(50)))
    with board.open("a", user="ann", last=first) as replayed, board.open("a", user="ann") as behind:
        pieces = replayed.response.iter_encoded()
        next(pieces)
        next(behind.response.iter_encoded())
        board.publish("a", "pending")
        board.sse.disconnect("ann")
        rest = b"".join(pieces)
        assert len(rest) <= 70_000, "little more than one write takes"
        assert b"pending" not in rest
        assert b"pending" not in b"".join(behind.response.iter_encoded())


@pytest.mark.parametrize("channel", [None, "a"])
def test_revocation_of_completed_stream_discards_pending_events(channel: str | None) -> None:
    board = Board(None)
    with board.app.test_request_context():
        emitter = board.sse.channel("a").subscribe(identity="ann")
        emitter.send("secret")
        emitter.complete()
        with emitter.response() as response:
            board.sse.disconnect("ann", channel=channel)
            assert b"secret" not in b"".join(response.iter_encoded())


@pytest.mark.parametrize("drains", [False, True])
def test_event_cut_by_revocation_is_not_decoded_as_complete(drains: bool) -> None:
    board = Board(by_header, SSE_MAX_PENDING_BYTES=10**8)
    with ThreadPoolExecutor() as pool, board.open("a", user="ann") as stream:
        pieces = stream.response.iter_encoded()
        read = next(pieces)
        board.publish("a", "x" * 500_000)
        while b"data: x" not in read:
            read += next(pieces)
        if drains:
            pool.submit(board.sse.shutdown)
            until(lambda: not board.emitters[0].is_open, "its end")
        board.sse.disconnect("ann")
        read += b"".join(pieces)
    assert len(read) < 500_000
    assert decode(read) == []


def test_recheck_runs_rule_with_request_of_the_stream() -> None:
    board = Board(None)
    asked: list[tuple[Any, ...]] = []

    @board.app.before_request
    def load() -> None:
        g.user = session.get("user")

    @board.app.post("/recheck")
    def recheck() -> str:
        board.sse.recheck("ann")
        return ""

    @board.sse.authorizer
    def may_read(channel: str) -> str:
        asked.append(
            (g.user, session["user"], request.path, request.args["x"], request.headers["Tenant"], request.remote_addr)
        )
        assert current_app.name == board.app.name
        return str(g.user)

    admin = board.app.test_client()
    for client, user in ((board.client, "ann"), (admin, "admin")):
        with client.session_transaction() as mine:
            mine["user"] = user
    headers = {"Tenant": "acmé".encode().decode("latin-1")}
    overrides = {"REMOTE_ADDR": "192.0.2.7"}
    with open_stream(board.client, "/events/a?x=1", headers=headers, environ_overrides=overrides):
        admin.post("/recheck")
        until(lambda: len(asked) == 2, "the rule to run again")
        assert asked[0] == asked[1]
        assert board.emitters[0].is_open


@pytest.mark.parametrize(
    "change",
    [
        *("the rule raises", "the rule aborts", "another identity", "no identity"),
        *("before_request answers", "before_request aborts"),
    ],
)
def test_recheck_denial_ends_stream(change: str, caplog: pytest.LogCaptureFixture) -> None:
    board = Board(None)
    happened = ["nothing"]

    @board.app.before_request
    def before() -> Any:
        if happened == ["before_request aborts"]:
            abort(401)
        return Response("log in first", 302) if happened == ["before_request answers"] else None

    @board.sse.authorizer
    def may_read(channel: str) -> bool | str:
        if happened == ["the rule raises"]:
            raise RuntimeError
        if happened == ["the rule aborts"]:
            abort(403)
        answers: dict[str, bool | str] = {"no identity": True, "another identity": "bob"}
        return answers.get(happened[0], "ann")

    with watching(board, "a", user="ann") as ann:
        happened[:] = [change]
        board.sse.recheck("ann")
        ann.await_end()
    assert levels(caplog) == (["ERROR"] if change == "the rule raises" else [])


def test_recheck_with_shorter_grant_ends_stream_sooner() -> None:
    seconds = [3600.0]
    board = Board(lambda _: Grant("ann", seconds=seconds[0]))
    with watching(board, "a") as ann:
        seconds[0] = 0.05
        board.sse.recheck("ann")
        until(lambda: not ann.is_open, "its end")
        assert ann.emitter.close_reason is CloseReason.TIMEOUT


def test_recheck_ends_streams_without_a_kept_request() -> None:
    board = Board(by_header)

    @board.app.get("/mine")
    def mine() -> SseEmitter:
        return board.sse.channel("a").subscribe(identity="ann")

    huge = {"User": "ann", "Huge": secrets.token_urlsafe(4096)}  # too large for a copy to be kept
    with (
        open_stream(board.client, "/mine"),
        open_stream(board.client, "/events/a", headers=huge),
        watching(board, "a", user="ann"),
    ):
        board.sse.recheck("ann")
        until(lambda: not any(emitter.is_open for emitter in board.emitters[:2]), "their ends")
        assert board.emitters[2].is_open


def test_blocked_recheck_delays_no_event_disconnect_or_callback() -> None:
    goes_on = threading.Event()
    blocks = threading.Event()

    def rule(channel: str) -> str:
        if blocks.is_set():
            assert goes_on.wait(PATIENCE)
        return by_header(channel)

    board = Board(rule)
    with ExitStack() as stack:
        streams = [stack.enter_context(watching(board, "a", user="ann")) for _ in range(20)]
        bob = stack.enter_context(watching(board, "a", user="bob"))
        ended = threading.Event()
        bob.emitter.on_completion(ended.set)
        blocks.set()
        for _ in range(20):  # more than there are threads for it
            board.sse.recheck("ann")
        board.sse.publish("a", "x")
        bob.await_text("x")
        board.sse.disconnect("bob")
        assert ended.wait(PATIENCE), "callbacks have a pool of their own"
        goes_on.set()
        blocks.clear()
        assert all(watched.is_open for watched in streams)
