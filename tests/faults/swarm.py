"""A swarm of clients on one thread that reconnect as browsers do, and are disconnected in every way.

Each reads one or two channels, remembers its last id as a browser does, and reconnects with it. Everything that it
gets is checked as it comes: only the next event of each channel may follow. The data of an event are compared with
what others got under its id, and at the end with what the server published under it.

With a Redis, the swarm reads from several workers. Workers and Redis are killed and paused (``chaos.py``), and the
publishers report what was published (``publishers.py``).

The choices of a client are drawn for each of its connections from the seed, the client's number and the connection's,
so they repeat, however the two sides are scheduled.
"""

from __future__ import annotations

import errno
import heapq
import json
import math
import os
import random
import selectors
import socket
import struct
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, count
from typing import NamedTuple, NoReturn

from tests.apps.swarm import CHANNELS
from tests.faults.chaos import Chaos
from tests.faults.chunked_body import Body
from tests.faults.process_servers import config
from tests.support.client import get, post
from tests.support.publishers import Publishers, lines_of
from tests.support.redis_server import RedisServer
from tests.support.servers import Server
from tests.support.waiting import PATIENCE
from tests.support.workers_server import WorkersServer

OVER = b"event: over\n"

#: Events of a channel, at most, by which a stream that ends may be ahead of where a new one begins, in one process.
#: Of several processes, one may have received nothing for a while.
AHEAD = 200

#: With these options a killed Redis loses no confirmed event and reports so: ids continue in one epoch.
KEPT = ("--appendonly", "yes", "--appendfsync", "always")

_RESET = struct.pack("ii", 1, 0)
_AGAIN = (errno.ECONNRESET, errno.ECONNREFUSED, errno.EPIPE, errno.ENOTCONN)

#: Seconds until a client retries a refused connection.
_REFUSED = 0.1

#: Seconds, on average, until an early cut: amid the request, the head or the first events.
EARLY = 0.005


@dataclass(frozen=True)
class Habits:
    """Probabilities and times of what happens to clients."""

    seed: int
    cut_every: float = 1.0  #: seconds, on average
    most_cuts: int = 8  #: of each client, so that the server also does other work
    ways: tuple[str, ...] = ("reset", "half-close", "age")  #: in which connections end; age is up to the server
    early: float = 0.4  #: share of the cuts that come at once, as a stream begins
    new: float = 0.0  #: share of the connections of new clients, which have no id
    turn: float = 0.0  #: seconds between two reads, on a machine that is busy otherwise
    channels: tuple[str, ...] = CHANNELS
    slow: float = 0.15  #: share of the connections that are read slowly at first
    pairs: float = 0.3  #: share of the clients that read two channels
    away: float = 0.0  #: seconds, at most, until a client reconnects; half of them reconnect at once
    history: int | None = None  #: events that the server keeps; None is all, and there are no gaps


@lru_cache(100_000)
def following(id: bytes) -> bytes:
    """Return the id that follows an id."""
    epoch, _, offset = id.rpartition(b"-")
    return b"%b-%d" % (epoch, int(offset) + 1)


def offset_of(id: bytes) -> int:
    return int(id.rpartition(b"-")[2])


def epoch_of(id: bytes) -> bytes:
    return id.rpartition(b"-")[0]


class Hole(NamedTuple):
    """A hole that a gap announced."""

    before: tuple[bytes, ...]  #: the client's position before
    after: tuple[bytes, ...]  #: its position after
    on_return: bool  #: the gap was the first thing that the connection brought
    event: int  #: number of events that the client had then
    connection: int

    def ways(self) -> list[tuple[bytes, bytes]]:
        """Return the positions before and after, of each channel."""
        return list(zip(self.before, self.after, strict=True))


class Plan:
    """What happens to one connection."""

    def __init__(self, habits: Habits, client: int, connection: int) -> None:
        self.dice = dice = random.Random(f"{habits.seed}/{client}/{connection}")
        self.way = dice.choice(habits.ways)
        self.seconds = dice.expovariate(1) * (EARLY if dice.random() < habits.early else habits.cut_every)
        self.slow_for = dice.uniform(0.3, 2) if dice.random() < habits.slow else 0.0
        self.away = max(0.0, dice.uniform(-habits.away, habits.away))
        self.is_new = dice.random() < habits.new


