"""A loss is announced by one gap, and nothing else is. See ``swarm.py`` for the checks of the swarm."""

from __future__ import annotations

import json

import pytest

from tests.faults.swarm import Habits, Size, publish_to, published_by, swarming
from tests.support.board import Board, gap_of, texts


@pytest.mark.xdist_group("swarm")  # never at once with others that keep both cores busy
@pytest.mark.parametrize(
    ("kind", "size"), [("gevent", Size(80, 3_000, seconds=3)), ("gthread", Size(40, 1_200, seconds=3))]
)
def test_each_hole_is_announced_by_one_gap_and_no_other_gap_is_sent(kind: str, size: Size, seed: int) -> None:
    habits = Habits(seed, slow=0.5, pairs=0.7, away=0.4, history=20)
    with swarming(kind, habits, SSE_TIMEOUT=size.seconds / 2) as (server, swarm):
        publish_to(server, swarm, size)
        swarm.compare(published_by(server))
        holes = [hole for client in swarm.clients for hole in client.holes]
        assert sum(hole.on_return for hole in holes) > 10


def test_hole_that_grows_before_first_write_is_one_gap() -> None:
    board = Board(SSE_HISTORY=5)
    epoch, _ = board.publish("a", *range(1, 11))[0].split("-")
    with board.open("a", last=f"{epoch}-0") as stream:
        board.publish("a", 11)
        events = stream.ready()
    gap_of(events)
    assert texts(events[1:]) == ["6", "7", "8", "9", "10", "11"]


def test_gap_of_one_channel_names_position_in_live_channel() -> None:
    board = Board(SSE_HISTORY=5)
    epoch, _ = board.publish("a", 1)[0].split("-")
    board.publish("b", 1)
    with board.open("a", "b", last=f"{epoch}-0,{epoch}-1") as stream:
        board.publish("b", 2)
        board.publish("a", *range(2, 10))
        events = stream.ready()
    [gap] = [json.loads(event.data) for event in events if event.event == "gap"]
    assert (gap["requested"], gap["oldest"]) == (f"{epoch}-1,{epoch}-2", f"{epoch}-5,{epoch}-3")
