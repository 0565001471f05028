"""Events that SQL publishes: exactly if their transaction commits, and in the order in which they are numbered."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest

from flask_sse_emitters import Event
from flask_sse_emitters.brokers import make_broker
from tests.support.board import Board, closing_board, read, texts
from tests.support.brokers.broker_calls import listening, publish
from tests.support.programs import program
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.xdist_group("postgresql")

Run = Callable[[str], list[Any]]


@pytest.fixture
def connection(database: str, board: Board) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the app, to a database with the schema."""
    board.sse.channel("warm").subscribers()  # makes the schema
    with psycopg.connect(database) as connection:
        yield connection


def test_sql_publishes_from_psql(database: str, board: Board) -> None:
    with board.open("orders") as stream:
        board.publish("orders", "before")
        statement = """SELECT sse.publish('orders', '{"id": 7}', 'created')"""
        command = [program("psql", "postgresql"), database, "--command", statement]
        subprocess.run(command, check=True, timeout=PATIENCE, capture_output=True)
        events = read(stream, 2)
        assert [(event.event, event.data) for event in events] == [(None, "before"), ("created", '{"id": 7}')]


def test_sql_publishes_from_triggers_if_the_transaction_commits(
    connection: psycopg.Connection[Any], board: Board
) -> None:
    """A rollback publishes nothing, nor does that of a savepoint."""
    connection.execute("CREATE TABLE orders (id int, label text)")
    connection.execute(
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "PERFORM sse.publish('orders', to_jsonb(NEW), 'created'); RETURN NEW; END $$"
    )
    connection.execute("CREATE TRIGGER tell AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION tell()")
    connection.commit()
    with board.open("orders") as stream:
        connection.execute("INSERT INTO orders VALUES (1, 'rolled back')")
        connection.rollback()
        with connection.transaction():
            connection.execute("INSERT INTO orders VALUES (2, 'é')")
            with connection.transaction() as savepoint:
                connection.execute("INSERT INTO orders VALUES (3, 'rolled back')")
                raise psycopg.Rollback(savepoint)
            connection.execute("INSERT INTO orders VALUES (4, NULL)")
            assert stream.ready() == []
        assert texts(read(stream, 2)) == ['{"id": 2, "label": "é"}', '{"id": 4, "label": null}']


@pytest.mark.parametrize(
    "event",
    [
        Event(""),
        Event("one"),
        Event("a\nb\r\nc\rd\n"),
        Event("x", event="created", retry=0),
        Event("ü €", event="ü"),
        Event(None, retry=7),
        Event(" data: \n\n id: 7"),
    ],
    ids=repr,
)
def test_sql_encodes_events_as_the_package_does(database: str, connection: Any, event: Event) -> None:
    with closing(make_broker(database)) as broker:
        listener = listening(broker, "a")
        values = ["a", event.data, event.event, event.retry]
        connection.execute("SELECT sse.publish(%s, %s::text, %s, %s)", values)
        connection.commit()
        until(lambda: listener.frames, "the event")
        [frame] = listener.frames
        assert listener.texts == [event.encode()]
        assert frame.name == (None if event.data is None else event.event or "message")


WRONG = [
    "'', 'x'",
    "NULL, 'x'",
    "'!revoked', 'x'",
    "'a b', 'x'",
    "'a', 'x', 'gap'",
    "'a', 'x', '~end'",
    "'a', 'x', E'a\\nid: 7'",
    "'a', 'x', retry => -1",
    "'a', repeat('x', 1048577)",
]