class Client:
    """A client, over all its connections."""

    def __init__(self, swarm: Swarm, number: int, channels: Sequence[str]) -> None:
        self._swarm = swarm
        self.number = number
        self.channels = channels
        self.first: list[bytes] = []  #: its first position
        self.was_let_in = 0.0  #: when its first response began: it must miss no later event
        self.ids: list[bytes] = []  #: its last ids; joined, they are what a browser sends
        self.holes: list[Hole] = []
        self.connections = 0
        self.over = 0  #: number of its channels that are over
        self.events = 0
        self._cuts = 0
        self._tapes = [swarm.tapes[channel] for channel in channels]
        self._announced: list[bytes] | None = None  # by a gap, whose position is to follow
        self._story: deque[str] = deque(maxlen=40)
        self.socket: socket.socket | None = None
        self.is_leaving = False

    # Connecting and disconnecting.

    def connect(self) -> None:
        swarm = self._swarm
        self.connections += 1
        self.plan = plan = Plan(swarm.habits, self.number, self.connections)
        if plan.is_new:
            self.ids, self.first = [], []
        self._slow_until = swarm.now + plan.slow_for
        self._body = Body()
        self._text = b""
        self._blocks = 0
        self._announced = None
        # Ending streams may be a little ahead of new ones, so the others' position is a lower bound only.
        newest = [next(reversed(tape), b"-0") for tape in self._tapes]
        self._least = [offset_of(event_id) - swarm.ahead for event_id in newest] if not self.ids else []
        self.is_leaving = False
        path = f"/events?{'&'.join(f'channel={channel}' for channel in self.channels)}"
        self.socket = peer = socket.socket()
        peer.setblocking(False)
        if plan.slow_for:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # otherwise such a small window stalls
            path += "&room=4096"
        last = b",".join(self.ids)
        self._request = b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (
            path.encode(),
            b"Last-Event-ID: %b\r\n" % last if last else b"",
        )
        self._note(f"comes with {last.decode() or 'no id'}{', slowly' * bool(plan.slow_for)}")
        peer.connect_ex(("127.0.0.1", swarm.port))
        swarm.selector.register(peer, selectors.EVENT_WRITE, self._ask)
        if swarm.is_cutting:
            self.arm()

    def arm(self) -> None:
        """Schedule the cut of its connection."""
        if self.plan.way != "age" and self._cuts < self._swarm.habits.most_cuts:
            self._swarm.later(self.plan.seconds, self, self._cut)

    def _ask(self) -> None:
        assert self.socket is not None
        try:
            self.socket.send(self._request)
        except OSError as error:
            self._lost(error)
            return
        self._swarm.selector.modify(self.socket, selectors.EVENT_READ, self._read)

    def _read(self) -> None:
        swarm = self._swarm
        assert self.socket is not None
        size = 65_536
        is_slow = self._slow_until > swarm.now and swarm.is_cutting
        if is_slow:
            size = self.plan.dice.randrange(100, 4000)
        try:
            data = self.socket.recv(size)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error)
            return
        if not data:
            self._leave("half-close" if self.is_leaving else "cut by the server")
            return
        if self.take(data):
            self._leave("half-close" if self.is_leaving else "age")
        elif is_slow:
            swarm.selector.unregister(self.socket)
            swarm.later(self.plan.dice.expovariate(10), self, self._read_on)

    def _read_on(self) -> None:
        if self.socket is not None:
            self._swarm.selector.register(self.socket, selectors.EVENT_READ, self._read)

    def _cut(self) -> None:
        if self.socket is None or self.is_leaving or not self._swarm.is_cutting:
            return
        self._cuts += 1
        if self.plan.way != "half-close":
            if self.plan.way == "reset":
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._leave(self.plan.way)
        else:
            self.is_leaving = True
            self._note("closes its side")
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError as error:
                self._lost(error)

    def _lost(self, error: OSError) -> None:
        if error.errno not in _AGAIN:
            raise error
        how = "half-close" if self.is_leaving else f"lost by {errno.errorcode[error.errno]}"
        self._leave(how, _REFUSED * (error.errno == errno.ECONNREFUSED))

    def _leave(self, how: str, seconds: float = 0.0) -> None:
        self._note(f"gone: {how}")
        self._swarm.cuts[how] += 1
        self.close()
        self._swarm.later(max(seconds, self.plan.away if self._swarm.is_cutting else 0.0), self, self.connect)

    def close(self) -> None:
        if self.socket is not None:
            with suppress(KeyError):  # a slow reader's pause
                self._swarm.selector.unregister(self.socket)
            self.socket.close()
            self.socket = None

    # Reading.

    def take(self, data: bytes) -> bool:
        """Read new data; return True at the end of the response."""
        body = self._body
        had_begun = body.has_begun
        try:
            text = body.take(data)
        except ValueError as error:
            self.fail(str(error))
        if body.has_begun and not had_begun and not self.ids:
            self.was_let_in = time.monotonic()
        if text:
            *blocks, self._text = (self._text + text).split(b"\n\n")
            self._read_blocks(blocks)
        return body.is_over

    def _read_blocks(self, blocks: list[bytes]) -> None:
        ids = self.ids
        for block in blocks:
            head, _, rest = block.partition(b"\n")
            for index, here in enumerate(ids):
                ids[index] = there = following(here)
                if rest and head == b"id: %b" % b",".join(ids):
                    if self._announced is None and self._tapes[index].setdefault(there, rest) == rest:
                        self.events += 1
                        if rest.startswith(OVER):
                            self.over += 1
                            self._swarm.is_cutting = False
                        break
                    ids[index] = here
                    self.fail(f"got {block!r}, while others got {self._tapes[index].get(there)!r} there")
                ids[index] = here
            else:
                self._read_other(block, head, rest)
            self._blocks += 1

    def _read_other(self, block: bytes, head: bytes, rest: bytes) -> None:
        """Read a block that is not the next event of a channel."""
        if head.startswith((b":", b"retry: ")) and b"data:" not in rest and b"id:" not in rest:
            return
        if head == b"event: gap":
            self._read_gap(json.loads(rest.removeprefix(b"data: ")))
        elif head.startswith(b"id: ") and not rest:
            position = head.removeprefix(b"id: ").split(b",")
            if self._announced is not None:
                if position != self._announced:
                    self.fail(f"is sent to {position}, but the gap said {self._announced}")
                if self.ids:
                    self.holes.append(
                        Hole(tuple(self.ids), tuple(position), self._blocks == 2, self.events, self.connections)
                    )
                self.first = self.first or position
                self.ids[:] = position
                self._announced = None
            elif not self.ids and len(position) == len(self.channels):
                if any(offset_of(here) < least for here, least in zip(position, self._least, strict=True)):
                    self.fail(f"is sent to {position}, when others were at {self._least} before it came")
                self.ids[:] = position
                self.first = position
            else:
                self.fail(f"is sent to {position} without a reason")
        else:
            self.fail(f"got {block!r}")
        self._note(block.decode())

    def _read_gap(self, gap: dict[str, str]) -> None:
        requested, oldest, newest = (gap[name].encode().split(b",") for name in ("requested", "oldest", "newest"))
        if self._swarm.habits.history is None or self._announced is not None:
            self.fail(f"got {gap}")
        if requested != (self.ids or [b""]) or not len(self.channels) == len(oldest) == len(newest):
            self.fail(f"got {gap}")
        if any(
            epoch_of(first) != epoch_of(last) or offset_of(last) < offset_of(first) - 1
            for first, last in zip(oldest, newest, strict=True)
        ):
            self.fail(f"got {gap}, which contradicts itself")
        if self.ids:
            self._check_hole(gap, requested, oldest, newest)
        else:
            self._check_late_beginning(gap, oldest, newest)
        self._announced = [b"%b-%d" % (epoch_of(first), offset_of(first) - 1) for first in oldest]

    def _check_late_beginning(self, gap: dict[str, str], oldest: Sequence[bytes], newest: Sequence[bytes]) -> None:
        """Check a gap before the first position: more events came meanwhile than are kept."""
        kept = [offset_of(last) - offset_of(first) + 1 for first, last in zip(oldest, newest, strict=True)]
        if max(kept) < (self._swarm.habits.history or 0):
            self.fail(f"got {gap}, though all events since it connected are still kept")
        self.was_let_in = math.inf

    def _check_hole(
        self, gap: dict[str, str], requested: Sequence[bytes], oldest: Sequence[bytes], newest: Sequence[bytes]
    ) -> None:
        history, news = self._swarm.habits.history or 0, 0
        for was, first, last in zip(requested, oldest, newest, strict=True):
            missed = epoch_of(was) != epoch_of(first) or offset_of(first) - offset_of(was) - 1
            if missed < 0:
                self.fail(f"got {gap}, which would repeat events")
            if missed and offset_of(first) > max(1, offset_of(last) - history + 1):
                self.fail(f"got {gap}, which skips events that are still kept")
            news += missed
        if not news:
            self.fail(f"got {gap}, though nothing is missing")
        if self.holes and self.holes[-1][3:] == (self.events, self.connections):
            self.fail(f"got {gap} right after another gap, for one hole")

    def _note(self, what: str) -> None:
        self._story.append(f"{self._swarm.now - self._swarm.began:7.3f} {what} @ {b','.join(self.ids).decode()}")

    def fail(self, what: str) -> NoReturn:
        raise AssertionError(
            f"{self} on its connection {self.connections} (block {self._blocks}) {what}\n{self.story()}"
        )

    def story(self) -> str:
        """Return what has happened to it lately."""
        return "\n  ".join([f"{self}:", *self._story])

    def __repr__(self) -> str:
        return f"client {self.number} of {'+'.join(self.channels)} at {b','.join(self.ids)!r}"


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

    def later(self, seconds: float, client: Client, call: Callable[[], object]) -> None:
        """Call later, if the client still has the same connection."""
        when = (self.now + seconds, next(self._order), client, client.connections, call)
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
                _, _, client, connection, call = heapq.heappop(self._timers)
                if client.connections == connection:
                    call()
            rest = min(look, self._timers[0][0] if self._timers else look) - time.monotonic()
            for key, _ in self.selector.select(max(0.0, rest)):
                key.data()
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
    with Server(kind, "tests.apps.swarm:app", env=env) as server, _swarming(server, habits) as swarm:
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


