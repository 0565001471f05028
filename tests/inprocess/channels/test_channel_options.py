"""Options of channels by what their names begin with, and how long each keeps its events."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from flask_sse_emitters import InvalidChannel
from tests.support.board import Board, texts
from tests.support.waiting import until


def kept(board: Board, name: str) -> int:
    """Publish ten events, and return how many of them a client gets that comes back from before the first."""
    first, *_ = board.publish(name, "before", *range(10))
    with board.open(name, last=first) as stream:
        return len([event for event in stream.ready() if event.event != "gap"])


def test_channels_pattern_sets_options_of_all_names_that_begin_so(board: Board) -> None:
    board.sse.channels("job/*", history=3)
    assert [kept(board, name) for name in ("job/1", "job/", "job/a/b", "job", "jobs/1", "a")] == [3, 3, 3, 10, 10, 10]


def test_channels_pattern_of_the_longest_prefix_wins_option_by_option() -> None:
    board = Board(rule=None)
    board.sse.channels("job/a/*", history=2)
    board.sse.channels("job/*", history=3, public=True)
    board.sse.channels("*", history=4, public=False)
    assert [kept(board, name) for name in ("job/1", "job/a/1")] == [3, 2]
    assert board.get("/events/other").status_code == 403


def test_channel_option_of_the_name_itself_wins_over_every_pattern() -> None:
    board = Board(rule=None)
    board.sse.channel("job/1", history=5)
    board.sse.channels("job/*", history=3, public=True)
    board.sse.channel("job/2", public=False)
    assert kept(board, "job/1") == 5
    assert board.get("/events/job/2").status_code == 403


def test_channels_pattern_opens_no_readers_own_channel() -> None:
    board = Board(rule=None)
    board.sse.channels("*", public=True)
    assert board.get("/events?channel=~").status_code == 403


@pytest.mark.parametrize("pattern", ["job", "", "jo*b", "job/**", "j b*", "~*", None, 7, "x" * 201 + "*"])
def test_channels_pattern_that_is_invalid_is_rejected(board: Board, pattern: Any) -> None:
    with pytest.raises(InvalidChannel):
        board.sse.channels(pattern, history=1)


def test_channels_pattern_that_contradicts_itself_is_rejected(board: Board) -> None:
    board.sse.channels("job/*", history=3, since="last")
    with pytest.raises(ValueError, match=re.escape("history=4 contradicts sse.channels('job/*', history=3)")):
        board.sse.channels("job/*", public=True, history=4)
    board.sse.channels("job/*", public=False, history=3)  # so the rejected call has not made them public


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"history_seconds": -1}, "history_seconds must be seconds"),
        ({"history_seconds": "1"}, "history_seconds must be seconds"),
        ({"since": "today"}, "since must be 'now', 'first', 'last', 'last:20' or '60s', not 'today'"),
        ({"max_clients": 0}, "max_clients must be an int"),
    ],
)
def test_channels_option_that_is_invalid_is_rejected(board: Board, options: dict[str, Any], expected: str) -> None:
    for use in (lambda: board.sse.channel("a", **options), lambda: board.sse.channels("a*", **options)):
        with pytest.raises(ValueError, match=expected):
            use()


def test_channels_pattern_limits_the_clients_of_each_channel(board: Board) -> None:
    board.sse.channels("job/*", max_clients=1)
    with board.open("job/1"), board.open("job/2"):
        for name in ("job/1", "job/2"):
            board.get(f"/events/{name}").close()
        assert [board.sse.channel(f"job/{number}").subscribers() for number in (1, 2)] == [1, 1]
    assert board.sse.stats()["refused_by"] == {"max_clients": 2}


def test_channel_history_seconds_of_its_own_outlives_the_apps() -> None:
    board = Board(SSE_HISTORY_SECONDS=0.01)
    board.sse.channel("long", history_seconds=3600)
    board.sse.channels("longer/*", history_seconds=timedelta(hours=1))
    ids = {name: board.publish(name, "a", "b")[0] for name in ("long", "longer/1", "plain")}
    until(lambda: [event.event for event in board.replayed("plain", last=ids["plain"])] == ["gap"], "it to expire")
    for name in ("long", "longer/1"):
        assert texts(board.replayed(name, last=ids[name])) == ["b"]
