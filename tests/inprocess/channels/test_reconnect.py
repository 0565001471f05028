"""Reconnecting: the ids of events, ``Last-Event-ID`` and what clients have missed, once and in order."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from flask_sse_emitters import SseEmitter
from flask_sse_emitters.testing import open_stream
from tests.support.board import Board, completed, moved, texts


def test_reconnect_replays_exactly_what_was_missed_and_then_live_events(board: Board) -> None:
    ids = board.publish("a", 1, 2, 3, 4)
    assert texts(board.replayed("a", last=ids[1])) == ["3", "4"]
    with board.open("a", last=ids[1]) as stream:
        ids += board.publish("a", 5)
        assert [(event.data, event.id) for event in stream.ready()] == list(zip("345", ids[2:], strict=True))
        ids += board.publish("a", 6)
        assert [event.id for event in stream.ready()] == ids[5:]


def test_reconnect_before_the_first_event_replays_what_was_missed(board: Board) -> None:
    """The stream begins with a block that has an id alone: WHATWG HTML, 9.2.6, has clients remember it."""
    board.publish("a", 1)
    board.publish("b", 1, 2)
    with board.client.get("/events?channel=a&channel=b") as response:
        first = next(response.iter_encoded())
    block = first.decode().split("\n\n")[1]
    assert block.startswith("id: ")
    assert "\n" not in block
    board.publish("a", 2)
    board.publish("b", 3)
    assert texts(board.replayed("a", "b", last=block.removeprefix("id: "))) == ["2", "3"]


def test_reconnect_with_any_id_of_a_stream_replays_exactly_what_follows(board: Board) -> None:
    names = ["a", "b", "c"]
    with board.open(*names) as stream:
        for number in range(30):
            board.publish(names[number * 7 % 3], number)
        events = stream.ready()
    assert len(events) == 30
    for index, event in enumerate(events):
        assert texts(board.replayed(*names, last=str(event.id))) == texts(events)[index + 1 :]


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


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ({}, "", None),
        ({"Last-Event-ID": "7"}, "", "7"),
        ({"Last-Event-ID": ""}, "", None),
        ({"Last-Event-ID": "é✓".encode().decode("latin-1")}, "", "é✓"),
        ({}, "last_event_id=1", "1"),
        ({}, "lastEventId=2", "2"),
        ({}, "evs_last_event_id=3", "3"),
        ({"Last-Event-ID": "7"}, "lastEventId=2", "7"),
        ({"Last-Event-ID": ""}, "lastEventId=2", "2"),
    ],
)
def test_last_event_id_is_read_from_the_header_or_the_query(
    headers: dict[str, str], query: str, expected: str | None, board: Board
) -> None:
    early: list[str | None] = []
    outside = SseEmitter()

    @board.app.get("/inside")
    def inside() -> SseEmitter:
        emitter = SseEmitter()
        early.append(emitter.last_event_id)
        return completed(emitter)

    board.app.add_url_rule("/outside", view_func=lambda: completed(outside))
    board.client.get(f"/inside?{query}", headers=headers)
    board.client.get(f"/outside?{query}", headers=headers)
    assert (early, outside.last_event_id) == ([expected], expected)


def test_last_event_id_in_the_query_of_a_channel_brings_its_replay(board: Board) -> None:
    ids = board.publish("a", 1, 2, 3)
    path = f"/events?channel=a&lastEventId={ids[0]}"
    for header, expected in ((ids[1], ["3"]), ("", ["2", "3"])):
        with open_stream(board.client, path, headers={"Last-Event-ID": header}) as stream:
            assert texts(stream.ready()) == expected


def test_last_event_id_of_subscribe_replaces_that_of_the_request(board: Board) -> None:
    first, _ = board.publish("a", 1, 2)
    positions: Iterator[str] = iter([first, ""])

    @board.app.get("/mine")
    def mine() -> SseEmitter:
        return board.sse.channel("a").subscribe(last_event_id=next(positions))

    for expected in (["2"], []):
        with open_stream(board.client, "/mine", headers={"Last-Event-ID": "foreign"}) as stream:
            assert texts(stream.ready()) == expected
