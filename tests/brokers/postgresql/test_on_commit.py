"""Publishing with the transactions of SQLAlchemy in the database of the broker: exactly if they commit."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.orm import Session

from flask_sse_emitters import BrokerUnavailable, NotInTransaction, Publisher
from flask_sse_emitters.testing import OpenStream
from tests.support.board import Board, closing_board, read, texts
from tests.support.brokers.broker_calls import in_threads
from tests.support.brokers.pgbouncer import pgbouncer
from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.xdist_group("postgresql")

Run = Callable[[str], list[Any]]

WRITERS, TRANSACTIONS, CHANNELS = 50, 4, ("a", "b", "c")


def engine_of(url: str, **options: Any) -> Engine:
    return create_engine(make_url(url).set(drivername="postgresql+psycopg"), **options)


@pytest.fixture
def engine(database: str, run: Run) -> Iterator[Engine]:
    run("CREATE TABLE orders (id int)")
    engine = engine_of(database, pool_size=20, pool_timeout=PATIENCE)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@pytest.fixture
def stream(board: Board) -> Iterator[OpenStream]:
    with board.open("a") as stream:
        yield stream


def add(session: Session, number: int) -> None:
    session.execute(text("INSERT INTO orders VALUES (:number)"), {"number": number})


def test_event_is_a_row_of_the_transaction_and_published_with_it(
    board: Board, stream: OpenStream, session: Session, run: Run
) -> None:
    board.sse.channel("a", history=3)
    board.sse.publish_on_commit(session, "a", {"id": 7}, event="created", key="k")
    board.sse.publish_on_commit(session, "a", "dropped, as its key is known", key="k")
    board.sse.publish_on_commit(session, "a", "é")
    columns = session.execute(text("SELECT channel, label, key, max_events FROM sse.outbox ORDER BY id")).all()
    assert columns == [("a", "created", "k", 3), ("a", "message", "k", 3), ("a", "message", None, 3)]
    locks = text("SELECT locktype FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'")
    assert session.execute(locks).all() == []
    assert run("SELECT 1 FROM sse.outbox") == []
    board.publish("a", "others do not wait for it")
    session.commit()
    events = read(stream, 3)
    assert [(each.event, each.data) for each in events] == [
        (None, "others do not wait for it"),
        ("created", '{"id": 7}'),
        (None, "é"),
    ]
    until(lambda: run("SELECT 1 FROM sse.outbox") == [], "the outbox to be empty")


def test_events_of_a_transaction_count_as_published_once_it_has_committed(board: Board, session: Session) -> None:
    board.sse.publish_on_commit(session, "a", "x")
    session.rollback()
    board.sse.publish_on_commit(session, "a", "x")
    board.sse.publish_on_commit(session, "a", "y")
    assert board.sse.stats()["published"] == 0
    session.commit()
    assert board.sse.stats()["published"] == 2


def roll_back(session: Session) -> None:
    session.rollback()


def close(session: Session) -> None:
    session.close()


def fail(session: Session) -> None:
    """Have PostgreSQL refuse the commit itself."""
    session.execute(text("CREATE TABLE once (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
    session.execute(text("INSERT INTO once VALUES (1), (1)"))
    with pytest.raises(DBAPIError):
        session.commit()
    session.rollback()


def roll_back_below_the_session(session: Session) -> None:
    """Which a session does not notice: it commits."""
    session.connection().exec_driver_sql("ROLLBACK")
    session.commit()


@pytest.mark.parametrize("end", [roll_back, close, fail, roll_back_below_the_session])
def test_event_of_a_transaction_that_does_not_commit_is_not_published(
    board: Board, stream: OpenStream, session: Session, end: Callable[[Session], None]
) -> None:
    board.sse.publish_on_commit(session, "a", "dropped")
    end(session)
    board.sse.publish_on_commit(session, "a", "kept")
    with session.begin_nested() as savepoint:
        board.sse.publish_on_commit(session, "a", "dropped with a savepoint")
        savepoint.rollback()
    session.commit()
    assert texts(read(stream, 1)) == ["kept"]
    board.publish("a", "next")
    assert texts(read(stream, 1)) == ["next"]


@pytest.mark.parametrize(("moment", "expected"), [("before_commit", []), ("after_commit", ["after_commit"])])
def test_process_killed_at_its_commit_publishes_if_that_was_done(
    database: str, board: Board, stream: OpenStream, engine: Engine, run: Run, moment: str, expected: list[str]
) -> None:
    """It dies between its commit and telling anybody; another process finds the event within a second."""
    command = [sys.executable, "-m", "tests.apps.brokers.committing", database, moment]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=2 * PATIENCE)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert texts(read(stream, len(expected))) == expected
    assert len(run("SELECT 1 FROM orders")) == len(expected)
    board.publish("a", "next")
    assert texts(read(stream, 1)) == ["next"]


def write(engine: Engine, board: Board, level: str, number: int, seed: int) -> None:
    """Write rows and publish the same, with rests, savepoints and rollbacks at random."""
    chance = random.Random(f"{seed}/{number}")
    with Session(engine.execution_options(isolation_level=level)) as session:
        for count in range(TRANSACTIONS):
            for each in range(chance.randrange(1, 4)):
                with session.begin_nested() as savepoint:
                    row = {"channel": chance.choice(CHANNELS), "text": f"{number} {count} {each}"}
                    session.execute(text("INSERT INTO rows VALUES (:channel, :text)"), row)
                    board.sse.publish_on_commit(session, row["channel"], row["text"])
                    time.sleep(chance.choice([0, 0.005]))
                    if chance.random() < 0.3:
                        savepoint.rollback()
            time.sleep(chance.choice([0, 0, 0.02]))
            chance.choice([session.commit, session.commit, session.commit, session.rollback])()


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_many_sessions_publish_exactly_the_rows_that_they_commit(
    database: str, engine: Engine, run: Run, level: str, seed: int
) -> None:
    run("CREATE TABLE rows (channel text, text text)")
    with closing_board(database) as board, closing_board(database) as other, ExitStack() as stack:
        streams = {name: [stack.enter_context(each.open(name)) for each in (board, other)] for name in CHANNELS}
        in_threads([partial(write, engine, board, level, number, seed) for number in range(WRITERS)])
        rows = run("SELECT channel, text FROM rows")
        assert len(rows) > WRITERS
        for name, both in streams.items():
            wanted = sorted(text for channel, text in rows if channel == name)
            one, two = (read(stream, len(wanted)) for stream in both)
            assert sorted(texts(one)) == wanted
            assert one == two, "both processes have the same order"
            assert [str(each.id).split("-")[1] for each in one] == [str(1 + each) for each in range(len(one))]
            for writer in range(WRITERS):
                own = [each.data for each in one if each.data.startswith(f"{writer} ")]
                assert own == sorted(own, key=lambda text: [int(part) for part in text.split()])


def test_greenlets_publish_exactly_what_they_commit(database: str, stream: OpenStream) -> None:
    command = [sys.executable, "-m", "tests.apps.brokers.committing_greenlets", database]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=4 * PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    committed = done.stdout.splitlines()
    assert len(committed) == 60
    assert sorted(texts(read(stream, len(committed)))) == sorted(committed)


def test_transaction_that_stays_open_delays_no_other_event(board: Board, stream: OpenStream, engine: Engine) -> None:
    """Neither of its channel nor of others; it is numbered when it commits."""
    with Session(engine) as slow, Session(engine) as quick, board.open("b") as other:
        board.sse.publish_on_commit(slow, "a", "slow")
        board.sse.publish_on_commit(quick, "a", "quick")
        board.sse.publish_on_commit(quick, "b", "other")
        quick.commit()
        board.publish("a", "published")
        assert texts(read(stream, 2)) == ["quick", "published"]
        assert texts(read(other, 1)) == ["other"]
        slow.commit()
        assert texts(read(stream, 1)) == ["slow"]


def test_session_of_another_database_publishes_after_its_commit(
    board: Board, stream: OpenStream, postgresql: PostgresqlServer, run: Run
) -> None:
    """Of the same server, with the same tables: its outbox would be another one."""
    url = postgresql.new_database()
    with closing_board(url) as other:
        other.publish("a", "makes the schema there")
    engine = engine_of(url)
    with Session(engine) as session:
        for number in (1, 2):
            board.sse.publish_on_commit(session, "a", str(number))
        assert session.execute(text("SELECT 1 FROM sse.outbox")).all() == []
        assert texts(stream.ready()) == []
        session.commit()
        assert texts(read(stream, 2)) == ["1", "2"]
        board.sse.publish_on_commit(session, "a", "dropped")
        session.rollback()
    engine.dispose()
    assert board.sse.stats()["published"] == 2


def test_session_behind_a_pooler_publishes_with_its_transaction(
    database: str, board: Board, stream: OpenStream, postgresql: PostgresqlServer
) -> None:
    """Its address is another one than that of the broker, and its database the same."""
    with pgbouncer(postgresql) as port:
        engine = engine_of(database.replace(f":{postgresql.port}/", f":{port}/"))
        with Session(engine) as session:
            board.sse.publish_on_commit(session, "a", "x")
            assert len(session.execute(text("SELECT 1 FROM sse.outbox")).all()) == 1
            session.commit()
            assert texts(read(stream, 1)) == ["x"]
        engine.dispose()


def test_database_without_advisory_locks_publishes_after_its_commit(
    board: Board, stream: OpenStream, session: Session, run: Run
) -> None:
    """As servers that only speak like PostgreSQL. The app's transaction stays whole."""
    session.execute(text("SET search_path TO other, pg_catalog, public"))
    run("CREATE SCHEMA other")
    run(
        "CREATE FUNCTION other.pg_try_advisory_xact_lock(bigint) RETURNS boolean LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'no locks' USING ERRCODE = '42883'; END $$"
    )
    add(session, 1)
    board.sse.publish_on_commit(session, "a", "x")
    assert session.execute(text("SELECT id FROM orders")).scalar_one() == 1
    session.commit()
    assert texts(read(stream, 1)) == ["x"]
    assert board.sse.stats()["published"] == 1


