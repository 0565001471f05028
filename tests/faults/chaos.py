"""Outages of a Redis and of the workers that share it, at random moments drawn from a seed."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable
from contextlib import suppress

import psutil

from tests.support.redis_server import RedisServer
from tests.support.waiting import until
from tests.support.workers_server import WorkersServer

#: Seconds, on average, from the end of one trouble to the next, of Redis and of workers; and that each takes at most.
REDIS_EVERY, WORKERS_EVERY, LONGEST = 0.5, 0.8, 0.8


class Chaos:
    """Kill, pause and cut off until all rounds or the ``with`` block end; afterwards, everything runs again.

    :param rounds: how often each kind of trouble happens, in any order in each round.
    """

    def __init__(self, seed: int, rounds: int, redis: RedisServer, server: WorkersServer) -> None:
        self._seed = seed
        self._rounds = rounds
        self._redis = redis
        self._server = server
        self._stopping = threading.Event()
        self._failures: list[BaseException] = []
        of_redis = [self._kill_redis, self._pause_redis, self._cut_subscribers]
        of_workers = [self._kill_worker, self._pause_worker]
        self._threads = [
            threading.Thread(target=self._run, args=args)
            for args in ((of_redis, REDIS_EVERY), (of_workers, WORKERS_EVERY))
        ]

    def __enter__(self) -> Chaos:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def is_over(self) -> bool:
        for failure in self._failures:
            raise failure
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, troubles: list[Callable[[random.Random], object]], every: float) -> None:
        dice = random.Random(f"{self._seed}/{len(troubles)}")
        coming = [trouble for _ in range(self._rounds) for trouble in dice.sample(troubles, len(troubles))]
        try:
            for trouble in coming:
                if self._stopping.wait(dice.uniform(0, 2 * every)):
                    return
                trouble(dice)
        except BaseException as error:
            self._failures.append(error)

    def _kill_redis(self, dice: random.Random) -> None:
        self._redis.kill()
        self._stopping.wait(dice.uniform(0, LONGEST))
        self._redis.start()

    def _pause_redis(self, dice: random.Random) -> None:
        self._redis.signal(signal.SIGSTOP)
        self._stopping.wait(dice.uniform(0, LONGEST))
        self._redis.signal(signal.SIGCONT)

    def _cut_subscribers(self, _dice: random.Random) -> None:
        """Cut the subscribers off: they reconnect, and receive late meanwhile."""
        self._redis.run("CLIENT KILL TYPE pubsub")

    def _kill_worker(self, dice: random.Random) -> None:
        with suppress(psutil.NoSuchProcess):  # gunicorn has ended it
            self._worker(dice).kill()

    def _pause_worker(self, dice: random.Random) -> None:
        """Pause one worker: Redis and the others continue, so it lags behind."""
        worker = self._worker(dice)
        with suppress(psutil.NoSuchProcess):
            worker.suspend()
            self._stopping.wait(dice.uniform(0, LONGEST))
            worker.resume()

    def _worker(self, dice: random.Random) -> psutil.Process:
        return dice.choice(until(lambda: self._server.workers, "a worker"))
