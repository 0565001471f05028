"""A worker and a publisher that are killed amid their work: no event is lost or comes twice."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from tests.faults.swarm import Client, Habits, Shared, swarming_over_redis
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE, until


class PublishingProcess:
    """Publishes numbers to channel ``a``, from the first that is not confirmed; can be killed and restarted."""

    def __init__(self, url: str) -> None:
        self.begun = self.confirmed = self.failed = 0
        self._url = url

    def start(self, last: int = 10**6) -> None:
        arguments = [self._url, "a", str(self.confirmed + 1), str(last), "0.01"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.apps.crowd_publisher", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                what, number = line.split()
                setattr(self, what, int(number))


@contextmanager
def publishing(url: str) -> Iterator[PublishingProcess]:
    publisher = PublishingProcess(url)
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.kill()


def test_killed_worker_and_killed_publisher_lose_no_event(seed: int) -> None:
    """Both are killed amid their work; the clients of the worker reconnect, and the publisher retries."""
    dice = random.Random(seed)
    with swarming_over_redis("gevent", Habits(seed, slow=0, pairs=0, channels=("a",)), workers=2) as shared:
        swarm, server = shared.swarm, shared.server
        swarm.add(200)
        swarm.run_to_position()
        with publishing(shared.redis.url) as publisher:
            swarm.run(lambda: publisher.confirmed > 20, "the first events")
            victim, its = _kill_amid_a_delivery_pass(shared, dice)
            moment = publisher.confirmed + dice.randrange(30)
            swarm.run(lambda: publisher.confirmed >= moment, "a moment to kill the publisher")
            _kill_amid_a_publish(shared, publisher)
            last = publisher.begun + 60
            publisher.start(last)
            swarm.run(lambda: all(client.events >= last for client in swarm.clients), "the last number")
        until(lambda: victim not in (pids := {each.pid for each in server.workers}) and len(pids) == 2, "a new worker")
        assert [*swarm.tapes["a"].values()] == [b"data: %d" % number for number in range(1, last + 1)]
        assert {client.events for client in swarm.clients} == {last}
        assert {client for client in swarm.clients if client.connections > 1} == its


def _kill_amid_a_delivery_pass(shared: Shared, dice: random.Random) -> tuple[int, set[Client]]:
    """Stop a worker at one moment after another, until some of its clients lack what others have; kill it there."""
    swarm, victim = shared.swarm, shared.server.workers[0]
    peers = {each.raddr for each in victim.net_connections("tcp4") if each.raddr}
    its = {client for client in swarm.clients if client.socket and client.socket.getsockname() in peers}

    def is_amid() -> bool:
        time.sleep(dice.uniform(0, 0.015))
        victim.suspend()
        until(lambda: victim.status() == psutil.STATUS_STOPPED, "the worker to stand still")
        end = time.monotonic() + 0.02
        swarm.run(lambda: time.monotonic() > end, "all that it has written")
        if len({client.events for client in its}) > 1:
            return True
        victim.resume()
        return False

    until(is_amid, "a moment amid a delivery pass")
    victim.kill()
    return victim.pid, its


def _kill_amid_a_publish(shared: Shared, publisher: PublishingProcess) -> None:
    """Kill it while an event is on the way; Redis takes the event all the same, and confirms it to no one."""
    shared.redis.signal(signal.SIGSTOP)
    try:
        failed = publisher.failed  # what is begun may have been confirmed just before
        until(lambda: publisher.failed > failed, "something to be on the way that Redis cannot confirm")
        publisher.kill()
        assert publisher.begun == publisher.confirmed + 1
    finally:
        shared.redis.signal(signal.SIGCONT)
