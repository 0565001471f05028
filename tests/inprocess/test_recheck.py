"""Recheck: the rule is asked again with a copy of the stream's request, and what it denies ends."""

from __future__ import annotations

import secrets
import threading
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Response, abort, current_app, g, request, session

from flask_sse_emitters import CloseReason, SseEmitter
from flask_sse_emitters.access import Grant
from flask_sse_emitters.testing import open_stream
from tests.support.board import Board, by_header, levels
from tests.support.waiting import PATIENCE, until
from tests.support.watched import watching


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
        "the rule raises",
        "the rule aborts",
        "another identity",
        "no identity",
        "before_request answers",
        "before_request aborts",
    ],
)
def test_recheck_denial_ends_stream(change: str, caplog: pytest.LogCaptureFixture) -> None:
    board = Board(None)
    changed = threading.Event()

    @board.app.before_request
    def before() -> Any:
        if not changed.is_set() or "request" not in change:
            return None
        return abort(401) if "aborts" in change else Response("log in first", 302)

    @board.sse.authorizer
    def may_read(channel: str) -> bool | str:
        if changed.is_set() and "rule" in change:
            raise RuntimeError if "raises" in change else abort(403)
        if changed.is_set() and change == "another identity":
            return "bob"
        return True if changed.is_set() else "ann"

    with watching(board, "a", user="ann") as ann:
        changed.set()
        board.sse.recheck("ann")
        ann.await_end()
    assert levels(caplog) == (["ERROR"] if "raises" in change else [])


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
