"""Outages of a Redis, or a PostgreSQL, and of the workers that share it, at random moments drawn from a seed."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Protocol

import psutil

from tests.support.waiting import until
from tests.support.web.workers_server import WorkersServer

#: Seconds, on average, from the end of one trouble to the next, of the broker and of workers; and that each takes at
#: most.
BROKER_EVERY, WORKERS_EVERY, LONGEST = 0.5, 0.8, 0.8


class BrokerServer(Protocol):
    """What workers share."""

    def kill(self) -> None:
        """End it as a crash would."""

    def start(self) -> None:
        """Start it again."""

    def signal(self, number: int) -> None:
        """Send it a signal."""

    def cut_listeners(self) -> None:
        """Cut the connections on which processes listen."""


@contextmanager
def chaos(
    seed: int, rounds: int, broker: BrokerServer, server: WorkersServer, *more: Callable[[], object]
) -> Iterator[Callable[[], bool]]:
    """Kill, pause and cut off until all rounds or the block end; afterwards, everything runs again.

    :param rounds: how often each kind of trouble happens, in any order in each round.
    :param more: troubles of this kind of broker.
    :return: a function that says whether all rounds are over.
    """
    stopping = threading.Event()

    def last(dice: random.Random) -> None:
        stopping.wait(dice.uniform(0, LONGEST))

    def kill_broker(dice: random.Random) -> None:
        broker.kill()
        last(dice)
        broker.start()

    def pause_broker(dice: random.Random) -> None:
        broker.signal(signal.SIGSTOP)
        last(dice)
        broker.signal(signal.SIGCONT)

    def cut_subscribers(_dice: random.Random) -> None:
        """Cut the subscribers off: they reconnect, and receive late meanwhile."""
        broker.cut_listeners()

    def any_worker(dice: random.Random) -> psutil.Process:
        return dice.choice(until(lambda: server.workers, "a worker"))

    def kill_worker(dice: random.Random) -> None:
        with suppress(psutil.NoSuchProcess):  # gunicorn has ended it
            any_worker(dice).kill()

    def pause_worker(dice: random.Random) -> None:
        """Pause one worker: the broker and the others continue, so it lags behind."""
        worker = any_worker(dice)
        with suppress(psutil.NoSuchProcess):
            worker.suspend()
            last(dice)
            worker.resume()

    others = [lambda _, trouble=trouble: trouble() for trouble in more]

    def run(every: float, *troubles: Callable[[random.Random], object]) -> None:
        dice = random.Random(f"{seed}/{len(troubles)}")
        for _ in range(rounds):
            for trouble in dice.sample(troubles, len(troubles)):
                if stopping.wait(dice.uniform(0, 2 * every)):
                    return
                trouble(dice)

    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(run, BROKER_EVERY, kill_broker, pause_broker, cut_subscribers, *others),
            pool.submit(run, WORKERS_EVERY, kill_worker, pause_worker),
        ]
        try:
            yield lambda: all(each.done() and each.result() is None for each in runs)
        finally:
            stopping.set()
