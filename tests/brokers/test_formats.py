"""What lies in Redis and PostgreSQL has a version: one that a process does not understand is an error that says so."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.brokers import Broker, make_broker
from tests.brokers.states import broker_state
from tests.support.board import Board, closing_board, read, texts
from tests.support.brokers.broker_calls import RecordingListener, assert_events_are_delivered, listening, publish
from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.waiting import until

#: What the error, and the log, must say.
ADVICE = "newer version of flask-sse-emitters uses this"

FORMAT = "sse:{here}:format"


def check_refusal(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Check that a process with a reader, and one that only publishes, say what to do, and publish nothing."""
    with closing(make_broker(url)) as publisher, closing_board(url) as board, board.open("a") as stream:
        with pytest.raises(BrokerUnavailable, match=f"nothing was published; a {ADVICE}") as raised:
            publish(publisher, "a", 1)
        assert not raised.value.may_be_published
        until(lambda: ADVICE in str(broker_state(board).get("error")), "the listener to say so")
        assert stream.ready() == []
    assert [record.levelname for record in caplog.records if ADVICE in record.message] == ["WARNING"] * 2


def test_format_of_redis_that_is_newer_is_refused(
    server: RedisServer, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client.set(FORMAT, 2)
    check_refusal(server.url, caplog)
    assert client.keys() == [FORMAT.encode()]
    assert client.get(FORMAT) == b"2"


def test_format_of_redis_is_left_by_the_first_process(
    server: RedisServer, client: Any, new_broker: Callable[..., Broker]
) -> None:
    """And by the first one that listens after it is lost. It expires, as everything there."""
    publish(new_broker(), "a", 1)
    assert client.get(FORMAT) == b"1"
    assert client.ttl(FORMAT) > 86_400
    client.delete(FORMAT)
    listening(new_broker(), "a")
    assert client.get(FORMAT) == b"1"


@pytest.mark.parametrize("foreign", ["SET {0} garbage", "SADD {0} what"])
def test_format_of_redis_that_is_no_number_costs_nothing(
    client: Any, new_broker: Callable[..., Broker], foreign: str
) -> None:
    client.execute_command(foreign.format(FORMAT))
    assert_events_are_delivered(new_broker(), "a")


def test_format_of_redis_is_compared_on_each_new_connection(server: RedisServer, client: Any, board: Board) -> None:
    """So a process that ran before learns of a newer one, and goes on once that has left."""
    with board.open("a") as stream:
        board.publish("a", 1)
        read(stream, 1)
        client.set(FORMAT, 2)
        server.cut_listeners()
        until(lambda: ADVICE in str(broker_state(board).get("error")), "the listener to say so")
        client.delete(FORMAT)
        until(lambda: broker_state(board)["state"] == "ok", "it to go on")
        board.publish("a", 2)
        assert texts(read(stream, 1)) == ["2"]


def test_announcements_and_entries_with_more_fields_are_understood(
    client: Any, new_broker: Callable[..., Broker]
) -> None:
    """As a later version may have them."""
    broker = new_broker()
    listener = listening(broker, "a")
    [first] = publish(broker, "a", 1)
    epoch = first.partition("-")[0]
    until(lambda: listener.frames, "the event")
    now = int(client.time()[0] * 1000)
    client.publish("sse:{a}@0", f"{epoch} 2 {now} 1000 60000 0 more of it\ndata: later\n\n")
    until(lambda: len(listener.frames) == 2, "the announced event")
    assert listener.texts[1] == b"data: later\n\n"
    client.xadd("sse:{a}:log", {"d": b"data: later\n\n", "n": b"", "t": now, "more": "of it"}, id="2-0")
    client.hset("sse:{a}:at", mapping={"offset": 2, "last": now, "more": "of it"})
    other = RecordingListener()
    new_broker().subscribe("a", other)
    log = until(lambda: other.log, "the log")
    assert log is not None
    assert log.after(0, 2)[-1].payload.endswith(b"data: later\n\n")


@pytest.fixture
def run(postgresql: PostgresqlServer, database: str) -> Callable[[str], Any]:
    return lambda statement: postgresql.run(statement, database)


def test_format_of_postgresql_that_is_newer_is_refused(
    database: str, run: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    with closing(make_broker(database)) as broker:
        publish(broker, "a", 1)
    run("UPDATE sse.about SET version = 100")
    check_refusal(database, caplog)
    assert run("SELECT version FROM sse.about") == [(100,)]


def test_format_of_postgresql_that_is_a_little_newer_is_used(database: str, run: Callable[[str], Any]) -> None:
    """Changes that leave the calls as they are keep two neighbouring versions able to share it."""
    with closing(make_broker(database)) as broker:
        publish(broker, "a", 1)
    run("UPDATE sse.about SET version = 99")
    with closing(make_broker(database)) as broker:
        assert_events_are_delivered(broker, "a")
    assert run("SELECT version FROM sse.about") == [(99,)]
