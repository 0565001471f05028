"""Replay: a client that reconnects gets the events that are kept, whatever happens meanwhile."""

from __future__ import annotations

import itertools
import os
import threading

from flask_sse_emitters import Event
from flask_sse_emitters.testing import OpenStream, decode
from tests.support.board import Board, moved, texts
from tests.support.waiting import PATIENCE, until


def test_replay_of_any_length_neither_overflows_nor_fills_the_backlog() -> None:
    board = Board(SSE_HISTORY=100_000, SSE_MAX_PENDING=5, SSE_MAX_PENDING_BYTES=10_000)
    ids = board.publish("a", *("x" * 1000 + str(number) for number in range(1000)))
    with board.open("a", last=ids[0]) as stream:
        board.publish("a", "live")
        [emitter] = board.emitters
        assert emitter.pending == 0
        events = stream.ready()
        assert emitter.is_open
    assert [event.id for event in events] == [*ids[1:], moved(ids[-1], 1)]


def test_replay_includes_newer_events_than_one_from_the_same_position(board: Board) -> None:
    ids = board.publish("a", 1, 2)
    assert texts(board.replayed("a", last=ids[0])) == ["2"]
    board.publish("a", 3)
    assert texts(board.replayed("a", last=ids[0])) == ["2", "3"]


def test_replay_during_concurrent_publishing_loses_and_repeats_nothing() -> None:
    """Four threads publish to two channels; clients reconnect at any moment, and read to the end."""
    each = int(os.environ.get("REPLAY_EVENTS", "300"))
    board = Board(SSE_HISTORY=10_000, SSE_MAX_PENDING=10_000)
    start = [board.publish(name, "start")[0] for name in ("a", "b")]
    newest = ",".join(moved(position, by=2 * each) for position in start)
    running = threading.Event()
    stop = threading.Event()
    found: list[list[Event]] = []

    def publish(name: str) -> None:
        for number in range(each):
            board.publish(name, number)
            running.set()

    def has_all(seen: list[Event], stream: OpenStream) -> bool:
        seen += stream.ready()
        return [event.id for event in seen[-1:]] == [newest]

    def read(seed: int) -> None:
        assert running.wait(PATIENCE)
        last, seen = ",".join(start), []
        while not stop.is_set():
            with board.open("a", "b", last=last) as stream:
                for _ in range(seed % 5 + 1):
                    seen += stream.ready()
            last = str(seen[-1].id) if seen else last
        with board.open("a", "b", last=last) as stream:
            until(lambda: has_all(seen, stream), "all of it")  # another thread may still locate the channels
        found.append(seen)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    writers = [threading.Thread(target=publish, args=(name,)) for name in "aabb"]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join(PATIENCE)
    stop.set()
    for thread in readers:
        thread.join(PATIENCE)
    assert len(found) == 4
    for seen in found:
        assert [event for event in seen if event.event == "gap"] == []
        pairs = [tuple(int(part.split("-")[1]) for part in str(event.id).split(",")) for event in seen]
        steps = {(a - before_a, b - before_b) for (before_a, before_b), (a, b) in itertools.pairwise([(1, 1), *pairs])}
        assert steps == {(0, 1), (1, 0)}
        assert pairs[-1] == (2 * each + 1, 2 * each + 1)


def test_replay_ends_with_its_stream(board: Board) -> None:
    """What was published before the end is delivered; later events are not awaited."""
    ids = board.publish("a", *("x" * 1000 + str(number) for number in range(300)))
    with board.client.get("/events/a", headers={"Last-Event-ID": ids[0]}) as response:
        pieces = response.iter_encoded()
        begun = decode(next(pieces))
        board.emitters[0].complete()
        rest: list[Event] = []
        for piece in pieces:
            rest += decode(piece)
            board.publish("a", "later")
    assert [event.id for event in begun + rest][: len(ids) - 1] == ids[1:]
    assert len(begun + rest) <= len(ids) + 1
