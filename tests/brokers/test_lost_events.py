"""Redis loses its newest events: no id is ever given to two events, and no loss goes without a gap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_sse_emitters.brokers import Broker
from tests.brokers.states import await_end
from tests.support.board import Board, board_reads, gap_of, moved, read, texts
from tests.support.broker_calls import listening, publish
from tests.support.waiting import until


def epoch_of(event_id: str | None) -> str:
    return str(event_id).split("-")[0]


def dumped(client: Any, channel: str) -> dict[bytes, bytes]:
    return {key: client.dump(key) for key in client.keys(f"sse:{{{channel}}}:*")}


def roll_back(client: Any, kept: dict[bytes, bytes]) -> None:
    """Restore these keys in one transaction."""
    with client.pipeline() as at_once:
        for key, value in kept.items():
            at_once.restore(key, 0, value, replace=True)
        at_once.execute()


@pytest.mark.parametrize("between", [0, 3])
def test_process_that_knew_lost_events_starts_new_epoch(
    client: Any, new_broker: Callable[[], Broker], between: int
) -> None:
    """Perhaps another process, which knew less, has published in between."""
    quick, knows = new_broker(), new_broker()
    publish(knows, "a", 1, 2)
    kept = dumped(client, "a")
    lost = publish(knows, "a", 3)
    roll_back(client, kept)
    given = publish(quick, "a", *range(between))
    assert given[:1] == lost[: len(given)], "it cannot know, as the server is the same"
    [first] = publish(knows, "a", "first")
    assert epoch_of(first) != epoch_of(lost[0])
    assert first.endswith("-1")
    assert publish(quick, "a", "second") == [moved(first, 1)]


@pytest.mark.parametrize("publishes", [True, False])
def test_lost_events_are_remembered_after_last_client_left(
    client: Any, new_broker: Callable[[], Broker], publishes: bool
) -> None:
    other, broker = new_broker(), new_broker()
    listener = listening(broker, "~7")
    publish(other, "~7", 1, 2)
    kept = dumped(client, "~7")
    lost = publish(other, "~7", 3)
    until(lambda: len(listener.frames) == 3, "all events")
    broker.unsubscribe("~7", listener)
    roll_back(client, kept)
    publish(new_broker(), "~7", "new 3", "new 4")
    if publishes:
        assert epoch_of(publish(broker, "~7", "first")[0]) != epoch_of(lost[0])
    else:
        log = listening(broker, "~7").log
        assert log is not None
        assert log.epoch != epoch_of(lost[0])


def test_lost_events_of_flush_are_a_gap_before_new_ones(client: Any, board: Board) -> None:
    with board.open("a") as stream:
        ids = board.publish("a", 1, 2, 3)
        read(stream, 3)
        client.flushall()
        new = board.publish("a", 4)
        await_end(board, stream)
    events = board_reads(board, "a", last=ids[1], count=2)
    assert gap_of(events)["requested"] == ids[1]
    assert [(event.data, event.id) for event in events[1:]] == [("4", new[0])]


def test_lost_events_of_flush_are_a_gap_for_client_that_reconnects(client: Any, board: Board) -> None:
    """Nothing has been published since, and other clients still listen to the channel."""
    ids = board.publish("a", 1, 2, 3)
    events = board_reads(board, "a", last=ids[0], count=2)
    assert texts(events) == ["2", "3"]
    client.flushall()
    with board.open("a", last=ids[0]) as stream:  # revocations are lost as well, so this client must reconnect
        await_end(board, stream)
    events = board_reads(board, "a", last=ids[0], count=1)
    assert gap_of(events)["requested"] == ids[0]


@pytest.mark.parametrize("more", [0, 1, 2, 5], ids="{} more".format)
def test_lost_events_leave_their_ids_to_no_others(
    client: Any, new_broker: Callable[[], Broker], board: Board, more: int
) -> None:
    """As after a failover to a replica that lacked the last events, with any number of new ones since."""
    with board.open("a") as stream:
        [*_, last] = board.publish("a", 1, 2)
        kept = dumped(client, "a")
        seen = board.publish("a", 3, 4)
        read(stream, 4)
        roll_back(client, kept)
        publish(new_broker(), "a", *[f"new {number}" for number in range(more)])
        client.client_kill_filter(_type="pubsub")
        await_end(board, stream)
    epoch = last.split("-")[0]
    [latest] = board.publish("a", "latest")
    events = board_reads(board, "a", last=seen[-1], count=2)
    assert gap_of(events)["requested"] == seen[-1]
    assert all(not str(event.id).startswith(epoch) for event in events)
    assert events[-1].id == latest


@pytest.mark.parametrize("by", [1, 1000, 10**15])
def test_lost_events_are_a_gap_for_client_with_a_future_id(board: Board, by: int) -> None:
    [event_id] = board.publish("a", 1)
    with board.open("a", last=moved(event_id, by)) as stream:
        events = read(stream, 2)
    assert gap_of(events)["requested"] == moved(event_id, by)
    assert [(event.data, event.id) for event in events[1:]] == [("1", event_id)]
