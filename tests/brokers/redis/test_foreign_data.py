"""Keys and announcements of other programs in Redis: one channel may fail by them, and no other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.brokers import Broker
from tests.brokers.states import await_end, broker_state
from tests.support.board import Board, board_reads, closing_board, gap_of, moved, read, texts
from tests.support.brokers.broker_calls import RecordingListener, publish
from tests.support.brokers.redis_server import RedisServer
from tests.support.waiting import PATIENCE, until


@pytest.mark.parametrize("foreign", ["SET sse:{bad}:at else", "HSET sse:{bad}:at offset garbage"])
def test_foreign_keys_fail_one_channel_without_affecting_others(
    server: RedisServer, client: Any, board: Board, foreign: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is it an outage, and each trouble is logged once."""
    board.publish("bad", "before")
    client.execute_command(foreign)
    with board.open("bad") as bad, board.open("good") as good:
        assert bad.ready() == []
        for number in range(10):
            with pytest.raises(BrokerUnavailable, match=r"nothing was published; .*sse:\{bad\}:at and sse:\{bad\}:log"):
                board.publish("bad", number)
            board.publish("good", number)
        assert texts(read(good, 10)) == [*"0123456789"]
        until(lambda: len(broker_state(board).get("troubles", ())) == 2, "both troubles, of a reader and a publisher")
        troubles = broker_state(board)["troubles"]
        for failed in ("reading", "publishing"):
            assert any(trouble.startswith(f"channel 'bad': {failed} failed: ") for trouble in troubles)
        assert sorted(caplog.messages) == sorted(f"{server.url}: {trouble}" for trouble in troubles)
        assert broker_state(board)["state"] == "ok"
        client.delete("sse:{bad}:at")
        board.publish("bad", "a")
        until(lambda: "troubles" not in broker_state(board), "the troubles to be over")
        board.publish("bad", "b")
        assert texts(read(bad, 2)) == ["a", "b"]


def test_foreign_keys_of_one_channel_leave_others_their_times(client: Any, new_broker: Callable[[], Broker]) -> None:
    """Both are looked up at once."""
    broker, listener = new_broker(), RecordingListener()
    client.set("sse:{bad}:at", "something else")
    publish(broker, "good", 1)
    broker.subscribe("good", listener)
    broker.subscribe("bad", RecordingListener())
    log = until(lambda: listener.log, "the good channel to be known")
    assert log is not None
    [kept] = log.after(0, 1)
    assert abs(kept.at - time.monotonic()) < PATIENCE


@pytest.mark.parametrize("foreign", ["SET sse:{bad}:log x", "XADD sse:{bad}:log * what this"])
def test_foreign_log_is_reset_by_the_next_publish(
    server: RedisServer, client: Any, board: Board, foreign: str, caplog: pytest.LogCaptureFixture
) -> None:
    ids = board.publish("bad", 1, 2)
    if foreign.startswith("SET"):
        client.delete("sse:{bad}:log")
    server.run(foreign)
    with closing_board(server.url) as other:
        new = other.publish("bad", 3, 4)
        assert new == [moved(ids[1], 1), moved(ids[1], 2)]
        events = board_reads(other, "bad", last=ids[0], count=3)
        assert gap_of(events) == {"requested": ids[0], "oldest": new[0], "newest": new[1]}
        assert texts(events[1:]) == ["3", "4"]
        assert texts(board_reads(other, "bad", last=ids[1], count=2)) == ["3", "4"]
    assert sum("sse:{bad}:log held something else" in message for message in caplog.messages) == 1


def test_foreign_oldest_log_entry_allows_publish(client: Any, board: Board) -> None:
    client.xadd("sse:{bad}:log", {"what": "is this"}, id="0-1")
    client.hset("sse:{bad}:at", mapping={"epoch": "abcde", "offset": 0})
    [first] = board.publish("bad", 1)
    assert first == "abcde-1"
    assert [entry_id for entry_id, _ in client.xrange("sse:{bad}:log")] == [b"1-0"]


def test_foreign_pubsub_messages_are_ignored_and_logged_once(
    client: Any, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    with board.open("a") as stream:
        board.publish("a", 1)
        assert texts(read(stream, 1)) == ["1"]
        for junk in (b"", b"hello", b"\xff\n", b"a 1 2 3 4 x\n", b"1 2\n3"):
            client.publish("sse:{a}@0", junk)
        board.publish("a", 2)
        assert texts(read(stream, 1)) == ["2"]
    assert sum("did not publish" in text for text in caplog.messages) == 1


@pytest.mark.parametrize("publishes", [True, False], ids=["this process publishes", "another one publishes"])
@pytest.mark.parametrize("ahead", [0, 10**9], ids=["now", "in the future"])
def test_foreign_announcement_that_is_forged_costs_no_published_event(
    server: RedisServer, client: Any, board: Board, publishes: bool, ahead: int
) -> None:
    with board.open("a") as stream, closing_board(server.url) as other:
        ids = board.publish("a", *range(10))
        read(stream, 10)
        forged = moved(ids[-1], 1)
        head = f"{forged.replace('-', ' ')} {int(client.time()[0] * 1000) + ahead} 1000 300000 0"
        client.publish("sse:{a}@0", f"{head}\ndata: forged\n\n")
        assert texts(read(stream, 1)) == ["forged"]
        (board if publishes else other).publish("a", "real", "next")
        await_end(board, stream)
    assert client.xlen("sse:{a}:log") == 12
    events = board_reads(board, "a", last=forged, count=13)
    assert gap_of(events)["requested"] == forged
    assert texts(events[1:]) == [*map(str, range(10)), "real", "next"]
