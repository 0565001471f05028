"""The schema: who makes it, which rights a role needs, and that nothing stays in it for ever."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, text

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.brokers import Bounds, Broker, make_broker
from tests.brokers.redis.commands import invoked
from tests.support.board import Board, closing_board, read, texts
from tests.support.brokers.broker_calls import (
    KEPT,
    RecordingListener,
    end,
    frame,
    in_threads,
    listening,
    publish,
    publish_as,
)
from tests.support.waiting import until

pytestmark = pytest.mark.xdist_group("postgresql")

Run = Callable[[str], list[Any]]

APP = "GRANT USAGE ON SCHEMA sse TO {0}; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA sse TO {0}"
OTHER = "GRANT USAGE ON SCHEMA sse TO {0}; GRANT INSERT ON sse.outbox TO {0}"


def url_of(role: str, database: str) -> str:
    return database.replace("//tests@", f"//{role}@")


def printed(database: str, prefix: str = "sse") -> str:
    result = invoked(database, "schema", SSE_BROKER_PREFIX=prefix)
    assert result.exit_code == 0
    return result.stdout


def test_schema_that_is_printed_is_what_the_broker_makes(database: str, run: Run) -> None:
    """It may be run again, and the broker needs no more."""
    for _ in range(2):
        with psycopg.connect(database) as connection:
            connection.execute(printed(database).encode())
    find = (
        "SELECT oid, xmin::text FROM pg_proc WHERE pronamespace = 'sse'::regnamespace "
        "UNION ALL SELECT oid, xmin::text FROM pg_class WHERE relnamespace = 'sse'::regnamespace ORDER BY 1"
    )
    before = run(find)
    with closing(make_broker(database)) as broker:
        publish(broker, "a", 1)
        broker.check_writable()
    assert run(find) == before


def test_schema_that_is_printed_may_be_run_by_sqlalchemy(database: str) -> None:
    """As a migration of Alembic does, whose ``op.execute`` makes it a ``text()``; also a second time."""
    engine = create_engine(database.replace("postgresql:", "postgresql+psycopg:"))
    for _ in range(2):
        with engine.begin() as connection:
            connection.execute(text(printed(database)))
    engine.dispose()
    with closing(make_broker(database)) as broker:
        broker.check_writable()
        assert publish(broker, "a", 1)


def test_schema_is_named_by_the_prefix(database: str, run: Run) -> None:
    prefixes = ["sse", "other", "my-app.2"]
    texts_of = [printed(database, prefix).replace(f'"{prefix}"', "?") for prefix in prefixes]
    for prefix in prefixes:
        with closing(make_broker(database, prefix=prefix)) as broker:
            listener = listening(broker, "a")
            run(f"""SELECT "{prefix}".publish('a', '{prefix}')""")
            until(lambda listener=listener: listener.frames, "the event")  # type: ignore[misc]
            assert listener.texts == [f"data: {prefix}\n\n".encode()]
    assert [text.count("?") for text in texts_of] == [texts_of[0].count("?")] * 3
    with pytest.raises(ValueError, match="SSE_BROKER_PREFIX is the name of a schema"):
        make_broker(database, prefix="x" * 64)


def test_schema_is_printed_for_postgresql_alone() -> None:
    assert "only that has a schema" in invoked("redis://127.0.0.1:1", "schema").stderr


def test_schema_that_may_not_be_made_is_an_error_that_says_how(database: str, role: str) -> None:
    with closing(make_broker(url_of(role, database))) as broker:
        with pytest.raises(BrokerUnavailable, match=r"nothing was published.*flask sse schema"):
            broker.publish("a", frame("x"), KEPT)


def test_schema_is_made_once_by_many_processes_at_once(database: str) -> None:
    brokers = [make_broker(database) for _ in range(6)]
    ids: list[str] = []
    in_threads([lambda broker=broker: ids.extend(publish(broker, "a", 1)) for broker in brokers])  # type: ignore[misc]
    assert sorted(int(each.split("-")[1]) for each in ids) == [1, 2, 3, 4, 5, 6]
    for broker in brokers:
        broker.close()


def test_role_with_the_rights_that_are_named_can_do_everything(database: str, role: str, run: Run) -> None:
    text = printed(database)
    for line in (*APP.format("app").split("; "), *OTHER.format("other").split("; ")):
        assert line.replace(" sse", ' "sse"').replace('"sse".', '"sse".') in text
    run(f"BEGIN; {text}; COMMIT")
    run(APP.format(role))
    with closing(make_broker(url_of(role, database))) as broker, closing_board(url_of(role, database)) as board:
        listener = listening(broker, "a")
        broker.count_again("a")
        with board.open("a") as stream:
            until(lambda: board.sse.channel("a").subscribers() == 2, "both clients")
            publish(broker, "a", 1)
            broker.publish("a", frame(2), KEPT, key="k")
            assert broker.start_run("a", "run", 60)
            publish_as(broker, "run", "a", frame(3))
            assert broker.cancel_run("a", None)
            assert texts(read(stream, 3))[:3] == ["1", "2", "3"]
            until(lambda: len(listener.frames) == 4, "the end")
        broker.check_writable()
        assert broker.status()["state"] == "ok"
        with pytest.raises(psycopg.errors.InsufficientPrivilege), psycopg.connect(url_of(role, database)) as other:
            other.execute("DROP TABLE sse.events")


def test_role_of_a_trigger_needs_no_more_than_the_outbox(database: str, role: str, board: Board, run: Run) -> None:
    board.publish("a", 1)
    run(OTHER.format(role))
    with board.open("a") as stream, psycopg.connect(url_of(role, database), autocommit=True) as other:
        other.execute("SELECT sse.publish('a', 'x')")
        assert texts(read(stream, 1)) == ["x"]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            other.execute("SELECT * FROM sse.events")


def test_role_without_rights_is_an_error_that_names_them(database: str, role: str, board: Board) -> None:
    board.publish("a", 1)
    with closing(make_broker(url_of(role, database))) as broker:
        with pytest.raises(BrokerUnavailable, match=r"nothing was published; grant the role.*flask sse schema"):
            broker.publish("a", frame("x"), KEPT)


def aged(run: Run, seconds: int) -> None:
    """Make everything that much older."""
    for table, column in (("events", "at_ms"), ("keys", "at_ms"), ("channels", "touched_ms"), ("processes", "seen_ms")):
        run(f"UPDATE sse.{table} SET {column} = {column} - {seconds * 1000}")


def counted(run: Run) -> dict[str, int]:
    tables = ("channels", "events", "keys", "outbox", "processes", "presence")
    return {table: run(f"SELECT count(*) FROM sse.{table}")[0][0] for table in tables}


def test_old_rows_are_deleted_whoever_runs(new_broker: Callable[[], Broker], run: Run) -> None:
    """Events that are beyond the bounds or too old, keys, channels that nobody uses, and processes that were killed."""
    broker = new_broker()
    publish(broker, "kept", 1)
    publish(broker, "old", *range(30), bounds=Bounds(1000, 60))
    publish(broker, "few", *range(30), bounds=Bounds(3, 0))
    broker.publish("keyed", frame("x"), Bounds(10, 0), key="k")
    broker.state("unused")
    run("INSERT INTO sse.processes VALUES ('killed', '{}', sse.now_ms())")
    run("INSERT INTO sse.presence VALUES ('killed', 'few', 7)")
    aged(run, 400)
    publish(broker, "kept", 2)
    listener = listening(broker, "other")
    until(lambda: counted(run)["events"] == 5, "the events to be deleted")
    until(lambda: counted(run)["keys"] == 0 and run("SELECT id FROM sse.processes") == [(broker.process,)], "the rest")
    assert counted(run) == {"channels": 6, "events": 5, "keys": 0, "outbox": 0, "processes": 1, "presence": 1}
    aged(run, 700)
    until(lambda: not run("SELECT 1 FROM sse.channels WHERE name = 'unused'"), "the channel without events")
    assert run("SELECT name FROM sse.channels WHERE name = 'other'"), "it has a reader"
    assert [str(broker.state(channel).newest) for channel in ("few", "old")] == ["30", "30"]
    aged(run, 8 * 86_400)
    until(lambda: not run("SELECT 1 FROM sse.channels WHERE name = 'old'"), "the channel without a kept event")
    assert listener.starts == 1


def test_old_events_go_with_new_ones(new_broker: Callable[[], Broker], run: Run) -> None:
    """Also where no process has a reader."""
    broker = new_broker()
    publish(broker, "a", *range(200), bounds=Bounds(10, 60))
    aged(run, 30)
    publish(broker, "a", *range(64), bounds=Bounds(10, 60))
    [(count,)] = run("SELECT count(*) FROM sse.events")
    assert count <= 10 + 64 + 64


def test_channel_that_is_used_is_noted_as_such(new_broker: Callable[[], Broker], run: Run) -> None:
    """So readers of a channel without events do not lose it."""
    broker = new_broker()
    listener = RecordingListener()
    broker.subscribe("a", listener)
    until(lambda: listener.starts, "the start")
    aged(run, 500)
    find = "SELECT 1 FROM sse.channels WHERE name = 'a' AND touched_ms > sse.now_ms() - 400000"
    until(lambda: run(find), "it to be noted")
    end(broker, "a")
    until(lambda: listener.frames, "the end")
    assert listener.starts == 1
