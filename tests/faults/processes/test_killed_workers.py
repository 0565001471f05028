"""A worker and a publisher that are killed amid their work: no event is lost or comes twice."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from typing import Any

import psutil

from flask_sse_emitters import BrokerUnavailable, Publisher
from tests.faults.no_loss.swarm import Shared, swarming_over_redis
from tests.faults.no_loss.swarm_client import Client, Habits
from tests.support.brokers.redis_server import RedisServer
from tests.support.waiting import until

_SPAWN = multiprocessing.get_context("spawn")


class PublishingProcess:
    """Publishes numbers to channel ``a``, from the first that is not confirmed; can be killed and started again.

    :ivar failed: the number of attempts that failed.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.begun, self.confirmed, self.failed = (_SPAWN.Value("i", 0, lock=False) for _ in range(3))
        self.start()

    def start(self, last: int = 10**6) -> None:
        figures = (self.begun, self.confirmed, self.failed)
        self._process = _SPAWN.Process(target=publish_numbers, args=(self._url, last, *figures))
        self._process.start()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def publish_numbers(url: str, last: int, begun: Any, confirmed: Any, failed: Any) -> None:
    """Publish each number until it is confirmed. Its key is the number itself, so that another process can go on."""
    with Publisher(url, publish_seconds=0.5) as publisher:
        for number in range(confirmed.value + 1, last + 1):
            begun.value = number
            while confirmed.value < number:
                try:
                    publisher.publish("a", number, key=str(number))
                    confirmed.value = number
                except BrokerUnavailable:
                    failed.value += 1
                time.sleep(0.01)


def test_killed_worker_and_killed_publisher_lose_no_event(seed: int) -> None:
    """Both are killed amid their work; the clients of the worker reconnect, and the publisher retries."""
    dice = random.Random(seed)
    with swarming_over_redis("gevent", Habits(seed, slow=0, pairs=0, channels=("a",))) as shared:
        swarm, server = shared.swarm, shared.server
        swarm.add(200)
        swarm.run_to_position()
        publisher = PublishingProcess(shared.broker.url)
        try:
            swarm.run(lambda: publisher.confirmed.value > 20, "the first events")
            victim, its = _kill_amid_a_delivery_pass(shared, dice)
            moment = publisher.confirmed.value + dice.randrange(30)
            swarm.run(lambda: publisher.confirmed.value >= moment, "a moment to kill the publisher")
            _kill_amid_a_publish(shared, publisher)
            last = publisher.begun.value + 60
            publisher.start(last)
            swarm.run(lambda: all(client.events >= last for client in swarm.clients), "the last number")
        finally:
            publisher.kill()
        until(lambda: victim not in (pids := {each.pid for each in server.workers}) and len(pids) == 2, "a new worker")
        assert [*swarm.tapes["a"].values()] == [b"data: %d" % number for number in range(1, last + 1)]
        assert {client.events for client in swarm.clients} == {last}
        assert {client for client in swarm.clients if client.connections > 1} == its


def _kill_amid_a_delivery_pass(shared: Shared[RedisServer], dice: random.Random) -> tuple[int, set[Client]]:
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


def _kill_amid_a_publish(shared: Shared[RedisServer], publisher: PublishingProcess) -> None:
    """Kill it while an event is on the way; Redis takes the event all the same, and confirms it to no one."""
    shared.broker.signal(signal.SIGSTOP)
    try:
        failed = publisher.failed.value  # what is begun may have been confirmed just before
        until(lambda: publisher.failed.value > failed, "something to be on the way that Redis cannot confirm")
        publisher.kill()
        assert publisher.begun.value == publisher.confirmed.value + 1
    finally:
        shared.broker.signal(signal.SIGCONT)
