"""Replay of the events that are kept, and the one gap that tells a client of those it has missed for good."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from flask_sse_emitters.testing import decode
from tests.support.board import Board, gap_of, moved, texts
from tests.support.waiting import until


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


#: Made of the newest id.
BAD_IDS: dict[str, Callable[[str], str]] = {
    "unknown": lambda _: "17",
    "of a former epoch": lambda _: "zzzzz-1",
    "future": lambda last: moved(last, 1),
    "far in the future": lambda last: moved(last, 10**15),
    "with too many parts": lambda last: f"{last},{last}",
    "with an empty part": lambda last: f"{last},",
    "malformed": lambda last: last.replace("-", "+"),
    "negative": lambda last: last.replace("-", "--"),
    "overlong": lambda last: last + "0" * 10_000,
    "not ASCII": lambda _: "é\N{SNOWMAN}",
    "blank": lambda _: " ",
}


@pytest.mark.parametrize("name", BAD_IDS)
def test_gap_for_an_invalid_id_is_one_before_all_kept_events(board: Board, name: str) -> None:
    ids = board.publish("a", 1, 2)
    requested = BAD_IDS[name](ids[-1])
    sent = requested.encode().decode("latin-1")  # as servers pass on what a browser sends as UTF-8
    with board.open("a", last=sent) as stream:
        board.publish("a", 3)
        events = stream.ready()
        assert gap_of(events) == {"requested": requested[:2048], "oldest": ids[0], "newest": ids[-1]}
        assert texts(events[1:]) == ["1", "2", "3"]
        assert [event.id for event in events[1:]] == [*ids, moved(ids[-1], 1)]


def test_gap_is_followed_by_a_position_so_that_no_second_gap_comes(board: Board) -> None:
    with board.client.get("/events/empty", headers={"Last-Event-ID": "foreign"}) as response:
        text = next(response.iter_encoded()).decode()
    gap, position = text.split("\n\n")[1:3]
    assert gap.startswith("event: gap\n")
    assert "\nid:" not in gap
    assert position.startswith("id: ")
    board.publish("empty", 1)
    assert texts(board.replayed("empty", last=position.removeprefix("id: "))) == ["1"]


def test_gap_after_eviction_is_one_before_the_kept_events() -> None:
    """And there is none for an evicted id after which nothing was lost."""
    board = Board(SSE_HISTORY=3)
    ids = board.publish("a", *range(10))
    events = board.replayed("a", last=ids[2])
    assert gap_of(events) == {"requested": ids[2], "oldest": ids[7], "newest": ids[9]}
    assert [event.id for event in events[1:]] == ids[7:]
    assert [event.id for event in board.replayed("a", last=ids[6])] == ids[7:]


def test_gap_after_expiry_comes_only_if_something_was_lost() -> None:
    board = Board(SSE_HISTORY_SECONDS=0.05)
    ids = board.publish("a", 1, 2)
    expected = {"requested": ids[0], "oldest": moved(ids[1], 1), "newest": ids[1]}
    until(lambda: [json.loads(event.data) for event in board.replayed("a", last=ids[0])] == [expected], "their expiry")
    assert board.replayed("a", last=ids[1]) == [], "nothing was lost after the last one"


def test_gap_of_a_channel_without_history_is_all_that_a_reconnect_gets(board: Board) -> None:
    board.sse.channel("live", history=0)
    with board.open("live") as stream:
        [first] = board.publish("live", 1)
        assert texts(stream.ready()) == ["1"]
    assert board.replayed("live", last=first) == []
    [second] = board.publish("live", 2)
    events = board.replayed("live", last=first)
    assert gap_of(events) == {"requested": first, "oldest": moved(second, 1), "newest": second}
    assert events[1:] == []


def test_gap_in_one_of_many_channels_is_one_before_the_kept_events() -> None:
    board = Board(SSE_HISTORY=2)
    a, b = board.publish("a", *range(5)), board.publish("b", 1, 2)
    events = board.replayed("a", "b", last=f"{a[0]},{b[0]}")
    assert gap_of(events) == {"requested": f"{a[0]},{b[0]}", "oldest": f"{a[3]},{b[1]}", "newest": f"{a[4]},{b[1]}"}
    assert texts(events[1:]) == ["3", "4", "2"]


def test_gap_for_eviction_amid_a_replay_is_one_before_the_kept_events() -> None:
    board = Board(SSE_HISTORY=100)
    ids = board.publish("a", *("x" * 1000 + str(number) for number in range(100)))
    with board.client.get("/events/a", headers={"Last-Event-ID": ids[0]}) as response:
        pieces = response.iter_encoded()
        begun = decode(next(pieces))
        assert 10 < len(begun) < 90, "a part of it"
        ids += board.publish("a", *range(150))
        board.sse.channel("a").emitters.complete()
        rest = decode(b"".join(pieces))
    assert gap_of(rest) == {"requested": str(begun[-1].id), "oldest": ids[-100], "newest": ids[-1]}
    assert [event.id for event in rest[1:]] == ids[-100:]


@pytest.mark.parametrize("channels", [["a"], ["a", "b"]])
def test_gap_for_eviction_of_all_amid_a_replay_is_the_last_event(channels: list[str]) -> None:
    board = Board(SSE_HISTORY=100)
    ids = board.publish("a", *("x" * 1000 for _ in range(100)))
    last = ",".join([ids[0], moved(ids[0], -1)][: len(channels)])
    query = "&".join(f"channel={name}" for name in channels)
    with board.client.get(f"/events?{query}", headers={"Last-Event-ID": last}) as response:
        pieces = response.iter_encoded()
        begun = decode(next(pieces))
        board.sse.channel("a", history=0)
        [newest] = board.publish("a", "gone")
        board.sse.channel("a").emitters.complete()
        rest = decode(b"".join(pieces))
    assert gap_of(rest)["requested"] == begun[-1].id
    assert gap_of(rest)["oldest"].startswith(moved(newest, 1))
    assert rest[1:] == []
