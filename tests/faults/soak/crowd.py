"""The clients of the soak in one process: they connect, read, disconnect in every way, and reconnect.

Most are read in turns, several events at a time, as on a busy machine; a few are read at once, and measure the
latency of events from before their publication.
"""

from __future__ import annotations

import heapq
import random
import select
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from tests.faults.chunked_body import Body, WrongSequence
from tests.faults.soak.events import Histogram, Tape, Times, channel_name
from tests.faults.soak.reader import Reader
from tests.support.waiting import PATIENCE

#: Seconds between two turns, in which most clients are read.
TURN = 0.05

#: Clients that are read in one go before the quick ones have their turn.
READS_PER_GO = 16

#: Clients that connect at a time.
MAX_CONNECTING = 32

_WAYS = ("close", "reset", "half-close")
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Habits:
    """Numbers and rates of the clients of one process."""

    seed: int
    clients: int
    first: int  #: the number of the first one, among all
    channels: int
    churn: float  #: clients that disconnect in a second
    at_once: int  #: clients that are read at once
    away: float = 4.0  #: seconds, at most, until one reconnects; half of those that do reconnect at once


@dataclass
class Tally:
    """What has happened since the last report."""

    present: int = 0  #: clients with an open stream now
    events: int = 0  #: read since the beginning, by former and present clients
    happened: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)
    failures: list[str] = field(default_factory=list)


class Client:
    """A client, over all its connections."""

    __slots__ = ("body", "connected_at", "is_leaving", "is_quick", "peer", "place", "reader", "request")

    def __init__(self, place: int, reader: Reader, is_quick: bool) -> None:
        self.place = place
        self.reader = reader
        self.is_quick = is_quick  #: read at once
        self.peer: socket.socket | None = None
        self.body = Body()
        self.connected_at = 0.0
        self.request = b""
        self.is_leaving = False