class Shared(NamedTuple):
    """Workers that share a Redis, and their swarm."""

    redis: RedisServer
    server: WorkersServer
    swarm: Swarm
    settings: dict[str, object]

    def publishers(self, size: Size) -> Publishers:
        seed = self.swarm.habits.seed
        return Publishers(self.server, size.threads, size.events, size.seconds, seed, self.settings)


@contextmanager
def swarming_over_redis(
    kind: str, habits: Habits, *, options: Sequence[str] = KEPT, **settings: object
) -> Iterator[Shared]:
    """Start a Redis with ``options``, two workers that share it, and a swarm for them."""
    with RedisServer(*options) as redis:
        settings = _settings(habits, {"SSE_BROKER_URL": redis.url, "SSE_PUBLISH_SECONDS": 0.5, **settings})
        with (
            WorkersServer(kind, "tests.apps.swarm:app", 2, env=config(**settings)) as server,
            _swarming(server, habits, math.inf) as swarm,
        ):
            yield Shared(redis, server, swarm, settings)


def publish_during_outages(shared: Shared, size: Size, rounds: int) -> Publishers:
    """Publish while clients reconnect and workers and Redis fail, in rounds; return once all clients are at the end."""
    swarm = shared.swarm
    swarm.begin(size)
    chaos = Chaos(swarm.habits.seed, rounds, shared.redis, shared.server)
    with shared.publishers(size) as publishers, chaos:
        swarm.run(lambda: all([chaos.is_over(), publishers.are_done()]), "the end of all troubles, and the publishers")
        swarm.run_to(publishers.publish_over())
    return publishers


