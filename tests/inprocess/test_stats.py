"""``stats()`` and ``processes()`` of one process: what its clients have received, and what is pending."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack

import pytest

from flask_sse_emitters import BrokerUnavailable, Event, SseEmitter, SseEmitters
from flask_sse_emitters.testing import open_stream
from tests.support.board import Board
from tests.support.waiting import until


def test_stats_do_not_count_a_gap_that_no_client_received(board: Board) -> None:
    """The client asked for the head alone."""
    board.client.head("/events?channel=a", headers={"Last-Event-ID": "never-7"})
    assert board.sse.stats()["gaps"] == 0
    assert [event.event for event in board.replayed("a", last="never-7")] == ["gap"]
    assert board.sse.stats()["gaps"] == 1


def test_stats_do_not_count_comments_as_events(board: Board) -> None:
    board.app.add_url_rule("/emitter", view_func=SseEmitter)
    with open_stream(board.client, "/emitter") as stream:
        for event in (Event(comment="hello"), Event("text"), Event(retry=5)):
            board.emitters[0].send(event)
        assert [event.data for event in stream.ready()] == ["text"]
    assert board.sse.stats()["deliveries"] == 1


def test_stats_of_a_list_with_clients_of_two_apps_count_for_each() -> None:
    listed, boards = SseEmitters(), [Board(), Board()]
    with ExitStack() as stack:
        for board, count in zip(boards, (2, 3), strict=True):
            board.app.add_url_rule("/emitter", view_func=lambda: listed.add(SseEmitter()))
            for _ in range(count):
                stack.enter_context(open_stream(board.client, "/emitter")).ready()
        listed.send("x")
        until(lambda: sum(board.sse.stats()["deliveries"] for board in boards) == 5, "all of them")
        assert [board.sse.stats()["deliveries"] for board in boards] == [2, 3]


def test_stats_show_pending_and_dropped_events_with_their_stream() -> None:
    board = Board(lambda _: "ann", SSE_OVERFLOW="drop_oldest", SSE_MAX_PENDING=5)
    with board.open("closed") as stream:
        stream.ready()
        board.publish("closed", *range(9))
        stats = board.sse.stats()
        assert (stats["pending"], stats["dropped"]) == (5, 3), "the first one was on its way"
        [slow] = stats["slow"]
        assert slow["pending"] == stats["pending"]
        assert slow["dropped"] == stats["dropped"] > 0
        assert (slow["channels"], slow["identity"], slow["outlet"]) == (["closed"], "ann", "server")
        assert 0 <= slow["seconds"] < 600
    stats = board.sse.stats()
    assert (stats["pending"], stats["slow"]) == (0, [])
    assert stats["dropped"] == slow["dropped"], "also of streams that are over"


def test_stats_list_the_slowest_streams_worst_first(board: Board) -> None:
    board.app.add_url_rule("/emitter", view_func=SseEmitter)
    with ExitStack() as stack:
        for number in range(25):
            stack.enter_context(open_stream(board.client, "/emitter"))
            for _ in range(number):
                board.emitters[-1].send("x")
        stats = board.sse.stats()
        assert [each["pending"] for each in stats["slow"]] == list(range(24, 4, -1))
        assert stats["pending"] == sum(range(25))


def test_stats_count_a_publish_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "flask_sse_emitters")
    board = Board(SSE_BROKER_URL="redis://127.0.0.1:1")
    with pytest.raises(BrokerUnavailable):
        board.publish("a", "x")
    stats = board.sse.stats()
    assert (stats["published"], stats["publish"]["count"], stats["publish"]["failed"]) == (0, 0, 1)


def test_processes_with_the_memory_broker_show_this_process_alone(board: Board) -> None:
    assert board.sse.processes() == [], "it has no client yet"
    with board.open("a"):
        [own] = board.sse.processes()
    assert (own["pid"], own["channels"], own["age"], own["opened"]) == (os.getpid(), {"a": 1}, 0.0, 1)
