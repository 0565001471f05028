"""A process that publishes numbers to a Redis, and a crowd of clients of the workers that share it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.crowd_clients import Crowd, Visitor
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE
from tests.support.workers_server import WorkersServer


class PublishingProcess:
    """Publishes numbers to a channel, from the first that is not confirmed; can be killed and restarted."""

    def __init__(self, url: str, last: int, pause: float) -> None:
        self.begun = self.confirmed = 0
        self.failures: list[float] = []  #: seconds until each failure was reported
        self._to, self._rest = [url, "a"], [str(last), str(pause)]

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.apps.crowd_publisher",
            *self._to,
            str(self.confirmed + 1),
            *self._rest,
        ]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                what, _, value = line.partition(" ")
                if what == "failed":
                    self.failures.append(float(value))
                else:
                    setattr(self, what, int(value))


@contextmanager
def publishing(url: str, last: int, pause: float) -> Iterator[PublishingProcess]:
    publisher = PublishingProcess(url, last, pause)
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.kill()


@contextmanager
def sharing(redis: RedisServer, **config: object) -> Iterator[WorkersServer]:
    config = {"SSE_BROKER_URL": redis.url, "SSE_HISTORY": 100_000, "SSE_PUBLISH_SECONDS": 0.5, **config}
    env = {f"SWARM_{key}": json.dumps(value) for key, value in config.items()}
    with WorkersServer("gevent", "tests.apps.swarm:app", 2, env=env) as server:
        yield server
        server.kill()


def numbers(visitor: Visitor) -> list[int]:
    return [int(event.data) for event in [*visitor.before, *visitor.events()]]


def read_to(crowd: Crowd, last: int) -> None:
    """Read until each client has the last number; clients that were cut reconnect."""
    end = f"data: {last}\n".encode()

    def all_have_it() -> bool:
        crowd.come_back([visitor for visitor in crowd.visitors if visitor.ended])
        return all(end in visitor.received for visitor in crowd.visitors)

    crowd.read_until(all_have_it, f"number {last} at all of them")
