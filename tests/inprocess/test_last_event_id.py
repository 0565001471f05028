"""``Last-Event-ID``, as clients and polyfills send it, and what a view may say in its place."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_sse_emitters import SseEmitter
from flask_sse_emitters.testing import open_stream
from tests.support.board import Board, completed, texts


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


@pytest.mark.parametrize("parameter", ["last_event_id", "lastEventId", "evs_last_event_id"])
def test_last_event_id_in_the_query_of_a_channel_brings_its_replay(board: Board, parameter: str) -> None:
    ids = board.publish("a", 1, 2, 3)
    path = f"/events?channel=a&{parameter}={ids[0]}"
    for header, expected in ((None, ["2", "3"]), (ids[1], ["3"]), ("", ["2", "3"])):
        headers = {} if header is None else {"Last-Event-ID": header}
        with open_stream(board.client, path, headers=headers) as stream:
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
