"""A swarm of clients on one thread that reconnect as browsers do, and are disconnected in every way.

Each checks what it gets as it comes (``swarm_client.py``). At the end, this is compared with what the server published.

With a Redis, or a PostgreSQL, the swarm reads from several workers, and the publishers report what was published
(``publishers.py``).
"""

from __future__ import annotations

import heapq
import math
import random
import selectors
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Generic, NamedTuple, TypeVar

from tests.faults.no_loss.swarm_client import Client, Habits
from tests.faults.processes.process_servers import config
from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.brokers.publishers import Publishers
from tests.support.brokers.redis_server import RedisServer
from tests.support.servers import Server
from tests.support.waiting import PATIENCE
from tests.support.web.workers_server import WorkersServer

#: Events of a channel, at most, by which a stream that ends may be ahead of where a new one begins, in one process.
#: Of several processes, one may have received nothing for a while.
AHEAD = 200

#: With these options a killed Redis loses no confirmed event and reports so: ids continue in one epoch.
KEPT = ("--appendonly", "yes", "--appendfsync", "always")


class Swarm:
    """The clients of one server.

    :param ahead: how many events of a channel a client may be ahead of where another begins.
    """

    def __init__(self, port: int, habits: Habits, ahead: float = AHEAD) -> None:
        self.port = port
        self.habits = habits
        self.ahead = ahead
        self.selector = selectors.DefaultSelector()
        self.clients: list[Client] = []
        self.tapes: defaultdict[str, dict[bytes, bytes]] = defaultdict(dict)  #: the event of each id, by channel
        self.cuts: Counter[str] = Counter()
        self.is_cutting = False  #: clients are being cut
        self.began = self.now = time.monotonic()
        self._timers: list[tuple[float, int, Client, int, Callable[[], object]]] = []
        self._order = count()

    def __enter__(self) -> Swarm:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()
        self.selector.close()

    @property
    def events(self) -> int:
        return sum(client.events for client in self.clients)

    def add(self, number: int, *, within: float = 0.0) -> None:
        """Add clients, which connect within so many seconds."""
        habits = self.habits
        dice = random.Random(f"{habits.seed}/{len(self.clients)}")
        for _ in range(number):
            channels = dice.sample(habits.channels, 1 + (dice.random() < habits.pairs))
            client = Client(self, len(self.clients), channels)
            self.clients.append(client)
            self.later(dice.uniform(0, within), client, client.connect)

    def begin(self, size: Size) -> None:
        """Connect most clients before anything is published, and start cutting; the others connect meanwhile."""
        early = size.clients * 9 // 10
        self.add(early)
        self.run_to_position()
        self.start_cutting()
        self.add(size.clients - early, within=size.seconds / 2)

    def run_to_position(self) -> None:
        self.run(lambda: all(client.ids for client in self.clients), "all to have a position")

    def run_to_end(self) -> None:
        self.run(lambda: all(client.over == len(client.channels) for client in self.clients), "all to have everything")

    def run_to(self, newest: Mapping[str, bytes]) -> None:
        """Run as :meth:`run_to_end` does, if some clients may connect after the end of the channels."""
        ends = {client: [newest[channel] for channel in client.channels] for client in self.clients}
        self.run(
            lambda: all(client.ids == ends[client] and not client.is_leaving for client in self.clients),
            "all to be at the end",
        )

    def later(self, seconds: float, client: Client, step: Callable[[], object]) -> None:
        """Let a client take a step later, if it still has the same connection."""
        when = (self.now + seconds, next(self._order), client, client.connections, step)
        heapq.heappush(self._timers, when)

    def start_cutting(self) -> None:
        """Start cutting connections."""
        self.is_cutting = True
        for client in self.clients:
            if client.connections:
                client.arm()

    def run(self, until: Callable[[], object], what: str) -> None:
        """Let clients read until the condition holds; fail if no client gets an event for a while."""
        seen, deadline, look = -1, 0.0, 0.0
        while True:
            self.now = now = time.monotonic()
            if now > look:
                if until():
                    return
                look = now + 0.02
                if (events := self.events) != seen:
                    seen, deadline = events, now + PATIENCE
                elif now > deadline:
                    behind = [client for client in self.clients if client.over < len(client.channels)]
                    waited = f"waited {PATIENCE:g} s in vain for {what}; {len(behind)} clients are behind"
                    raise AssertionError("\n".join([waited, *(each.story() for each in behind[:3])]))
            while self._timers and self._timers[0][0] <= now:
                _, _, client, connection, step = heapq.heappop(self._timers)
                if client.connections == connection:
                    client.do(step)
            rest = min(look, self._timers[0][0] if self._timers else look) - time.monotonic()
            for key, _ in self.selector.select(max(0.0, rest)):
                client, step = key.data
                client.do(step)
            time.sleep(self.habits.turn)

    def compare(self, published: dict[str, dict[bytes, bytes]]) -> None:
        """Check that clients got under each id what was published under it."""
        for channel, tape in self.tapes.items():
            for event_id, rest in tape.items():
                assert published[channel].get(event_id) == rest, f"{event_id!r} of {channel} is {rest!r} for clients"


