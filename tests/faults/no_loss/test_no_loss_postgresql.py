"""No event is lost between workers that share a PostgreSQL, while all of them fail (``chaos.py``).

The clients check what they get (``swarm_client.py``). ``SEED`` repeats the choices of a failure, and ``SWARM_SCALE=3``
makes each swarm that much larger.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from flask_sse_emitters import BrokerUnavailable, Publisher
from flask_sse_emitters.testing import EventDecoder
from tests.apps.faults.swarm import CHANNELS
from tests.faults.no_loss.chaos import chaos
from tests.faults.no_loss.swarm import Size, swarming_over_postgresql
from tests.faults.no_loss.swarm_checks import check_all
from tests.faults.no_loss.swarm_client import Habits
from tests.faults.processes.process_servers import config
from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.waiting import PATIENCE, until
from tests.support.web.workers_server import WorkersServer

#: One at a time: each keeps two cores busy.
pytestmark = pytest.mark.xdist_group("swarm")

SCALE = int(os.environ.get("SWARM_SCALE", 1))
WORKERS = 4


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_clients_get_every_event_once_during_postgresql_and_worker_outages(kind: str, seed: int) -> None:
    """PostgreSQL is killed, crashes, is paused, and closes all connections."""
    size = Size(40 * SCALE, 600 * SCALE, 2 * SCALE)
    habits = Habits(seed)
    with swarming_over_postgresql(kind, habits, workers=WORKERS, SSE_TIMEOUT=size.seconds / 2) as shared:
        swarm = shared.swarm
        swarm.begin(size)
        troubles = chaos(seed, SCALE, shared.broker, shared.server, shared.broker.crash)
        with shared.publishers(size) as publishers, troubles as are_over:
            swarm.run(lambda: all([are_over(), publishers.are_done()]), "the end of troubles, and publishers")
            swarm.run_to(publishers.publish_over())
        check_all(swarm, publishers)
        assert publishers.confirmed >= size.events + len(CHANNELS)


class Reader(threading.Thread):
    """Reads a channel as a browser does: with the last id, when it comes back.

    :ivar got: the numbers that it has got, and None for each gap.
    """

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.got: list[int | None] = []
        self.is_over = False
        self._url = url
        self._last: dict[str, str] = {}

    def run(self) -> None:
        while not self.is_over:
            try:
                with requests.get(self._url, headers=self._last, stream=True, timeout=PATIENCE) as response:
                    decoder = EventDecoder()
                    for chunk in response.raw.stream(decode_content=True):
                        for event in decoder.feed(chunk):
                            self._take(event)
                        if self.is_over:
                            return
            except (requests.RequestException, OSError):
                continue

    def _take(self, event: Any) -> None:
        if event.id is not None:
            self._last = {"Last-Event-ID": event.id}
        if event.event == "gap":
            self.got.append(None)
        elif event.data == '"over"' or event.data == "over":
            self.is_over = True
        else:
            self.got.append(json.loads(event.data))


@contextmanager
def reading(server: WorkersServer, count: int) -> Iterator[list[Reader]]:
    readers = [Reader(f"{server.url}/events?channel=a&since=first") for _ in range(count)]
    for reader in readers:
        reader.start()
    try:
        yield readers
    finally:
        for reader in readers:
            reader.is_over = True


def test_failover_loses_nothing_that_is_not_announced() -> None:
    """The standby is promoted amid publishing. It lacks some of what was confirmed, as it was away for a moment."""
    confirmed: list[int] = []
    wanted = threading.Event()

    def publish() -> None:
        with Publisher(url, publish_seconds=0.5) as publisher:
            while not (wanted.is_set() and len(confirmed) > 150):
                number = len(confirmed)
                try:
                    publisher.publish("a", number, key=str(number))
                    confirmed.append(number)
                except BrokerUnavailable:
                    continue
            until(lambda: is_published(publisher, "over"), "the end")

    with PostgresqlServer() as primary, PostgresqlServer(primary=primary) as standby:
        ports = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        url = f"postgresql://tests@{ports}/postgres?target_session_attrs=read-write"
        settings = config(SSE_BROKER_URL=url, SSE_HEARTBEAT=0.5, SSE_RETRY=100)
        with WorkersServer("gevent", "tests.apps.faults.swarm:app", WORKERS, env=settings) as server:
            with reading(server, 12) as readers:
                publisher = threading.Thread(target=publish, daemon=True)
                publisher.start()
                until(lambda: all(len(reader.got) > 20 for reader in readers), "the first events")
                standby.kill()  # from here on it lacks what is confirmed
                least = len(confirmed) + 20
                until(lambda: len(confirmed) > least, "events that the standby lacks")
                primary.kill()
                standby.start()
                standby.promote()
                wanted.set()
                publisher.join(2 * PATIENCE)
                for reader in readers:
                    reader.join(PATIENCE)
                assert all(reader.is_over for reader in readers)
    for reader in readers:
        check(reader.got, confirmed)
    assert all(len(reader.got) > len(confirmed) / 2 for reader in readers)


def is_published(publisher: Publisher, text: str) -> bool:
    try:
        return bool(publisher.publish("a", text, key=text))
    except BrokerUnavailable:
        return False


def check(got: list[int | None], confirmed: list[int]) -> None:
    """Check that nothing came twice, and that where something is missing there is a gap, before what follows it."""
    numbers = [each for each in got if each is not None]
    assert len({*numbers}) == len(numbers), "something came twice"
    expected = 0
    is_announced = False
    for each in got:
        if each is None:
            is_announced = True
        else:
            assert each == expected or (is_announced and each > expected), (each, expected)
            expected, is_announced = each + 1, False
    assert expected == len(confirmed) or is_announced
