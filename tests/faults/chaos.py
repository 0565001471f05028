"""Outages of a Redis and of the workers that share it, at random moments drawn from a seed."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
        self._pool = ThreadPoolExecutor(2)
        self._runs: list[Future[None]] = []

    def __enter__(self) -> Chaos:
        of_redis = [self._kill_redis, self._pause_redis, self._cut_subscribers]
        of_workers = [self._kill_worker, self._pause_worker]
        self._runs = [
            self._pool.submit(self._run, of_redis, REDIS_EVERY),
            self._pool.submit(self._run, of_workers, WORKERS_EVERY),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._pool.shutdown()

    def is_over(self) -> bool:
        return all(run.done() and run.result() is None for run in self._runs)

    def _run(self, troubles: Sequence[Callable[[random.Random], object]], every: float) -> None:
        dice = random.Random(f"{self._seed}/{len(troubles)}")
        for _ in range(self._rounds):
            for trouble in dice.sample(troubles, len(troubles)):
                if self._stopping.wait(dice.uniform(0, 2 * every)):
                    return
                trouble(dice)

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
