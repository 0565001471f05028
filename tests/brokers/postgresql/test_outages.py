"""PostgreSQL is killed, paused, cut off, or refuses: streams stay open, publishers get errors, then all goes on."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.brokers import Broker
from tests.brokers.any_server import check_order_after_reconnect
from tests.brokers.states import await_state, broker_state
from tests.support.board import Board, closing_board, read, texts
from tests.support.brokers.broker_calls import KEPT, frame
from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.waiting import until
from tests.support.wire import Wire

pytestmark = pytest.mark.xdist_group("postgresql")


def through(wire: Wire, url: str) -> str:
    """Return the URL of the same database behind a wire."""
    return f"postgresql://tests@127.0.0.1:{wire.port}/{url.rpartition('/')[2]}"


def test_killed_postgresql_is_logged_once_and_later_events_are_delivered(
    postgresql: PostgresqlServer, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that was confirmed is lost, and no epoch ends."""
    caplog.set_level(logging.WARNING, "flask_sse_emitters")
    with Wire(postgresql.port) as wire, closing_board(through(wire, database)) as board, board.open("a") as stream:
        before = board.publish("a", 1, 2)
        assert texts(read(stream, 2)) == ["1", "2"]
        postgresql.kill()
        for _ in range(3):
            with pytest.raises(BrokerUnavailable, match=r"published.*SSE_BROKER_URL.*does it run"):
                board.publish("a", "lost")
        found = await_state(board, "degraded")
        assert (found["scheme"], str(wire.port) in found["url"]) == ("postgresql", True)
        tried = wire.connections
        until(lambda: wire.connections > tried + 2, "several attempts, none of which is logged")
        assert stream.ready() == []
        assert len(caplog.messages) == 1
        postgresql.start()
        await_state(board, "ok")
        after = board.publish("a", 3)
        assert texts(read(stream, 1)) == ["3"]
        assert [event_id.split("-")[0] for event_id in after] == [before[0].split("-")[0]]
    assert [("degraded" in text, "is back" in text) for text in caplog.messages] == [(True, False), (False, True)]


def test_paused_postgresql_is_noticed_and_a_key_makes_one_event(
    postgresql: PostgresqlServer, database: str, board: Board
) -> None:
    """Its connections stay open, so only silence shows it. A publish meanwhile may be carried out later."""

    def published() -> str | None:
        try:
            return hasty.sse.publish("a", "2", key="k")
        except BrokerUnavailable:
            return None

    with closing_board(database, SSE_PUBLISH_SECONDS=0.2) as hasty, hasty.open("a") as stream, board.open("a") as idle:
        hasty.publish("a", 1)
        assert texts(read(stream, 1)) == texts(read(idle, 1)) == ["1"]
        postgresql.signal(signal.SIGSTOP)
        assert published() is None
        assert "publishing" in broker_state(hasty)["error"]
        assert "listening" in await_state(board, "degraded")["error"], "it notices without a publish"
        postgresql.signal(signal.SIGCONT)
        event_id = until(published, "the server to go on")
        assert board.sse.publish("a", "2", key="k") == event_id
        board.publish("a", 3)
        for each in (stream, idle):
            assert texts(read(each, 2)) == ["2", "3"]
        for publisher in (hasty, board):
            await_state(publisher, "ok")


def test_closed_connections_cost_no_event_and_no_error(
    postgresql: PostgresqlServer, database: str, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    """As a pooler, or an administrator, closes those that are idle: a publisher notices that before it asks."""
    with board.open("a") as stream:
        for number in range(3):
            board.publish("a", number)
            assert texts(read(stream, 1)) == [str(number)]
            postgresql.terminate_all(database)
        await_state(board, "ok")


def test_reconnect_to_postgresql_delivers_missed_events_in_order(
    postgresql: PostgresqlServer, database: str, board: Board
) -> None:
    with Wire(postgresql.port) as wire, closing_board(through(wire, database)) as wired:
        check_order_after_reconnect(wire, wired, board)


REFUSALS = {
    "ALTER DATABASE {} SET default_transaction_read_only TO on": "this PostgreSQL takes no writes, as a standby",
    "ALTER DATABASE {} SET default_transaction_isolation TO serializable": "READ COMMITTED: ALTER ROLE",
    "ALTER DATABASE {} CONNECTION LIMIT 0": "raise its max_connections",
}


@pytest.mark.parametrize("change", REFUSALS)
def test_postgresql_that_refuses_publishes_nothing_and_says_why(
    postgresql: PostgresqlServer, database: str, new_broker: Callable[..., Broker], change: str
) -> None:
    new_broker().publish("a", frame("before"), KEPT)
    name = database.rpartition("/")[2]
    postgresql.run(f"CREATE ROLE r_{name} LOGIN")
    postgresql.run(f"GRANT ALL ON SCHEMA sse TO r_{name}; GRANT ALL ON ALL TABLES IN SCHEMA sse TO r_{name}", database)
    postgresql.run(change.format(name))
    broker = new_broker(database.replace("//tests@", f"//r_{name}@"))
    with pytest.raises(BrokerUnavailable, match=f"nothing was published; .*{REFUSALS[change]}") as caught:
        broker.publish("a", frame("refused"), KEPT)
    assert not caught.value.may_be_published
    assert broker.status()["state"] == "degraded"


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("postgresql://nobody@127.0.0.1:{}/postgres", "refuses the user or the password"),
        ("postgresql://tests@127.0.0.1:{}/missing", "does not exist.*is .* right"),
        ("postgresql://tests@127.0.0.1:1/postgres", "does it run"),
        ("postgresql://tests@host.invalid:{}/postgres", "does it run"),
    ],
)
def test_url_that_leads_nowhere_is_an_error_that_says_what_to_change(
    postgresql: PostgresqlServer, new_broker: Callable[..., Broker], url: str, advice: str
) -> None:
    broker = new_broker(url.format(postgresql.port))
    for call in (broker.check_writable, lambda: broker.state("a"), lambda: broker.publish("a", frame("x"), KEPT)):
        with pytest.raises(BrokerUnavailable, match=advice):
            call()


def test_dropped_schema_is_made_again_and_clients_get_what_is_new(
    database: str, board: Board, run: Callable[[str], list[Any]]
) -> None:
    with board.open("a") as stream:
        board.publish("a", 1)
        read(stream, 1)
        run("DROP SCHEMA sse CASCADE")

        def published() -> bool:
            try:
                return bool(board.publish("a", 2))
            except BrokerUnavailable:
                return False

        until(published, "the schema")
        assert texts(read(stream, 1)) == ["2"]
        await_state(board, "ok")