class Crowd:
    """All clients of this process, on one thread."""

    def __init__(self, port: int, habits: Habits, times: Times) -> None:
        self._port = port
        self._habits = habits
        self._dice = random.Random(f"{habits.seed}/{habits.first}")
        self._tapes = [Tape(habits.seed, channel, times) for channel in range(habits.channels)]
        self._quick = select.epoll()
        self._calm = select.epoll()
        self._clients: list[Client] = [self._new(place) for place in range(habits.clients)]
        self._open: dict[int, Client] = {}  # by descriptor
        self._to_connect = deque(self._clients)
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()
        self._events = 0  # of clients that have left for good
        self._next_leave = float("inf")
        self.tally = Tally()

    def run(self, until: Callable[[], object]) -> None:
        """Let clients read until the condition holds, which is checked once a turn."""
        ready: deque[int] = deque()
        turn = 0.0
        while True:
            now = time.monotonic()
            if not ready and now >= turn:
                turn = now + TURN
                if until():
                    return
                self._do_what_is_due(now)
                ready.extend(fd for fd, _ in self._calm.poll(0, self._habits.clients + 1))
            for _ in range(min(READS_PER_GO, len(ready))):
                self._serve(ready.popleft())
            for fd, _ in self._quick.poll(0 if ready else max(0.0, turn - time.monotonic()), 256):
                self._serve(fd)

    def start_churn(self) -> None:
        """Start disconnecting clients."""
        if self._habits.churn:
            self._next_leave = time.monotonic()

    def stop_churn(self) -> None:
        self._next_leave = float("inf")

    def all_are_connected(self) -> bool:
        return self.present() == self._habits.clients

    def all_have(self, newest: list[str]) -> bool:
        """Whether all clients are connected, and at the newest id of their channel."""
        return all(self._is_at(client, newest) for client in self._clients)

    def behind(self, newest: list[str]) -> str:
        """Describe the clients that are behind; "" if none is."""
        late = [client for client in self._clients if not self._is_at(client, newest)]
        some = [f"{self._habits.first + client.place} at {client.reader.number}" for client in late[:10]]
        return f"{len(late)} clients are not at the end: {', '.join(some)}" if late else ""

    def _is_at(self, client: Client, newest: list[str]) -> bool:
        channel = self._channel(client.place)
        epoch, _, number = newest[channel].rpartition("-")
        known = (self._tapes[channel].epoch or b"").decode()
        return self._is_connected(client) and known == epoch and client.reader.number == int(number)

    def disconnect_all(self) -> None:
        """Disconnect all clients for good; the next ones are new."""
        self.stop_churn()
        self._timers.clear()
        self._to_connect.clear()
        for client in self._clients:
            self._close(client, self._dice.choice(_WAYS[:2]))
            self._events += client.reader.events
        self._clients = [self._new(client.place) for client in self._clients]

    def connect_all(self) -> None:
        self._to_connect.extend(self._clients)

    def present(self) -> int:
        return sum(map(self._is_connected, self._clients))

    def report(self) -> Tally:
        tally, self.tally = self.tally, Tally()
        tally.present = self.present()
        tally.events = self._events + sum(client.reader.events for client in self._clients)
        return tally

    # Connecting and disconnecting.

    def _new(self, place: int) -> Client:
        return Client(place, Reader(self._tapes[self._channel(place)]), place < self._habits.at_once)

    def _channel(self, place: int) -> int:
        return (self._habits.first + place) % self._habits.channels

    @staticmethod
    def _is_connected(client: Client) -> bool:
        return client.peer is not None and client.reader.is_reading and not client.is_leaving

    def _do_what_is_due(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
        while self._next_leave <= now:
            self._next_leave += self._dice.expovariate(self._habits.churn)
            self._disconnect_one(now)
        connecting = sum(1 for client in self._open.values() if not client.reader.is_reading)
        for _ in range(min(MAX_CONNECTING - connecting, len(self._to_connect))):
            self._come(self._to_connect.popleft(), now)

    def _later(self, seconds: float, call: Callable[[], object]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), call))

    def _disconnect_one(self, now: float) -> None:
        """Disconnect a random client, in a random way and for a random time."""
        dice = self._dice
        place, way, comes_back = dice.randrange(len(self._clients)), dice.choice(_WAYS), dice.random() < 0.5
        away = max(0.0, dice.uniform(-self._habits.away, self._habits.away)) if comes_back else 0.0
        for _ in self._clients:
            client = self._clients[place]
            if self._is_connected(client):
                break
            place = (place + 1) % len(self._clients)
        else:
            return
        self.tally.happened[way] += 1
        if way == "half-close":
            self._close_half(client, comes_back, away)
            return
        if way == "close":
            self._read(client, now)  # unread data would turn the close into a reset
        if client.peer is not None:
            self._close(client, way)
            self._replace(client, comes_back, away)

    def _close_half(self, client: Client, comes_back: bool, away: float) -> None:
        """Close the sending half: the client reads on until the server closes the other half."""
        assert client.peer is not None
        client.is_leaving = True
        peer = client.peer
        peer.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + PATIENCE

        def check_closed() -> None:
            if client.peer is None:
                self._replace(client, comes_back, away)
            elif time.monotonic() > deadline:
                self._fail(client, f"half-closed, and the server has not closed the rest for {PATIENCE:g} s")
            else:
                self._later(TURN, check_closed)

        check_closed()

    def _replace(self, client: Client, comes_back: bool, away: float) -> None:
        self.tally.happened["new" if not comes_back else "back later" if away else "back at once"] += 1
        if not comes_back:
            self._events += client.reader.events
            self._clients[client.place] = client = self._new(client.place)
        self._later(away, lambda: self._come(client, time.monotonic()))

    def _come(self, client: Client, now: float) -> None:
        last = client.reader.comes(now)
        client.body, client.connected_at, client.is_leaving = Body(), now, False
        client.request = b"GET /events?channel=%b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (
            channel_name(self._channel(client.place)).encode(),
            b"Last-Event-ID: %b\r\n" % last if last else b"",
        )
        client.peer = peer = socket.socket()
        peer.setblocking(False)
        peer.connect_ex(("127.0.0.1", self._port))
        self._open[peer.fileno()] = client
        self._quick.register(peer, select.EPOLLOUT)

    def _close(self, client: Client, way: str) -> None:
        if client.peer is None:
            return
        if way == "reset":
            client.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        del self._open[client.peer.fileno()]
        client.peer.close()
        client.peer = None

    def _fail(self, client: Client, what: str) -> None:
        """Record a failure and replace the client by a new one."""
        number = client.place + self._habits.first
        self.tally.failures.append(f"client {number} of {channel_name(self._channel(client.place))} {what}")
        self._close(client, "reset")
        self._replace(client, False, 1.0)

    # Reading.

    def _serve(self, fd: int) -> None:
        client = self._open.get(fd)
        if client is None:
            return
        now = time.monotonic()
        if client.request:
            self._ask(client)
        else:
            self._read(client, now)

    def _ask(self, client: Client) -> None:
        assert client.peer is not None
        try:
            client.peer.send(client.request)
        except OSError as error:
            self._fail(client, f"could not connect: {error}")
            return
        client.request = b""
        self._quick.modify(client.peer, select.EPOLLIN)

    def _read(self, client: Client, now: float) -> None:
        assert client.peer is not None
        try:
            data = client.peer.recv(262_144)
        except BlockingIOError:
            return
        except OSError as error:
            self._ended(client, str(error))
            return
        if not data:
            self._ended(client, "the connection was closed")
            return
        try:
            self._take(client, data, now)
        except (WrongSequence, LookupError, ValueError) as error:
            self._fail(client, str(error) if isinstance(error, WrongSequence) else repr(error))
            return
        if client.body.is_over:
            self._ended(client, "the response came to its end")

    def _take(self, client: Client, data: bytes, now: float) -> None:
        reader = client.reader
        if client.is_quick:
            before = reader.number
            reader.take(client.body.take(data), now)
            times = self._tapes[self._channel(client.place)].times
            for number in range(before + 1, reader.number + 1):
                if times[number] > client.connected_at:  # otherwise it was missed, and is replayed now
                    self.tally.latency.add(now - times[number])
            return
        was_reading = reader.is_reading
        reader.take(client.body.take(data), now)
        if reader.is_reading and not was_reading and client.peer is not None:
            self._quick.unregister(client.peer)
            self._calm.register(client.peer, select.EPOLLIN)

    def _ended(self, client: Client, how: str) -> None:
        if client.is_leaving:
            self._close(client, "close")
        else:
            self._fail(client, f"was disconnected by the server: {how}")