def test_broker_that_is_away_at_the_first_use_is_an_error_at_the_call(session: Session, run: Run) -> None:
    """Nobody can say whether it is the same database. The app's transaction stays whole."""
    with closing_board("postgresql://tests@127.0.0.1:1/other", SSE_PUBLISH_SECONDS=0.5) as board:
        add(session, 1)
        with pytest.raises(BrokerUnavailable, match="has the same database"):
            board.sse.publish_on_commit(session, "a", "x")
        session.commit()
    assert run("SELECT id FROM orders") == [(1,)]


def test_prepared_transaction_publishes_once_it_is_committed(board: Board, stream: OpenStream, engine: Engine) -> None:
    with Session(engine, twophase=True) as session:
        board.sse.publish_on_commit(session, "a", "dropped")
        session.prepare()
        session.rollback()
        board.sse.publish_on_commit(session, "a", "kept")
        session.prepare()
        board.publish("a", "before")
        session.commit()
        assert texts(read(stream, 2)) == ["before", "kept"]


def test_outbox_that_the_session_may_not_write_is_an_error(
    board: Board, database: str, engine: Engine, run: Run, role: str
) -> None:
    """As one of the session: its transaction cannot commit."""
    board.publish("a", "makes the schema")
    run(f"GRANT USAGE ON SCHEMA sse TO {role}; GRANT INSERT ON orders TO {role}")
    other = create_engine(make_url(database).set(drivername="postgresql+psycopg", username=role))
    with Session(other) as session:
        with pytest.raises(ProgrammingError, match="permission denied"):
            board.sse.publish_on_commit(session, "a", "x")
        session.rollback()
        run(f"GRANT INSERT ON sse.outbox TO {role}")
        with board.open("a") as stream:
            add(session, 1)
            board.sse.publish_on_commit(session, "a", "x")
            session.commit()
            assert texts(read(stream, 1)) == ["x"]
    other.dispose()


