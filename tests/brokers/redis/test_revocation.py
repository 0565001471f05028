"""Revocation over Redis: it ends a reader's streams in every process, before any later event, also after an outage."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from werkzeug.local import LocalProxy

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.brokers import Bounds, Broker
from flask_sse_emitters.testing import published
from tests.brokers.states import await_state, broker_state
from tests.support.board import Board, by_header, closing_board, levels
from tests.support.brokers.broker_calls import frame
from tests.support.brokers.redis_server import RedisServer
from tests.support.waiting import PATIENCE, until
from tests.support.watched import settle, watching
from tests.support.wire import Wire


@pytest.fixture
def here(server: RedisServer) -> Iterator[Board]:
    """The process that revokes."""
    with closing_board(server.url, rule=by_header) as board:
        yield board


@pytest.fixture
def there(wire: Wire) -> Iterator[Board]:
    """The process with the streams, on a connection that a test can cut."""
    with closing_board(wire.url, rule=by_header) as board:
        yield board


REVOCATIONS = "sse:{!revoked}:log"


def cut_off(board: Board, wire: Wire) -> None:
    wire.is_closed = True
    wire.cut()
    await_state(board, "degraded")


# Which streams end.


@pytest.mark.parametrize(
    ("identity", "channel", "ended"),
    [(LocalProxy(lambda: "ann"), None, "12"), (None, "a", "23"), ("ann", "a", "2")],
    ids=["by identity", "by channel", "by both"],
)
def test_disconnect_elsewhere_ends_only_the_streams_it_means(
    identity: str | None, channel: str | None, ended: str, here: Board, there: Board
) -> None:
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
def test_event_published_right_after_revocation_is_not_delivered(looks_up: bool, here: Board, there: Board) -> None:
    """A lookup reads the current state of Redis, while the announcement of the revocation may still be on its way."""
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


def test_revocation_elsewhere_while_rule_runs_denies_stream(server: RedisServer, here: Board) -> None:
    asked, goes_on = threading.Event(), threading.Event()

    def slow_rule(channel: str) -> str:
        user = by_header(channel)
        if user == "ann":
            asked.set()
            assert goes_on.wait(PATIENCE)
        return user

    answers: list[bytes] = []

    def ask() -> None:
        answers.append(process.get("/events/a", User="ann").data)

    with closing_board(server.url, rule=slow_rule) as process:
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        assert asked.wait(PATIENCE)
        here.sse.disconnect("ann")
        with watching(process, "b", user="bob") as bob:  # another reader, to see when everything has arrived
            settle(here, bob, channel="b")
            goes_on.set()
            thread.join(PATIENCE)
            here.sse.publish("a", "secret")
        [answer] = answers
        assert b"secret" not in answer
        assert process.clients == 0


def test_recheck_ends_only_streams_that_rule_now_denies(server: RedisServer, here: Board) -> None:
    allowed = {("ann", "a"), ("ann", "b"), ("bob", "a")}

    def rule(channel: str) -> str:
        user = by_header(channel)
        return user if (user, channel) in allowed else ""

    with (
        closing_board(server.url, rule=rule) as there,
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
    there: Board, new_broker: Callable[[], Broker], caplog: pytest.LogCaptureFixture
) -> None:
    there.sse.channel("open", public=True)
    broker = new_broker()
    with watching(there, "a", user="ann") as ann, watching(there, "open") as anybody:
        settle(there, ann)
        settle(there, anybody, channel="open")
        for text in ("junk", *map(json.dumps, MALFORMED)):
            broker.publish("!revoked", frame(text), Bounds(10, 60))
        until(lambda: len(caplog.messages) == 1 + len(MALFORMED), "the warnings")
        assert ann.is_open
        broker.publish("!revoked", frame(json.dumps(["other", "ann", None, False])), Bounds(10, 60))
        ann.await_end()
        assert anybody.is_open
    assert set(levels(caplog)) == {"WARNING"}
    assert all("did not publish" in message for message in caplog.messages)


def test_process_without_streams_does_not_subscribe_to_revocations(client: Any, here: Board) -> None:
    here.sse.publish("a", "x")
    here.sse.disconnect("ann")
    here.sse.channel("a").subscribers()
    assert client.pubsub_channels("*revoked*") == []


def test_older_revocations_do_not_end_new_streams_of_new_listener(here: Board, there: Board) -> None:
    for number in range(5):
        here.sse.disconnect(f"other {number}")
    with watching(there, "a", user="ann") as ann:
        settle(here, ann)
        assert ann.is_open


# Redis that is away, or has lost revocations.


def test_missed_revocation_applies_before_missed_events_after_outage(here: Board, there: Board, wire: Wire) -> None:
    """However many there are: revocations are looked up in pages, and so are the events of other channels."""
    with ExitStack() as stack:
        channels = [f"a{number}" for number in range(30)]
        streams = [stack.enter_context(watching(there, channel, user="ann")) for channel in channels]
        bob = stack.enter_context(watching(there, "a0", user="bob"))
        for channel, watched in zip(channels, streams, strict=True):
            settle(here, watched, channel=channel)
        cut_off(there, wire)
        for number in range(50):
            here.sse.disconnect(f"other {number}")
        here.sse.disconnect("ann")
        for channel in channels:
            here.sse.publish(channel, "late")
        wire.is_closed = False
        bob.await_text("late")
        assert [watched.await_end() for watched in streams] == [["begin"]] * len(streams)
        assert bob.is_open


def test_no_event_is_delivered_while_revocations_lag(client: Any, here: Board, there: Board) -> None:
    """As if Redis had evicted them: it then numbers them from 1 again, which only the next one shows."""
    for number in range(10):
        with watching(there, "a", user="ann") as ann, watching(there, "a", user="bob") as bob:
            settle(here, ann, bob)
            here.sse.disconnect("other")
            client.delete("sse:{!revoked}:at", REVOCATIONS)
            here.sse.disconnect("ann")
            here.sse.publish("a", f"late {number}")
            assert f"late {number}" not in ann.await_end()
            bob.await_end()  # which others were lost is unknown


def test_no_event_is_delivered_while_revocations_cannot_be_read(
    client: Any, here: Board, there: Board, wire: Wire
) -> None:
    with watching(there, "a", user="ann") as ann, watching(there, "a", user="bob") as bob:
        settle(here, ann, bob)
        cut_off(there, wire)
        here.sse.disconnect("ann")
        client.xadd(REVOCATIONS, {"junk": "x"}, id="2-0")
        here.sse.publish("a", "late")
        wire.is_closed = False
        until(lambda: broker_state(there).get("error", "").startswith("reading:"), "it to fail")
        assert (ann.read(), bob.read()) == (["begin"], ["begin"])
        client.xdel(REVOCATIONS, "2-0")
        bob.await_text("late")
        assert ann.await_end() == ["begin"]


def test_revocation_without_redis_applies_here_and_raises(server: RedisServer, here: Board) -> None:
    with watching(here, "a", user="ann") as ann:
        settle(here, ann)
        server.kill()
        for revoke in (here.sse.disconnect, here.sse.recheck):
            with pytest.raises(BrokerUnavailable, match=r"this process has done it.*call it again"):
                revoke("ann")
        assert not ann.is_open, "this process has applied it"
