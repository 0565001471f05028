"""The database loses events: no id stands for two, no loss goes without a gap, and streams that have them go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from psycopg.errors import DeadlockDetected

from flask_sse_emitters.brokers import Broker, make_broker
from tests.support.board import Board, board_reads, closing_board, gap_of, moved, read, texts
from tests.support.brokers.broker_calls import listening, publish
from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.waiting import until

pytestmark = pytest.mark.xdist_group("postgresql")

Run = Callable[[str], list[Any]]

TRUNCATE = "TRUNCATE sse.channels, sse.events, sse.keys, sse.outbox, sse.processes, sse.presence, sse.about"


#: Functions by which a process learns what others have published: it is told, or looks by itself.
HEARING = {
    "announce(text[])": "RETURNS void LANGUAGE sql AS 'SELECT NULL::void'",
    "changed(text[], text[], bigint[], boolean[], boolean[])": "RETURNS SETOF text LANGUAGE plpgsql AS 'BEGIN END'",
}


def truncate(run: Run) -> None:
    """Empty all tables, as a person does: again where a report of a process had one and waited for another.

    PostgreSQL then breaks off one of the two.
    """

    def is_done() -> bool:
        try:
            run(TRUNCATE)
        except DeadlockDetected:
            return False
        return True

    until(is_done, "the tables to be empty")


@contextmanager
def nothing_heard(run: Run) -> Iterator[None]:
    """Have no process learn what others publish."""
    for name, nothing in HEARING.items():
        run(f"ALTER FUNCTION sse.{name} RENAME TO hidden; CREATE FUNCTION sse.{name} {nothing}")
    yield
    for name in HEARING:
        kept, parameters = name.split("(")
        run(f"DROP FUNCTION sse.{name}; ALTER FUNCTION sse.hidden({parameters} RENAME TO {kept}")


def epoch_of(event_id: str) -> str:
    return event_id.split("-")[0]


@pytest.mark.parametrize("publishes", [True, False])
def test_truncated_tables_begin_a_new_epoch_and_open_streams_go_on(
    database: str, board: Board, run: Run, publishes: bool
) -> None:
    """Noticed at the next publish, or by itself. Offsets go on, so that a client with all of it misses nothing."""
    with board.open("a") as stream:
        ids = board.publish("a", 1, 2)
        read(stream, 2)
        truncate(run)
        if not publishes:
            find = "SELECT epoch FROM sse.channels WHERE name = 'a' AND newest = 2"
            [(epoch,)] = until(lambda: run(find), "the process to notice")
            assert epoch != epoch_of(ids[0])
        [after] = board.publish("a", 3)
        assert texts(read(stream, 1)) == ["3"]
        assert board.clients == 1
    assert epoch_of(after) != epoch_of(ids[0])
    assert after.endswith("-3")
    with closing_board(database) as other:
        assert texts(board_reads(other, "a", last=ids[1], count=1)) == ["3"]
        assert gap_of(board_reads(other, "a", last=ids[0], count=1))["requested"] == ids[0]


@pytest.mark.parametrize("other_is_first", [True, False])
def test_truncated_tables_are_a_gap_for_who_lacks_an_event(
    database: str, board: Board, run: Run, other_is_first: bool
) -> None:
    """Whichever process notices first: the one that published the last event, or one that reads."""
    with closing(make_broker(database)) as publisher, board.open("a") as stream:
        [first] = publish(publisher, "a", 1)
        read(stream, 1)
        with closing(make_broker(database)) as quiet:
            with nothing_heard(run):
                lost = [moved(first, 1)]
                run(
                    "WITH gone AS (SELECT * FROM sse.publish_all(ARRAY['a'], '{}', '{}', '{}', ARRAY[1, 2], "
                    "ARRAY['data: 2\n\n'::bytea], ARRAY['message'], ARRAY[NULL::bigint], ARRAY[NULL::bigint], "
                    "ARRAY[NULL], ARRAY[NULL])) SELECT * FROM gone"
                )
                assert publish(quiet, "a", 3) == [moved(first, 2)]
                truncate(run)
            (publish(quiet, "a", 4) if other_is_first else board.publish("a", 4))
            publish(quiet, "a", 5)
            until(lambda: not board.emitters[0].is_open or "5" in texts(stream.ready()), "the reader to be told")
        events = board_reads(board, "a", last=first, count=2)
        assert gap_of(events)["requested"] == first
        assert lost[0] not in [event.id for event in events]


@pytest.mark.parametrize("between", [0, 3])
def test_database_set_back_gives_no_id_twice_to_who_knows(
    new_broker: Callable[[], Broker], run: Run, between: int
) -> None:
    """As by restoring a dump into the tables. Perhaps another process, which knew less, has published in between."""
    quick, knows = new_broker(), new_broker()
    listener = listening(knows, "a")
    publish(knows, "a", 1, 2)
    lost = publish(knows, "a", 3)
    until(lambda: len(listener.frames) == 3, "all events")
    run("DELETE FROM sse.events WHERE number = 3; UPDATE sse.channels SET newest = 2 WHERE name = 'a'")
    given = publish(quick, "a", *range(between))
    [first] = publish(knows, "a", "first")
    assert epoch_of(first) != epoch_of(lost[0])
    assert first not in given
    assert publish(quick, "a", "second") == [moved(first, 1)]
    until(lambda: b"data: second\n\n" in listener.texts or listener.starts == 2, "the rest")


@pytest.fixture
def standby(shared_postgresql: PostgresqlServer) -> Iterator[tuple[PostgresqlServer, PostgresqlServer, str]]:
    """A primary, its standby, and the URL that finds whichever takes writes."""
    with PostgresqlServer() as primary, PostgresqlServer(primary=primary) as standby:
        ports = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        yield primary, standby, f"postgresql://tests@{ports}/postgres?target_session_attrs=read-write"


def has_all(standby: PostgresqlServer, primary: PostgresqlServer) -> bool:
    [(at,)] = primary.run("SELECT pg_current_wal_insert_lsn()::text")
    return bool(standby.run(f"SELECT pg_last_wal_replay_lsn() >= '{at}'")[0][0])


def test_promoted_standby_gives_no_id_twice_and_streams_go_on(
    standby: tuple[PostgresqlServer, PostgresqlServer, str],
) -> None:
    """It lacks the last event, which was confirmed, and which the stream has got."""
    primary, replica, url = standby
    with closing_board(url) as board, board.open("a") as stream:
        had = board.publish("a", 0, 1, 2)
        until(lambda: has_all(replica, primary), "the standby to have all")
        replica.kill()
        [lost] = board.publish("a", "lost")
        assert texts(read(stream, 4)) == ["0", "1", "2", "lost"]
        primary.kill()
        replica.start()
        replica.promote()

        def state() -> str:
            return str(board.sse.stats()["broker"]["state"])

        until(lambda: state() == "ok", "the new primary")
        [new] = board.publish("a", "new")
        assert texts(read(stream, 1)) == ["new"]
        assert epoch_of(new) != epoch_of(lost)
        assert new.endswith("-5")
        assert texts(board_reads(board, "a", last=had[2], count=2)) == ["lost", "new"], "this process still has it"
        with closing_board(url) as other:
            assert texts(board_reads(other, "a", last=lost, count=1)) == ["new"], "it lacks nothing"
            assert gap_of(board_reads(other, "a", last=had[1], count=1))["requested"] == had[1]


def test_promoted_standby_that_nobody_knows_more_of_changes_the_epoch(
    standby: tuple[PostgresqlServer, PostgresqlServer, str],
) -> None:
    """As it may lack confirmed events; clients that have what it has go on without a gap."""
    primary, replica, url = standby
    with closing_board(url) as board:
        had = board.publish("a", 0, 1)
        until(lambda: has_all(replica, primary), "the standby to have all")
    primary.kill()
    replica.promote()
    with closing_board(url) as board:
        [new] = board.publish("a", "new")
        assert epoch_of(new) != epoch_of(had[0])
        assert new.endswith("-3")
        assert texts(board_reads(board, "a", last=had[0], count=2)) == ["1", "new"]