def test_outbox_in_a_schema_of_another_name_is_found(database: str, engine: Engine) -> None:
    with closing_board(database, SSE_BROKER_PREFIX="my:App-2/x") as board:
        with Session(engine) as session, board.open("a") as stream:
            board.sse.publish_on_commit(session, "a", "x")
            assert session.execute(text('SELECT channel FROM "my\\:App-2/x".outbox')).all() == [("a",)]
            session.commit()
            assert texts(read(stream, 1)) == ["x"]


def test_publisher_publishes_with_a_commit_and_starts_no_thread(
    database: str, stream: OpenStream, session: Session, run: Run
) -> None:
    """The event is numbered when commit() returns: a script may end then."""
    before = threading.enumerate()  # of which those of other tests may end
    with closing(Publisher(database)) as publisher:
        publisher.publish_on_commit(session, "a", "x")
        publisher.publish_to_on_commit(session, "ann", "hers")
        session.commit()
        assert run("SELECT 1 FROM sse.outbox") == []
        assert not {*threading.enumerate()}.difference(before)
        assert texts(read(stream, 1)) == ["x"]


def test_engine_that_commits_each_statement_is_refused(board: Board, database: str, run: Run) -> None:
    """Also where only the driver knows of it."""
    for options in ({"isolation_level": "AUTOCOMMIT"}, {"connect_args": {"autocommit": True}}):
        engine = engine_of(database, **options)
        with Session(engine) as session, pytest.raises(NotInTransaction):
            board.sse.publish_on_commit(session, "a", "x")
        engine.dispose()


def test_commit_succeeds_though_the_broker_cannot_publish(
    board: Board, stream: OpenStream, session: Session, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """What it has committed arrives once that is possible."""
    board.sse.publish_on_commit(session, "a", "first")
    session.commit()
    assert texts(read(stream, 1)) == ["first"]
    run("ALTER FUNCTION sse.publish_all RENAME TO renamed")
    board.sse.publish_on_commit(session, "a", "second")
    session.commit()
    until(lambda: "is published by a process that listens, once it can" in caplog.text, "the log")
    run("ALTER FUNCTION sse.renamed RENAME TO publish_all")
    assert texts(read(stream, 1)) == ["second"]
