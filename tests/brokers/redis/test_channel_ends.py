"""Channels that end, and runs, over Redis: readers in one process, publishers in another; and while Redis is away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable, Event, Publisher, PublishFailed, RunExists
from flask_sse_emitters.testing import open_stream
from tests.brokers.states import await_state
from tests.support.board import Board, closing_board, moved, read, texts
from tests.support.brokers.redis_server import RedisServer
from tests.support.held_items import HeldItems, await_over
from tests.support.waiting import until
from tests.support.wire import Wire

#: What a client gets last of a stream that is over for good.
END = Event("", event="~end", id="~end")


@pytest.fixture
def other(server: RedisServer) -> Iterator[Board]:
    """Another process of the app."""
    with closing_board(server.url) as board:
        yield board


def has_failed(board: Board, times: int) -> bool:
    return bool(board.sse.stats()["publish"]["failed"] >= times)


def status(board: Board, last: str | None = None) -> int:
    with closing(board.get("/events/a", **({} if last is None else {"Last-Event-ID": last}))) as answer:
        return int(answer.status_code)


def test_channel_end_of_another_process_comes_after_all_its_events(board: Board, other: Board) -> None:
    with board.open("a") as stream:
        ids = other.publish("a", 1, 2)
        last = other.sse.publish("a", 3, last=True)
        assert read(stream, 4) == [Event("1", id=ids[0]), Event("2", id=ids[1]), Event("3", id=last), END]
    for process in (board, other):
        assert process.sse.channel("a").is_complete
        assert [status(process, each) for each in (None, "x-1")] == [200] * 2
        assert [status(process, each) for each in ("~end", last, moved(last, 1))] == [204] * 3
        with process.open("a") as late:
            assert texts(read(late, 4)) == ["1", "2", "3", ""]


def test_channel_end_by_a_publisher_without_an_app_ends_streams(server: RedisServer, board: Board) -> None:
    publisher = Publisher(server.url)
    with closing(publisher), board.open("a", "b") as stream:
        ids = publisher.publish_many([("a", 1), ("b", 2), ("a", 3)])
        assert sorted(texts(read(stream, 3))) == ["1", "2", "3"]
        assert ids[2] == moved(ids[0], 1)
        publisher.publish("a", "a", event="done", last=True)
        publisher.publish("b", "b", last=True)
        assert sorted(texts(read(stream, 3))) == ["", "a", "b"]


def test_channel_position_of_another_process_misses_nothing(board: Board, other: Board) -> None:
    other.publish("a", "before")
    position = board.sse.position("a", "b")
    other.publish("a", 1)
    other.publish("b", 2)
    with board.open("a", "b", last=position) as stream:
        assert sorted(texts(read(stream, 2))) == ["1", "2"]


@pytest.mark.parametrize(("since", "expected"), [("first", "123"), ("last", "3"), ("last:2", "23"), ("60s", "123")])
def test_channel_since_begins_in_a_process_that_did_not_know_it(
    board: Board, other: Board, since: str, expected: str
) -> None:
    other.publish("a", *"123")
    with open_stream(board.client, f"/events/a?since={since}") as stream:
        assert texts(read(stream, len(expected))) == [*expected]
        other.publish("a", "next")
        assert texts(read(stream, 1)) == ["next"]


def test_channel_end_while_redis_is_away_comes_when_it_is_back(server: RedisServer, other: Board) -> None:
    """Nobody can know then whether a client has it all: it gets a stream, which goes on."""
    with Wire(server.port) as wire, closing_board(wire.url, SSE_PUBLISH_SECONDS=1) as board:
        last = board.publish("a", 1)[-1]
        with board.open("a") as stream:
            read_before = board.replayed("a", last=last)
            wire.is_closed = True
            wire.cut()
            other.sse.publish("a", 2, last=True)
            assert status(board, "~end") == 200
            with pytest.raises(PublishFailed) as failed:
                board.sse.publish_many([("a", 3), ("b", 4)])
            assert all(isinstance(each, BrokerUnavailable) for each in failed.value.results)
            wire.is_closed = False
            assert (read_before, texts(read(stream, 2))) == ([], ["2", ""])
        await_state(board, "ok")
        assert status(board, "~end") == 204


def test_run_in_another_process_is_read_from_its_first_event(board: Board, other: Board) -> None:
    held = HeldItems()
    with board.open("a") as before:
        run = other.sse.channel("a").publish_from(held.items(), done="done", every=0)
        held.let(2)
        assert texts(read(before, 2)) == ["1", "2"]
        with board.open("a") as amid, pytest.raises(RunExists):
            board.sse.channel("a").publish_from(["x"])
        with board.open("a") as amid:
            assert texts(read(amid, 2)) == ["1", "2"]
            assert board.sse.channel("a").cancel() is True
            assert texts(read(amid, 1)) == texts(read(before, 1)) == [""]
        held.let(1_000)
        await_over(run)
    assert status(board, "~end") == 204
    assert board.sse.channel("a").cancel() is False


def test_run_goes_on_after_an_outage_and_publishes_each_event_once(server: RedisServer, board: Board) -> None:
    """Where nobody can tell whether a step was done, it is done again, and not twice."""
    held = HeldItems()
    with (
        Wire(server.port) as wire,
        closing_board(wire.url, SSE_PUBLISH_SECONDS=0.5) as publishing,
        board.open("a") as stream,
    ):
        run = publishing.sse.channel("a").publish_from(held.items(), done="done", every=0)
        held.let(1)
        assert texts(read(stream, 1)) == ["1"]
        for number in range(2, 5):
            wire.is_held = True  # answers are lost: they are on their way when the connection is cut
            held.let(1)
            until(partial(has_failed, publishing, number - 1), "a step that failed")
            wire.cut()
            wire.is_held = False
            assert texts(read(stream, 1)) == [str(number)]
        run.cancel()
        assert texts(read(stream, 1)) == [""]


def test_run_that_is_cancelled_while_redis_is_away_ends_its_channel_later(server: RedisServer, board: Board) -> None:
    held = HeldItems()
    with Wire(server.port) as wire, closing_board(wire.url, SSE_PUBLISH_SECONDS=0.2) as publishing:
        run = publishing.sse.channel("a").publish_from(held.items(), every=0)
        wire.is_closed = True
        wire.cut()
        with pytest.raises(BrokerUnavailable):
            run.cancel()
        wire.is_closed = False
        until(lambda: board.sse.channel("a").is_complete, "the end")
        held.let(1)
        await_over(run)
    assert status(board) == 204


def test_view_of_a_client_that_has_all_in_another_process_is_a_204(board: Board, other: Board) -> None:
    @board.app.get("/mine")
    def mine() -> Any:
        return board.sse.channel("a").subscribe(), 200, {"X-Mine": "1"}

    other.sse.publish("a", "x", last=True)
    assert board.get("/mine", **{"Last-Event-ID": "~end"}).status_code == 204
