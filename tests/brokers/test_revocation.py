"""Revocation over Redis: it ends a reader's streams in every process, before any later event, also after an outage."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pytest
from werkzeug.local import LocalProxy

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.brokers import Bounds, make_broker
from flask_sse_emitters.testing import published
from tests.support.board import Board, by_header, levels
from tests.support.broker_calls import frame
from tests.support.redis_clients import client_of
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, until
from tests.support.watched import settle, watching
from tests.support.wire import Wire

pytestmark = pytest.mark.xdist_group("revocation")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def prefix() -> str:
    """What the keys of this test begin with, apart from those of other tests."""
    return uuid4().hex


MakeBoard = Callable[..., Board]


@pytest.fixture
def make_board(server: RedisServer, prefix: str) -> Iterator[MakeBoard]:
    """Make a board as each process of an app has one: all of a test share its channels. Close them at the end."""
    with ExitStack() as stack:

        def make_board(rule: Any = by_header, *, port: int = server.port, **config: Any) -> Board:
            url = f"redis://127.0.0.1:{port}"
            board = Board(rule, SSE_BROKER_URL=url, SSE_BROKER_PREFIX=prefix, **config)
            stack.callback(board.sse.close)
            return board

        yield make_board


@pytest.fixture
def boards(make_board: MakeBoard) -> tuple[Board, Board]:
    """The board that revokes, and the board with the streams."""
    return make_board(), make_board()


@pytest.fixture
def cut_off(server: RedisServer, make_board: MakeBoard) -> Iterator[tuple[Board, Board, Wire]]:
    """The board that revokes, and the board with the streams on a connection that a test cuts."""
    with Wire(server.port) as wire, ExitStack() as stack:
        there = make_board(port=wire.port)
        stack.callback(there.sse.close)
        yield make_board(), there, wire
        wire.is_closed = False


def away(board: Board, wire: Wire) -> None:
    wire.is_closed = True
    wire.cut()
    until(lambda: board.sse.stats()["broker"]["state"] == "degraded", "the outage to be noticed")


# Which streams end.


@pytest.mark.parametrize(
    ("identity", "channel", "ended"),
    [(LocalProxy(lambda: "ann"), None, "12"), (None, "a", "23"), ("ann", "a", "2")],
    ids=["by identity", "by channel", "by both"],
)
def test_disconnect_elsewhere_ends_only_the_streams_it_means(
    identity: str | None, channel: str | None, ended: str, boards: tuple[Board, Board]
) -> None:
    here, there = boards
    with (
        watching(there, "b", user="ann") as one,
        watching(there, "b", "a", user="ann") as two,
        watching(there, "a", user="bob") as three,
    ):
        settle(here, two, three)
        settle(here, one, channel="b")
        here.sse.disconnect(identity, channel=channel)
        for name in "ab":
            here.sse.publish(name, "late")
        for number, watched in zip("123", (one, two, three), strict=True):
            if number in ended:
                assert "late" not in watched.await_end()
            else:
                watched.await_text("late")
    assert there.clients == 0


@pytest.mark.parametrize("looks_up", [False, True], ids=["announced", "looked up"])
def test_event_published_right_after_revocation_is_not_delivered(looks_up: bool, boards: tuple[Board, Board]) -> None:
    """A lookup reads the current state of Redis, while the announcement of the revocation may still be on its way."""
    here, there = boards
    stop = threading.Event()

    def look_up() -> None:
        while looks_up and not stop.is_set():
            with published(there.sse, "a"):
                pass  # at its end it looks the channel up

    thread = threading.Thread(target=look_up)
    thread.start()
    try:
        for number in range(20):
            with watching(there, "a", user="ann") as ann, watching(there, "a", user="bob") as bob:
                settle(here, ann, bob)
                here.sse.disconnect("ann")
                for _ in range(3):
                    here.sse.publish("a", f"late {number}")
                assert f"late {number}" not in ann.await_end()
                bob.await_text(f"late {number}")
    finally:
        stop.set()
        thread.join(PATIENCE)


def test_revocation_elsewhere_while_rule_runs_denies_stream(make_board: MakeBoard) -> None:
    asked, goes_on = threading.Event(), threading.Event()

    def slow_rule(channel: str) -> str:
        user = by_header(channel)
        if user == "ann":
            asked.set()
            assert goes_on.wait(PATIENCE)
        return user

    here, there = make_board(), make_board(slow_rule)
    answers: list[bytes] = []
    thread = threading.Thread(target=lambda: answers.append(there.get("/events/a", User="ann").data), daemon=True)
    thread.start()
    assert asked.wait(PATIENCE)
    here.sse.disconnect("ann")
    with watching(there, "b", user="bob") as bob:  # another reader, to see when everything has arrived
        settle(here, bob, channel="b")
        goes_on.set()
        thread.join(PATIENCE)
        here.sse.publish("a", "secret")
    [answer] = answers
    assert b"secret" not in answer
    assert there.clients == 0


def test_recheck_ends_only_streams_that_rule_now_denies(make_board: MakeBoard) -> None:
    allowed = {("ann", "a"), ("ann", "b"), ("bob", "a")}

    def rule(channel: str) -> str:
        user = by_header(channel)
        return user if (user, channel) in allowed else ""

    here, there = make_board(), make_board(rule)
    with (
        watching(there, "a", user="ann") as one,
        watching(there, "b", user="ann") as two,
        watching(there, "a", user="bob") as bob,
    ):
        settle(here, one, bob)
        allowed -= {("ann", "a"), ("bob", "a")}
        here.sse.recheck("ann")
        assert one.await_end() == ["begin"]
        settle(here, two, channel="b")
        here.sse.publish("a", "more")
        bob.await_text("more")
        assert (two.is_open, bob.is_open) == (True, True)


# What travels between the processes.


MALFORMED: list[Any] = [
    *(["other", *rest] for rest in ([["ann"], None, False], [None, {"a": 1}, False], [None, None, True])),
    *(["other", *rest] for rest in ([7, None, False], ["ann", None])),
    *(7, "x", [1], ["p", None, None], {}, None),
]


def test_malformed_revocation_is_ignored_and_next_one_applies(
    server: RedisServer, prefix: str, make_board: MakeBoard, caplog: pytest.LogCaptureFixture
) -> None:
    board = make_board()
    board.sse.channel("open", public=True)
    broker = make_broker(server.url, prefix=prefix)
    with watching(board, "a", user="ann") as ann, watching(board, "open") as anybody:
        settle(board, ann)
        settle(board, anybody, channel="open")
        for text in ("junk", *map(json.dumps, MALFORMED)):
            broker.publish("!revoked", frame(text), Bounds(10, 60))
        until(lambda: len(caplog.messages) == 1 + len(MALFORMED), "the warnings")
        assert ann.is_open
        broker.publish("!revoked", frame(json.dumps(["other", "ann", None, False])), Bounds(10, 60))
        ann.await_end()
        assert anybody.is_open
    broker.close()
    assert set(levels(caplog)) == {"WARNING"}
    assert all("did not publish" in message for message in caplog.messages)


def test_process_without_streams_does_not_subscribe_to_revocations(server: RedisServer, make_board: MakeBoard) -> None:
    board = make_board()
    board.sse.publish("a", "x")
    board.sse.disconnect("ann")
    board.sse.channel("a").subscribers()
    assert client_of(server).pubsub_channels("*revoked*") == []


def test_older_revocations_do_not_end_new_streams_of_new_listener(boards: tuple[Board, Board]) -> None:
    here, there = boards
    for number in range(5):
        here.sse.disconnect(f"other {number}")
    with watching(there, "a", user="ann") as ann:
        settle(here, ann)
        assert ann.is_open


# Redis that is away, or has lost revocations.


def test_missed_revocation_applies_before_missed_events_after_outage(cut_off: tuple[Board, Board, Wire]) -> None:
    """However many there are: revocations are looked up in pages, and so are the events of other channels."""
    here, there, wire = cut_off
    with ExitStack() as stack:
        channels = [f"a{number}" for number in range(30)]
        streams = [stack.enter_context(watching(there, channel, user="ann")) for channel in channels]
        bob = stack.enter_context(watching(there, "a0", user="bob"))
        for channel, watched in zip(channels, streams, strict=True):
            settle(here, watched, channel=channel)
        away(there, wire)
        for number in range(50):
            here.sse.disconnect(f"other {number}")
        here.sse.disconnect("ann")
        for channel in channels:
            here.sse.publish(channel, "late")
        wire.is_closed = False
        bob.await_text("late")
        assert [watched.await_end() for watched in streams] == [["begin"]] * len(streams)
        assert bob.is_open


def test_no_event_is_delivered_while_revocations_lag(
    server: RedisServer, prefix: str, boards: tuple[Board, Board]
) -> None:
    """As if Redis had evicted them: it then numbers them from 1 again, which only the next one shows."""
    here, there = boards
    for number in range(10):
        with watching(there, "a", user="ann") as ann, watching(there, "a", user="bob") as bob:
            settle(here, ann, bob)
            here.sse.disconnect("other")
            client_of(server).delete(f"{prefix}:{{!revoked}}:at", f"{prefix}:{{!revoked}}:log")
            here.sse.disconnect("ann")
            here.sse.publish("a", f"late {number}")
            assert f"late {number}" not in ann.await_end()
            bob.await_end()  # which others were lost is unknown


def test_no_event_is_delivered_while_revocations_cannot_be_read(
    server: RedisServer, prefix: str, cut_off: tuple[Board, Board, Wire]
) -> None:
    here, there, wire = cut_off
    revocations = f"{prefix}:{{!revoked}}:log"
    with watching(there, "a", user="ann") as ann, watching(there, "a", user="bob") as bob:
        settle(here, ann, bob)
        away(there, wire)
        here.sse.disconnect("ann")
        client_of(server).xadd(revocations, {"junk": "x"}, id="2-0")
        here.sse.publish("a", "late")
        wire.is_closed = False
        until(lambda: there.sse.stats()["broker"].get("error", "").startswith("reading:"), "it to fail")
        assert (ann.read(), bob.read()) == (["begin"], ["begin"])
        client_of(server).xdel(revocations, "2-0")
        bob.await_text("late")
        assert ann.await_end() == ["begin"]


def test_dropped_revocations_make_all_clients_reconnect(
    server: RedisServer, prefix: str, cut_off: tuple[Board, Board, Wire]
) -> None:
    here, there, wire = cut_off
    with watching(there, "a", user="ann") as ann, watching(there, "a", user="bob") as bob:
        settle(here, ann, bob)
        away(there, wire)
        here.sse.disconnect("ann")
        for number in range(5):
            here.sse.disconnect(f"other {number}")
        client_of(server).xtrim(f"{prefix}:{{!revoked}}:log", maxlen=3, approximate=False)
        here.sse.publish("a", "late")
        wire.is_closed = False
        assert ann.await_end() == ["begin"]
        assert bob.await_end() == ["begin"], "which revocation was dropped is unknown"


def test_revocation_without_redis_applies_here_and_raises() -> None:
    with RedisServer() as server:
        board = Board(by_header, SSE_BROKER_URL=server.url, SSE_PUBLISH_SECONDS=0.5)
        with watching(board, "a", user="ann") as ann:
            settle(board, ann)
            server.kill()
            for revoke in (board.sse.disconnect, board.sse.recheck):
                with pytest.raises(BrokerUnavailable, match=r"this process has done it.*call it again"):
                    revoke("ann")
            assert not ann.is_open, "this process has applied it"
        board.sse.close()