def publish_to(server: Server, swarm: Swarm, size: Size) -> None:
    """Publish while clients reconnect; return once each has read its channels to the end."""
    swarm.begin(size)
    seed = swarm.habits.seed
    post(server, f"/publish?threads={size.threads}&events={size.events}&seconds={size.seconds}&seed={seed}")
    swarm.run_to_end()


def published_by(server: Server) -> dict[str, dict[bytes, bytes]]:
    """Return the event of each id of each channel, as the publishing threads recorded it."""
    found: dict[str, dict[bytes, bytes]] = {channel: {} for channel in CHANNELS}
    for thread in get(server, "/published"):
        newest = dict.fromkeys(CHANNELS, 0)
        for channel, event_id, name, data in thread:
            offset = offset_of(event_id.encode())
            assert offset > newest[channel], "a thread's later event has a lower id"
            newest[channel] = offset
            assert event_id.encode() not in found[channel], f"{event_id} stands for two events of {channel}"
            found[channel][event_id.encode()] = lines_of(name, data)
    for events in found.values():
        assert sorted(map(offset_of, events)) == list(range(1, len(events) + 1))
    return found


def check_all(swarm: Swarm, publishers: Publishers) -> None:
    """Check that ids count from 1, and that each client has all events since its start, or gaps for the others."""
    swarm.compare(publishers.published)
    for ids in publishers.published.values():
        assert len({*map(epoch_of, ids)}) == 1
        assert sorted(map(offset_of, ids)) == list(range(1, len(ids) + 1))
    begun: dict[bytes, float] = {}  # when the latest publish began, of each event and those before it
    for ids in publishers.published.values():
        ordered = sorted(ids, key=offset_of)
        begun |= zip(ordered, accumulate((publishers.begun[event_id] for event_id in ordered), max), strict=True)
    for client in swarm.clients:
        for event_id in client.first:
            assert begun.get(event_id, 0.0) <= client.was_let_in, f"{client!r} misses {event_id!r} and maybe more"
        missed = sum(offset_of(after) - offset_of(before) for hole in client.holes for before, after in hole.ways())
        assert client.events + missed == sum(map(offset_of, client.ids)) - sum(map(offset_of, client.first))


def new_seed() -> int:
    """Return a new seed, or that of the environment."""
    return int(os.environ.get("SEED", 0)) or random.SystemRandom().randrange(1, 2**32)
