"""Processes that publish with their commits are killed at each step that follows: events are what was committed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.board import closing_board, read, texts
from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE

LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
CHANNELS = ("a", "b", "c")

#: Between a commit and the wake-up of other processes: each is one of four processes with ten writers.
STEPS = (
    ("before", "publish_all"),  # committed, and not numbered
    ("after", "publish_all"),  # numbered, and nobody told
    ("before", "announce"),
    ("after", "announce"),
)


@pytest.fixture
def postgresql() -> Iterator[PostgresqlServer]:
    with PostgresqlServer() as server:
        yield server


def test_writers_killed_at_each_step_publish_exactly_their_commits(postgresql: PostgresqlServer, seed: int) -> None:
    """No row goes without its event, none has two, and each writer's come in the order of its commits."""
    database, chance = postgresql.new_database(), random.Random(seed)
    postgresql.run("CREATE TABLE rows (channel text, text text)", database)
    with closing_board(database) as board, ExitStack() as stack:
        streams = {name: stack.enter_context(board.open(name)) for name in CHANNELS}
        processes = []
        for number, step in enumerate(STEPS):
            arguments = [database, LEVELS[number % 3], f"{seed}/{number}", *step, str(chance.randrange(5, 40))]
            command = [sys.executable, "-m", "tests.apps.faults.killed_writers", *arguments]
            processes.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True))
            stack.callback(processes[-1].kill)
        for process in processes:
            _, errors = process.communicate(timeout=2 * PATIENCE)
            assert process.returncode == -signal.SIGKILL, errors
        killed = time.monotonic()
        rows = postgresql.run("SELECT channel, text FROM rows", database)
        assert len(rows) > 50
        for name, stream in streams.items():
            wanted = sorted(text for channel, text in rows if channel == name)
            events = read(stream, len(wanted))
            assert sorted(texts(events)) == wanted
            assert [str(each.id).split("-")[1] for each in events] == [str(1 + each) for each in range(len(events))]
            for writer in {text.split()[0] for text in wanted}:
                own = [each.data for each in events if each.data.split()[0] == writer]
                assert own == sorted(own, key=lambda text: [int(part) for part in text.split()[1:]])
        print(f"{len(rows)} rows; the last event came {time.monotonic() - killed:.2f} s after the last kill")  # noqa: T201
        assert [text for stream in streams.values() for text in texts(list(stream.ready()))] == []
