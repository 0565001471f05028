"""Outages of a Redis and of the workers that share it, at random moments drawn from a seed."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

import psutil

from tests.support.redis_server import RedisServer
from tests.support.waiting import until
from tests.support.workers_server import WorkersServer


@dataclass(frozen=True)
class Troubles:
    """How often outages happen, and for how long."""

    rounds: int = 2  #: how often each kind of trouble happens; any order in each round
    redis_every: float = 0.6  #: seconds, on average, from the end of one trouble to the next
    workers_every: float = 1.0
    longest: float = 0.8  #: seconds that each takes at most
    long_pauses: float = 0.0  #: share of Redis pauses so long that subscribers take it for gone


class Chaos:
    """Kill, pause and cut off until all rounds or the ``with`` block end; afterwards, everything runs again."""

    def __init__(self, seed: int, troubles: Troubles, redis: RedisServer, server: WorkersServer) -> None:
        self.happened: Counter[str] = Counter()
        self._seed = seed
        self._troubles = troubles
        self._redis = redis
        self._server = server
        self._stopping = threading.Event()
        self._failures: list[BaseException] = []
        of_redis = {
            "Redis killed": self._kill_redis,
            "Redis paused": self._pause_redis,
            "subscribers cut": self._cut_subscribers,
        }
        of_workers = {"worker killed": self._kill_worker, "worker paused": self._pause_worker}
        self._threads = [
            threading.Thread(target=self._run, args=args)
            for args in ((of_redis, troubles.redis_every), (of_workers, troubles.workers_every))
        ]

    def __enter__(self) -> Chaos:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def is_over(self) -> bool:
        for failure in self._failures:
            raise failure
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, troubles: dict[str, Callable[[random.Random], object]], every: float) -> None:
        dice = random.Random(f"{self._seed}/{' '.join(troubles)}")
        coming = [name for _ in range(self._troubles.rounds) for name in dice.sample([*troubles], len(troubles))]
        try:
            for name in coming:
                if self._stopping.wait(dice.uniform(0, 2 * every)):
                    return
                troubles[name](dice)
                self.happened[name] += 1
        except BaseException as error:
            self._failures.append(error)

    def _kill_redis(self, dice: random.Random) -> None:
        self._redis.kill()
        self._stopping.wait(dice.uniform(0, self._troubles.longest))
        self._redis.start()

    def _pause_redis(self, dice: random.Random) -> None:
        seconds = dice.uniform(0, self._troubles.longest)
        if dice.random() < self._troubles.long_pauses:
            seconds = dice.uniform(10, 12)
        self._redis.signal(signal.SIGSTOP)
        self._stopping.wait(seconds)
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
            self._stopping.wait(dice.uniform(0, self._troubles.longest))
            worker.resume()

    def _worker(self, dice: random.Random) -> psutil.Process:
        return dice.choice(until(lambda: self._server.workers, "a worker"))
