"""Processes that share a PostgreSQL: workers, connections, forks, gevent, revocations, and what they report."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from flask_sse_emitters.brokers import Broker
from tests.brokers.any_server import check_refusal_of_unpatched_sockets, check_streams_during_restart
from tests.brokers.redis.commands import invoked
from tests.brokers.states import await_state
from tests.support.board import Board, by_header, closing_board, read, texts
from tests.support.brokers.broker_calls import in_threads, listening, publish
from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.client import connected
from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE, until
from tests.support.watched import settle, watching
from tests.support.wire import Wire

pytestmark = pytest.mark.xdist_group("postgresql")

Run = Callable[[str], list[Any]]


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_workers_keep_streams_during_postgresql_restart(kind: str, postgresql: PostgresqlServer, database: str) -> None:
    """Once they shut down, they are no longer counted."""
    arguments = ["--workers", "2", "--graceful-timeout", f"{PATIENCE:.0f}"]  # gunicorn kills workers that take longer
    settings = {"SSE_BROKER_URL": database, "SSE_HEARTBEAT": 0.2, "SSE_PUBLISH_SECONDS": 1, "SSE_DRAIN_SECONDS": 0.2}
    with (
        closing_board(database) as board,
        Server(kind, "tests.apps.channels:app", env={"CONFIG": json.dumps(settings)}, arguments=arguments) as http,
        connected(http, "/events/a") as client,
        connected(http, "/events/a") as other,
    ):
        check_streams_during_restart(postgresql, http, board, client, other)


def connections(run: Run) -> int:
    """Return the number of connections that others have."""
    [(count,)] = run(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return int(count)


def test_postgresql_connections_are_no_more_for_many_clients(board: Board, run: Run) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(board.open(f"c{number % 20}")) for number in range(60)]
        for number in range(20):
            board.publish(f"c{number}", number)
        for number, stream in enumerate(streams):
            assert texts(read(stream, 1)) == [str(number % 20)]
        assert connections(run) <= 3, "one that listens, one to publish, and one that tests what it hears"
        in_threads([partial(board.publish, "c1", *range(10))] * 30)
        assert connections(run) <= 9, "one that listens, and eight to publish"


def test_postgresql_connections_end_at_close_and_after_later_use(new_broker: Callable[[], Broker], run: Run) -> None:
    broker = new_broker()
    listening(broker, "a")
    publish(broker, "a", "x")
    assert connections(run)
    broker.close()
    until(lambda: not connections(run), "all connections to be closed")
    publish(broker, "a", "y")
    assert broker.clients_elsewhere("a") == 0
    until(lambda: not connections(run), "the new ones to be closed")


@pytest.mark.parametrize("kind", ["threads", "gevent"])
def test_apps_that_are_dropped_leave_no_thread_nor_postgresql_connection(kind: str, database: str) -> None:
    command = [sys.executable, "-m", "tests.apps.brokers.closing_process", database, kind]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=4 * PATIENCE)
    assert done.stdout == "all is freed\n", done.stderr


def test_fork_under_gevent_takes_no_answer_of_postgresql_of_the_parent(database: str) -> None:
    command = [sys.executable, "-m", "tests.apps.brokers.gevent_fork_postgresql", database]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=2 * PATIENCE)
    assert (done.returncode, done.stdout) == (0, "received by the child: 0\n"), done.stderr


@pytest.mark.parametrize("imports", ["import psycopg", "import json"], ids=["psycopg first", "gevent first"])
def test_postgresql_under_gevent_holds_up_no_greenlet(database: str, imports: str) -> None:
    """Whichever is imported first: psycopg chooses how to wait when it is imported."""
    program = f"""
{imports}
from gevent import monkey
monkey.patch_all()
import gevent, psycopg
from flask_sse_emitters.brokers import make_broker
from tests.support.brokers.broker_calls import listening, publish
from tests.support.waiting import until

broker = make_broker({database!r}, publish_seconds=30.0)
listener = listening(broker, "a")
turns = 0

def count():
    global turns
    while turns < 20:
        gevent.sleep(0.01)
        turns += 1
    holding.rollback()

with psycopg.connect({database!r}) as holding:
    holding.execute("LOCK TABLE sse.channels IN ACCESS EXCLUSIVE MODE")
    counting = gevent.spawn(count)
    publish(broker, "a", "x")
    print(turns)
    until(lambda: listener.frames, "the event")
broker.close()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "20\n"), done.stderr


def test_postgresql_under_gevent_without_patched_sockets_is_refused(database: str) -> None:
    check_refusal_of_unpatched_sockets(database)


def test_revocation_over_postgresql_applies_before_missed_events(postgresql: PostgresqlServer, database: str) -> None:
    """However many there are: both are read in pages."""
    with (
        Wire(postgresql.port) as wire,
        closing_board(database, rule=by_header) as here,
        closing_board(database.replace(f":{postgresql.port}/", f":{wire.port}/"), rule=by_header) as there,
        ExitStack() as stack,
    ):
        channels = [f"a{number}" for number in range(30)]
        streams = [stack.enter_context(watching(there, channel, user="ann")) for channel in channels]
        bob = stack.enter_context(watching(there, "a0", user="bob"))
        for channel, watched in zip(channels, streams, strict=True):
            settle(here, watched, channel=channel)
        wire.is_closed = True
        wire.cut()
        await_state(there, "degraded")
        for number in range(60):
            here.sse.disconnect(f"other {number}")
        here.sse.disconnect("ann")
        for channel in channels:
            here.sse.publish(channel, "late")
        wire.is_closed = False
        bob.await_text("late")
        assert [watched.await_end() for watched in streams] == [["begin"]] * len(streams)
        assert bob.is_open


def test_status_over_postgresql_shows_all_processes(database: str, board: Board) -> None:
    with closing_board(database) as other, board.open("a"), other.open("a"), other.open("b"):
        until(lambda: len(board.sse.processes()) == 2, "both processes")
        until(lambda: board.sse.channel("a").subscribers() == 2, "their clients")
        until(lambda: "2 processes" in invoked(database, "status").stdout, "both of them in the list")
        until(lambda: invoked(database, "publish", "a", "x").stderr == "2 clients read it\n", "both clients")
