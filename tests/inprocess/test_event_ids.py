"""The ids of events: their form, those of streams of many channels, and what has none."""

from __future__ import annotations

import re

from tests.support.board import Board, moved, texts


def test_event_id_is_short_ascii_and_counts_the_events_of_its_channel(board: Board) -> None:
    [first, second] = board.publish("a", 1, 2)
    assert re.fullmatch(r"[A-Za-z0-9]+-1", first)
    assert second == moved(first, 1)


def test_event_ids_of_many_channels_are_joined_in_the_order_of_the_request(board: Board) -> None:
    with board.open("b", "a") as stream:
        [a1], [b1] = board.publish("a", 1), board.publish("b", 1)
        [b2] = board.publish("b", 2)
        start = moved(b1, -1)
        assert [event.id for event in stream.ready()] == [f"{start},{a1}", f"{b1},{a1}", f"{b2},{a1}"]
    board.publish("a", 2)
    board.publish("b", 3)
    events = board.replayed("b", "a", last=f"{b1},{a1}")
    assert texts(events) == ["2", "2", "3"], "in the order in which they were published"
    assert [event.id for event in events] == [f"{b2},{a1}", f"{b2},{moved(a1, 1)}", f"{moved(b2, 1)},{moved(a1, 1)}"]


def test_event_ids_of_eight_channels_stay_within_128_bytes(board: Board) -> None:
    names = [f"c{number}" for number in range(8)]
    with board.open(*names) as stream:
        for name in names:
            board.publish(name, *range(10))
        assert all(re.fullmatch(r"[A-Za-z0-9,-]{1,128}", str(event.id)) for event in stream.ready())


def test_event_ids_are_not_in_heartbeats_gaps_or_ends() -> None:
    board = Board(SSE_HEARTBEAT=0.05)
    with board.get("/events/a", **{"Last-Event-ID": "foreign"}) as response:
        pieces = response.iter_encoded()
        begins, heartbeat = next(pieces), next(pieces)
        board.emitters[0].complete()
        assert b"id:" not in b"".join(pieces)
    blocks = begins.split(b"\n\n")
    assert [block.startswith(b"id: ") for block in blocks if b"id:" in block] == [True], "the position alone, after it"
    assert heartbeat == b":\n\n"