@dataclass(frozen=True)
class Size:
    """Numbers of clients, events and threads."""

    clients: int
    events: int
    seconds: float  #: that publishing takes, or longer if it is not possible
    threads: int = 4


@contextmanager
def swarming(kind: str, habits: Habits, **settings: object) -> Iterator[tuple[Server, Swarm]]:
    """Start a server with these settings, and a swarm for it. A failure names the seed that repeats it."""
    env = config(**_settings(habits, settings))
    with Server(kind, "tests.apps.faults.swarm:app", env=env) as server, _swarming(server, habits) as swarm:
        yield server, swarm


@contextmanager
def _swarming(server: Server, habits: Habits, ahead: float = AHEAD) -> Iterator[Swarm]:
    try:
        with Swarm(server.port, habits, ahead) as swarm:
            yield swarm
    except BaseException as error:
        error.add_note(f"SEED={habits.seed} repeats the choices. The server said:\n{server.log[-5000:]}")
        raise


def _settings(habits: Habits, settings: Mapping[str, object]) -> dict[str, object]:
    history = 10**6 if habits.history is None else habits.history
    return {"SSE_HEARTBEAT": 0.5, "SSE_HISTORY": history, **settings}


BrokerServer = TypeVar("BrokerServer")


class Shared(NamedTuple, Generic[BrokerServer]):
    """Workers that share a broker, and their swarm."""

    broker: BrokerServer
    server: WorkersServer
    swarm: Swarm
    settings: dict[str, object]

    def publishers(self, size: Size) -> Publishers:
        seed = self.swarm.habits.seed
        return Publishers(self.server, size.threads, size.events, size.seconds, seed, self.settings)


@contextmanager
def swarming_over_redis(
    kind: str, habits: Habits, *, options: Sequence[str] = KEPT, **settings: object
) -> Iterator[Shared[RedisServer]]:
    """Start a Redis with ``options``, two workers that share it, and a swarm for them."""
    with RedisServer(*options) as redis, _sharing(redis, redis.url, kind, habits, 2, settings) as shared:
        yield shared


@contextmanager
def swarming_over_postgresql(
    kind: str, habits: Habits, *, workers: int, **settings: object
) -> Iterator[Shared[PostgresqlServer]]:
    """Start a PostgreSQL, so many workers that share it, and a swarm for them."""
    with PostgresqlServer() as server, _sharing(server, server.url(), kind, habits, workers, settings) as shared:
        yield shared


@contextmanager
def _sharing(
    broker: BrokerServer, url: str, kind: str, habits: Habits, workers: int, settings: Mapping[str, object]
) -> Iterator[Shared[BrokerServer]]:
    settings = _settings(habits, {"SSE_BROKER_URL": url, "SSE_PUBLISH_SECONDS": 0.5, **settings})
    with (
        WorkersServer(kind, "tests.apps.faults.swarm:app", workers, env=config(**settings)) as server,
        _swarming(server, habits, math.inf) as swarm,
    ):
        yield Shared(broker, server, swarm, settings)
