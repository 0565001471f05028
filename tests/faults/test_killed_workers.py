"""A worker and a publisher that are killed amid their work: no event is lost or comes twice."""

from __future__ import annotations

import random
import signal
from collections import Counter

import psutil

from tests.faults.crowd_clients import Crowd, Visitor
from tests.faults.publishing_process import PublishingProcess, numbers, publishing, read_to, sharing
from tests.faults.swarm import new_seed
from tests.support.redis_server import RedisServer
from tests.support.waiting import until
from tests.support.workers_server import WorkersServer


def test_killed_worker_and_killed_publisher_lose_no_event() -> None:
    """Both are killed amid their work; the clients of the worker reconnect, and the publisher retries."""
    dice = random.Random(seed := new_seed())
    number, last = 200, 150
    with RedisServer() as redis, sharing(redis) as server, Crowd(server.port) as crowd:
        crowd.come(number, "/events?channel=a")
        crowd.read_until(lambda: crowd.answered == number, "all to be answered")
        with publishing(redis.url, last, pause=0.01) as publisher:
            crowd.read_until(lambda: publisher.confirmed > 20, "the first events")
            victim, its = _kill_amid_a_delivery_pass(server, crowd)
            crowd.read_until(lambda: publisher.confirmed >= dice.randrange(50, 80), "a moment to kill the publisher")
            unconfirmed = _kill_amid_a_publish(redis, publisher)
            publisher.start()
            read_to(crowd, last)
            until(lambda: publisher.is_over, "the publisher")
        until(lambda: victim not in (pids := {each.pid for each in server.workers}) and len(pids) == 2, "a new worker")
        assert {tuple(numbers(visitor)) for visitor in crowd.visitors} == {tuple(range(1, last + 1))}
    newest = Counter(int(visitor.at_cut) for visitor in its)
    print(  # noqa: T201 - measurements
        f"\nseed {seed}: worker killed amid a delivery pass: newest events of its {len(its)} clients: {dict(newest)};"
        f" publisher killed amid publishing {unconfirmed}"
    )
    assert len(newest) > 1, "some of its clients had an event that others had not"
    assert crowd.returns == len(its)


def _kill_amid_a_delivery_pass(server: WorkersServer, crowd: Crowd) -> tuple[int, list[Visitor]]:
    """Stop a worker at one moment after another, until some of its clients lack what others have; kill it there."""
    victim = server.workers[0]
    peers = {(each.raddr.ip, each.raddr.port) for each in victim.net_connections("tcp4") if each.raddr}
    its = [visitor for visitor in crowd.visitors if visitor.socket.getsockname() in peers]

    def is_amid() -> bool:
        crowd.read(0.005)
        victim.suspend()
        until(lambda: victim.status() == psutil.STATUS_STOPPED, "the worker to stand still")
        while crowd.read(0):  # all that it has written
            pass
        if len({visitor.received.count(b"\ndata: ") for visitor in its}) > 1:
            return True
        victim.resume()
        return False

    until(is_amid, "a moment amid a delivery pass")
    victim.kill()
    crowd.read_until(lambda: all(visitor.ended for visitor in its), "its clients to be cut")
    return victim.pid, its


def _kill_amid_a_publish(redis: RedisServer, publisher: PublishingProcess) -> int:
    """Kill it while an event is on the way; Redis takes the event all the same, and confirms it to no one."""
    redis.signal(signal.SIGSTOP)
    try:
        failures = len(publisher.failures)  # what is begun may have been confirmed just before
        until(lambda: len(publisher.failures) > failures, "something to be on the way that Redis cannot confirm")
        publisher.kill()
        assert publisher.begun == publisher.confirmed + 1
    finally:
        redis.signal(signal.SIGCONT)
    return publisher.begun
