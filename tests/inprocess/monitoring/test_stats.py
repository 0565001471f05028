"""``stats()`` and ``processes()`` of one process: its streams, what they have received, and what is pending."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, get_type_hints

import pytest

from flask_sse_emitters import BrokerUnavailable, Event, SseEmitter, SseEmitters
from flask_sse_emitters.testing import open_stream
from flask_sse_emitters.types import (
    BrokerFigures,
    Figures,
    Outlets,
    Process,
    PublishFigures,
    ServerFigures,
    SlowStream,
    Stats,
)
from tests.support.board import Board
from tests.support.waiting import PATIENCE, until


def test_stats_count_streams_by_close_reason_writer_and_channel(board: Board) -> None:
    board.app.add_url_rule("/mine", view_func=SseEmitter)
    for end in (SseEmitter.complete, lambda emitter: emitter.complete_with_error(RuntimeError()), lambda _: None):
        with open_stream(board.client, "/mine") as stream:
            end(board.emitters[-1])
            stream.ready()
    stats = board.sse.stats()
    assert stats["closed"] == {"completed": 1, "error": 1, "disconnected": 1}
    assert (stats["clients"], stats["opened"], stats["channels"], stats["warnings"]) == (0, 3, {}, [])
    with open_stream(board.client, "/mine") as one, board.open("a", "b") as two:
        board.emitters[-2].send("x")
        board.publish("a", "x")
        assert len(one.ready() + two.ready()) == 2
        stats = board.sse.stats()
    assert stats["outlets"] == {"handed_off": 0, "server": 2}
    assert stats["declined"] == {"the server is not gunicorn with a worker of its own": 2}
    assert stats["channels"] == {"a": 1, "b": 1}
    assert stats["broker"] == {"scheme": "memory", "state": "ok"}


def test_stats_while_channels_open_and_close_raise_no_error(board: Board) -> None:
    def open_and_close() -> None:
        for number in range(100):
            with board.open(f"user:{number}", f"other:{number}"):
                pass

    thread = threading.Thread(target=open_and_close)
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while thread.is_alive() and time.monotonic() < deadline:
        board.sse.stats()
    thread.join(PATIENCE)
    assert (board.sse.stats()["opened"], board.clients) == (100, 0)


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


def test_stats_have_exactly_the_keys_of_their_types(board: Board) -> None:
    board.app.add_url_rule("/emitter", view_func=SseEmitter)
    with board.open("a"), open_stream(board.client, "/emitter"):
        board.emitters[-1].send("x")
        stats = board.sse.stats()
        [process] = board.sse.processes()
    typed: list[tuple[Mapping[str, object], Any]] = [
        (stats, Stats),
        (stats["outlets"], Outlets),
        (stats["server"], ServerFigures),
        (stats["publish"], PublishFigures),
        (stats["broker"], BrokerFigures),
        (stats["slow"][0], SlowStream),
    ]
    assert [found.keys() for found, _ in typed] == [kind.__required_keys__ for _, kind in typed]
    assert process.keys() == Process.__required_keys__ | Process.__optional_keys__


def test_processes_may_lack_all_figures_but_their_types_are_the_same() -> None:
    assert Process.__required_keys__ == {"id", "age", "channels"}
    optional = {name: kind for name, kind in get_type_hints(Process).items() if name in Process.__optional_keys__}
    assert optional == get_type_hints(Figures)


def test_processes_with_the_memory_broker_show_this_process_alone(board: Board) -> None:
    assert board.sse.processes() == [], "it has no client yet"
    with board.open("a"):
        [own] = board.sse.processes()
    assert (own["pid"], own["channels"], own["age"], own["opened"]) == (os.getpid(), {"a": 1}, 0.0, 1)