@pytest.mark.parametrize("call", WRONG)
def test_sql_refuses_what_no_event_can_be(connection: psycopg.Connection[Any], call: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        connection.execute(f"SELECT sse.publish({call})".encode())


def test_sql_key_makes_one_event_of_two_transactions(connection: psycopg.Connection[Any], board: Board) -> None:
    with board.open("a") as stream:
        for number in range(2):
            connection.execute("SELECT sse.publish('a', %s::text, key => 'k')", [str(number)])
            connection.commit()
        connection.execute("SELECT sse.publish('a', 'end')")
        connection.commit()
        assert texts(read(stream, 2)) == ["0", "end"]


def test_sql_event_goes_before_what_is_published_after_its_commit(
    connection: psycopg.Connection[Any], board: Board
) -> None:
    connection.execute("INSERT INTO sse.outbox (channel, body, label) VALUES ('a', 'data: first\n\n', 'message')")
    connection.commit()
    [second] = board.publish("a", "second")
    assert second.endswith("-2")


def test_drain_publishes_what_was_committed(database: str, connection: psycopg.Connection[Any], run: Run) -> None:
    """As who has committed it does, and before anybody looks; nothing where it was rolled back."""
    broker: Any = make_broker(database)
    with closing(broker):
        connection.execute("INSERT INTO sse.outbox (channel, body, label) VALUES ('a', 'data: 1\n\n', 'message')")
        broker.drain(["a", "b"])
        assert run("SELECT newest FROM sse.channels WHERE name = 'a'") == [(0,)]
        connection.commit()
        broker.drain(["a", "b", "a"])
        assert run("SELECT newest FROM sse.channels WHERE name = 'a'") == [(1,)]
        assert run("SELECT * FROM sse.outbox") == []


def test_sql_publishes_to_one_reader_alone(database: str, connection: psycopg.Connection[Any]) -> None:
    with closing_board(database, rule=lambda _: "7") as board, board.open("~") as stream:
        connection.execute("SELECT sse.publish('~7', 'mail')")
        connection.commit()
        assert texts(read(stream, 1)) == ["mail"]


@pytest.mark.parametrize("level", psycopg.IsolationLevel, ids=lambda level: level.name)
def test_sql_publishes_at_every_isolation_level(
    connection: psycopg.Connection[Any], board: Board, level: psycopg.IsolationLevel
) -> None:
    connection.isolation_level = level
    with board.open("a") as stream:
        connection.execute("SELECT count(*) FROM sse.outbox")
        board.publish("a", "of another")
        connection.execute("SELECT sse.publish('a', 'mine')")
        connection.commit()
        assert texts(read(stream, 2)) == ["of another", "mine"]


def test_open_transaction_delays_no_other_event(connection: psycopg.Connection[Any], board: Board, run: Run) -> None:
    """Of its own channel neither; its own is numbered when it commits."""
    with board.open("a") as stream:
        connection.execute("SELECT sse.publish('a', 'late')")
        for number in range(3):
            board.publish("a", number)
            run(f"SELECT sse.publish('a', 'sql {number}')")
        assert sorted(texts(read(stream, 6))) == ["0", "1", "2", "sql 0", "sql 1", "sql 2"]
        connection.commit()
        assert texts(read(stream, 1)) == ["late"]


def test_event_whose_publisher_died_before_it_was_numbered_arrives(board: Board, run: Run) -> None:
    with board.open("a") as stream:
        board.publish("a", 1)
        run("INSERT INTO sse.outbox (channel, body, label) VALUES ('a', 'data: 2\n\n', 'message')")
        assert texts(read(stream, 2)) == ["1", "2"]


def test_event_whose_publisher_died_before_it_told_arrives(database: str, board: Board, run: Run) -> None:
    with board.open("a") as stream, closing(make_broker(database)) as publisher:
        board.publish("a", 1)
        read(stream, 1)
        with not_telling(run):
            for number in range(2, 5):
                publish(publisher, "a", number)
                assert texts(read(stream, 1)) == [str(number)]


@contextmanager
def not_telling(run: Run) -> Iterator[None]:
    """Let no process tell the others what is new."""
    run("ALTER FUNCTION sse.announce(text[]) RENAME TO announced")
    run("CREATE FUNCTION sse.announce(text[]) RETURNS void LANGUAGE sql AS 'SELECT NULL::void'")
    yield
    run("DROP FUNCTION sse.announce(text[]); ALTER FUNCTION sse.announced(text[]) RENAME TO announce")
