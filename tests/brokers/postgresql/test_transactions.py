"""Many transactions at once publish exactly what they commit, in the order in which it is numbered."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import psycopg
import pytest

from flask_sse_emitters.brokers import Broker, make_broker
from tests.support.brokers.broker_calls import KEPT, RecordingListener, frame, in_threads, listening
from tests.support.waiting import until

pytestmark = pytest.mark.xdist_group("postgresql")

WRITERS, TRANSACTIONS, CHANNELS = 24, 8, ("a", "b", "c")


@pytest.fixture
def brokers(database: str) -> Iterator[list[Broker]]:
    """Two processes that listen, and so publish what others have left."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(make_broker(database))) for _ in range(2)]


class Writer:
    """Writes rows and publishes them, with rests, savepoints and rollbacks at random.

    :ivar committed: the channel and text of what was committed, in the order of its transactions.
    """

    def __init__(self, number: int, database: str, level: psycopg.IsolationLevel, seed: int) -> None:
        self.committed: list[tuple[str, str]] = []
        self._number = number
        self._database = database
        self._level = level
        self._chance = random.Random(f"{seed}/{number}")

    def run(self) -> None:
        chance = self._chance
        with psycopg.connect(self._database) as connection:
            connection.isolation_level = self._level
            for count in range(TRANSACTIONS):
                keeps = chance.random() < 0.7
                with connection.transaction(force_rollback=not keeps):
                    wrote = self._write(connection, f"{self._number} {count}")
                    time.sleep(chance.choice([0, 0, 0.02]))
                self.committed += wrote * keeps

    def _write(self, connection: psycopg.Connection[Any], text: str) -> list[tuple[str, str]]:
        wrote: list[tuple[str, str]] = []
        for number in range(self._chance.randrange(1, 4)):
            channel, keeps = self._chance.choice(CHANNELS), self._chance.random() < 0.7
            with connection.transaction(force_rollback=not keeps):  # a savepoint
                connection.execute("SELECT sse.publish(%s, %s::text)", [channel, f"{text} {number}"])
                time.sleep(self._chance.choice([0, 0.005]))
            wrote += [(channel, f"{text} {number}")] * keeps
        return wrote


@pytest.mark.parametrize("level", psycopg.IsolationLevel, ids=lambda level: level.name)
def test_transactions_publish_exactly_what_they_commit(
    database: str, brokers: list[Broker], level: psycopg.IsolationLevel, seed: int
) -> None:
    brokers[0].state("a")  # makes the schema
    listeners = [{channel: listening(broker, channel) for channel in CHANNELS} for broker in brokers]
    writers = [Writer(number, database, level, seed) for number in range(WRITERS)]
    published: list[tuple[str, str]] = []

    def publish_some() -> None:
        for number in range(60):
            channel = CHANNELS[number % 3]
            brokers[number % 2].publish(channel, frame(f"published {number}"), KEPT)
            published.append((channel, f"published {number}"))

    calls: list[Callable[[], object]] = [writer.run for writer in writers]
    in_threads([*calls, publish_some])
    everything = [each for writer in writers for each in writer.committed] + published
    assert len(everything) > 100
    until(partial(have_all, listeners, len(everything)), "all events")
    for channel in CHANNELS:
        one, other = (by_channel[channel] for by_channel in listeners)
        assert one.texts == other.texts
        texts = [text.decode()[len("data: ") : -2] for text in one.texts]
        assert sorted(texts) == sorted(text for where, text in everything if where == channel)
        assert [each.offset for each in one.frames] == [*range(1, len(texts) + 1)]
        for writer in writers:
            mine = [text for where, text in writer.committed if where == channel]
            assert [text for text in texts if text in mine] == mine, "a later transaction's event came first"


def have_all(listeners: list[dict[str, RecordingListener]], count: int) -> bool:
    return all(sum(len(each.frames) for each in by_channel.values()) == count for by_channel in listeners)


#: Messages of almost a page of NOTIFY's queue each, which no process understands.
MESSAGES = "SELECT pg_notify('sse', repeat('x', 7000) || number) FROM generate_series(1, 50) number"

#: The pages of that queue that are in use.
PAGES = "SELECT round(pg_notification_queue_usage() * 1048576)::int"


def test_open_transactions_with_events_do_not_let_the_queue_of_notify_grow(
    database: str, brokers: list[Broker], run: Callable[[str], list[Any]]
) -> None:
    """PostgreSQL frees what all listeners have read, and a listener reads nothing within a transaction."""
    listener = listening(brokers[0], "a")
    with psycopg.connect(database) as app:
        app.execute("SELECT sse.publish('a', 'late')")
        run(MESSAGES)
        until(lambda: run(PAGES)[0][0] < 5, "the listeners to read all of it")
        with psycopg.connect(database) as other:  # the same, with a listener that has a transaction open
            other.execute("LISTEN sse")
            other.commit()
            other.execute("SELECT 1")
            run(MESSAGES)
            brokers[0].publish("a", frame("1"), KEPT)
            until(lambda: len(listener.frames) == 1, "the event")
            assert run(PAGES)[0][0] >= 40
        until(lambda: run(PAGES)[0][0] < 5, "the queue to be empty again")
        app.commit()
        until(lambda: len(listener.frames) == 2, "the late event")
