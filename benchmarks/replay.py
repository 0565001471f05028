"""``python -m benchmarks.replay``: what it costs when a herd of clients comes back, and all have missed something.

In one gevent worker of gunicorn, with one channel. In each round

1. clients connect that have missed nothing, and get one event after the other, the next when all have the last: what
   these cost is the measure of a live delivery;
2. all leave, and as many come at once with the id of before these events; they stay for a while, and leave;
3. herds of both kinds come and go in turns. What one that has missed events costs the worker more than one that has
   not, is the cost of these events.

CPU time is the worker's own: the clients are in this process, on the other core. Each client's events are compared with
what was published.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import select
import signal
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain, count
from typing import NamedTuple

from .measure import Journal, Metric, Results
from .processes import LOAD_CORE, BenchmarkFailed, alone, on_core, pss_bytes, raise_limits
from .steps import in_turns
from .subjects import Server
from .subjects.gunicorn import Ours

DATA_BYTES = 100

#: Connections that the worker has not accepted wait in the system's queue; one too many would try again a second later.
QUEUE = 4000

#: The clients look for news so often and do not sleep until there is some: the server would pay for waking them.
NAP = 0.0005

#: So often, in seconds, the worker is looked at: its memory while a herd comes, and whether it rests.
LOOK = 0.05

#: It rests where it has done nothing for so many looks: once is what others on its core may do to it.
QUIET = 5

#: So many herds of each kind are compared in a round, each right after another has left.
PAIRS = 4

#: Seconds without any progress.
PATIENCE = 60.0

#: Seconds after which all that was kept for a replay is to be gone.
LATER = 10.0

#: What a replayed event may cost, in live deliveries.
LIMIT = 0.1

#: The data of every event ends with it.
_MARK = b"~\n\n"
_CHUNK_END = b"\n\n\r\n"

LIVE = Metric("live", "live delivery, one event after the other", "µs")
NOTHING = Metric("nothing", "connect, nothing missed", "µs", 1)
MISSED = Metric("missed", "connect and replay", "µs", 1)
REPLAYED = Metric("replayed", "replayed event", "µs", 3)
RATIO = Metric("ratio", "replayed event, in live deliveries", "times", 3)
WALL_NOTHING = Metric("wall_nothing", "all are connected, nothing missed", "s")
WALL = Metric("wall", "all are connected and have everything", "s")
PSS_FRESH = Metric("pss_fresh", "before anybody came", "MB", 1)
PSS_EMPTY = Metric("pss_empty", "no clients, after others have left", "MB", 1)
PSS_IDLE = Metric("pss_idle", "idle clients that missed nothing", "MB", 1)
PSS_PEAK_NOTHING = Metric("pss_peak_nothing", "peak while they connect, nothing missed", "MB", 1)
PSS_PEAK = Metric("pss_peak", "peak of connect and replay", "MB", 1)
PSS_DONE = Metric("pss_done", "everything delivered", "MB", 1)
PSS_LATER = Metric("pss_later", f"{LATER:g} s later", "MB", 1)
PSS_LEFT = Metric("pss_left", "all have left", "MB", 1)

_TABLE = {
    "CPU time of the worker": [LIVE, NOTHING, MISSED, REPLAYED, RATIO],
    "Wall time": [WALL_NOTHING, WALL],
    "Memory (PSS) of the worker": [
        PSS_FRESH,
        PSS_EMPTY,
        PSS_IDLE,
        PSS_PEAK_NOTHING,
        PSS_PEAK,
        PSS_DONE,
        PSS_LATER,
        PSS_LEFT,
    ],
}


class WithChannel(Ours):
    app = "channels"


class Published(NamedTuple):
    """What clients are to read."""

    ids: list[bytes]
    blocks: list[bytes]


class Cost(NamedTuple):
    """Of one herd, from the first connection until the worker has come to rest."""

    cpu: float
    wall: float
    peak: float  #: bytes


class Herd:
    """Clients that come at once. While the server is measured they only count, and look closer afterwards."""

    _addresses = count(1)

    def __init__(self, server: Server, clients: int) -> None:
        self._server = server
        self._clients = clients
        # Its own, so that ports of those that left before are no matter.
        self._address = f"127.0.1.{next(self._addresses) % 250 + 1}"
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._raw: dict[int, bytearray] = {}
        self._silent: set[int] = set()  # those that have read nothing yet
        self._behind: set[int] = set()
        self._goal = 0

    def come(self, last_id: bytes | None, events: int) -> Cost:
        """Connect all; return once each has so many events."""
        server, self._goal = self._server, events
        header = b"" if last_id is None else b"Last-Event-ID: %b\r\n" % last_id
        request = b"GET /events/news HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n%b\r\n" % header
        before, began, look, peak = server.cpu(), time.monotonic(), 0.0, 0

        def go_on() -> bool:
            nonlocal look, peak
            room = min(QUEUE - len(self._silent), self._clients - len(self._sockets), 100)
            for _ in range(room):
                self._connect(request)
            if time.monotonic() > look:
                peak = max(peak, pss_bytes(server.pids))
                look = time.monotonic() + LOOK
            return room > 0

        self._read_until(lambda: not go_on() and not self._behind and len(self._sockets) == self._clients)
        wall = time.monotonic() - began
        peak = max(peak, pss_bytes(server.pids))
        self.rest()
        return Cost(server.cpu() - before, wall, peak)

    def live(self, texts: list[str]) -> tuple[Published, float]:
        """Publish these one by one.

        :return: with the CPU seconds that the server took.
        """
        published = Published([], [])
        before = self._server.cpu()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=PATIENCE)) as post:
            for self._goal, text in enumerate(texts, 1):
                self._behind = set(self._sockets)
                post.request("POST", "/publish", text)
                answer = post.getresponse()
                event_id = answer.read()
                if answer.status != 200:
                    raise BenchmarkFailed(f"publishing was answered with {answer.status}: {event_id!r}")
                published.ids.append(event_id)
                published.blocks.append(b"id: %b\ndata: %b" % (event_id, text.encode()))
                self._read_until(lambda: not self._behind)
        self.rest()
        return published, self._server.cpu() - before

    def check(self, expected: list[bytes]) -> None:
        """Each client has read exactly these events since the last look, and they are forgotten."""
        for raw in self._raw.values():
            found = [block for block in _text(bytes(raw)).split(b"\n\n") if b"\ndata:" in block or b"event:" in block]
            if found != expected:
                raise BenchmarkFailed(
                    f"a client has {len(found)} events in place of {len(expected)}: {found[:1]} to {found[-1:]}"
                )
            raw.clear()

    def rest(self) -> None:
        """Read on until the server has nothing left to do."""
        deadline, quiet = time.monotonic() + PATIENCE, 0
        while quiet < QUIET:
            before = self._server.cpu()
            time.sleep(LOOK)
            self._read()
            quiet = quiet + 1 if self._server.cpu() - before < 0.002 else 0
            if time.monotonic() > deadline:
                raise BenchmarkFailed("the server does not come to rest")

    def leave(self) -> None:
        for client in self._sockets.values():
            client.close()
        self._sockets.clear()
        self.rest()
        self._epoll.close()

    def _connect(self, request: bytes) -> None:
        client = socket.socket()
        client.bind((self._address, 0))
        client.connect(("127.0.0.1", self._server.port))
        client.send(request)
        client.setblocking(False)
        number = client.fileno()
        self._sockets[number] = client
        self._raw[number] = bytearray()
        self._silent.add(number)
        self._behind.add(number)
        self._epoll.register(number, select.EPOLLIN)

    def _read_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self._read():
                deadline = time.monotonic() + PATIENCE
            elif time.monotonic() > deadline:
                raise BenchmarkFailed(f"{len(self._behind)} clients wait for {self._goal} events in vain")
            else:
                time.sleep(NAP)

    def _read(self) -> bool:
        """Read what is there. False where nothing is."""
        ready = self._epoll.poll(0, 1000) if self._sockets else []
        for number, _ in ready:
            data = self._sockets[number].recv(262_144)
            if not data:
                raise BenchmarkFailed(f"the server ended a stream after {bytes(self._raw[number][-300:])!r}")
            raw = self._raw[number]
            raw += data
            self._silent.discard(number)
            if number in self._behind and raw.endswith(_CHUNK_END) and raw.count(_MARK) >= self._goal:
                self._behind.discard(number)
        return bool(ready)


def _text(raw: bytes) -> bytes:
    """What the chunks hold, which may be preceded by a response head."""
    if raw.startswith(b"HTTP/"):
        head, _, raw = raw.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 ") or b"chunked" not in head:
            raise BenchmarkFailed(f"a client was answered with {head!r}")
    parts, at = [], 0
    while at < len(raw):
        begin = raw.index(b"\r\n", at) + 2
        at = begin + int(raw[at : begin - 2], 16) + 2
        parts.append(raw[begin : at - 2])
    return b"".join(parts)


class Bench:
    """One server, and what is measured of it."""

    def __init__(self, server: Server, clients: int, missed: int) -> None:
        self._server = server
        self._clients = clients
        self._missed = missed
        self._numbers = count(1)
        self.results = Results()
        self._published = Published([], [])
        self._last_id = b""
        self.said = ""  #: of the last round

    def warm_up(self) -> None:
        """What is never given back is there afterwards, and one herd has come and gone of each kind."""
        self._add(PSS_FRESH, self._pss())
        with self._herd("nothing") as (herd, _):
            self._live(herd)
        with self._herd("missed"):
            pass

    def round(self) -> None:
        """All of it once."""
        time.sleep(1)
        self._add(PSS_EMPTY, self._pss())
        with self._herd("nothing") as (herd, cost):
            self._add(PSS_PEAK_NOTHING, cost.peak / 1e6)
            self._add(PSS_IDLE, self._pss())
            live = self._live(herd)
        with self._herd("missed") as (_, cost):
            self._add(PSS_PEAK, cost.peak / 1e6)
            self._add(PSS_DONE, self._pss())
            time.sleep(LATER)
            self._add(PSS_LATER, self._pss())
        time.sleep(1)
        self._add(PSS_LEFT, self._pss())
        costs: dict[str, list[Cost]] = {"nothing": [], "missed": []}
        for kind in in_turns("nothing", "missed", PAIRS):
            with self._herd(kind) as (_, cost):
                costs[kind].append(cost)
        self._add_costs(live, costs)

    @contextlib.contextmanager
    def _herd(self, kind: str) -> Iterator[tuple[Herd, Cost]]:
        herd = Herd(self._server, self._clients)
        if kind == "missed":
            cost = herd.come(self._last_id, self._missed)
            herd.check(self._published.blocks)
        else:
            cost = herd.come(None, 0)
            herd.check([])
        yield herd, cost
        herd.leave()

    def _live(self, herd: Herd) -> float:
        """:return: CPU seconds of a delivery."""
        width = DATA_BYTES - 1
        texts = [f"{next(self._numbers):x<{width}}~" for _ in range(self._missed)]
        self._published, spent = herd.live(texts)
        herd.check(self._published.blocks)
        epoch, _, offset = self._published.ids[0].rpartition(b"-")
        self._last_id = b"%b-%d" % (epoch, int(offset) - 1)
        return spent / self._clients / self._missed

    def _add_costs(self, live: float, costs: dict[str, list[Cost]]) -> None:
        nothing, missed = (statistics.median(cost.cpu for cost in costs[kind]) for kind in costs)
        replayed = (missed - nothing) / self._clients / self._missed
        self._add(LIVE, live * 1e6)
        self._add(REPLAYED, replayed * 1e6)
        self._add(RATIO, replayed / live)
        each = {kind: [round(cost.cpu / self._clients * 1e6) for cost in costs[kind]] for kind in costs}
        self.said = f"{live * 1e6:.2f} µs a live delivery, {replayed * 1e6:.3f} µs a replayed event; connects: {each}"
        for kind, cpu, wall in (("nothing", NOTHING, WALL_NOTHING), ("missed", MISSED, WALL)):
            for cost in costs[kind]:
                self._add(cpu, cost.cpu / self._clients * 1e6)
                self._add(wall, cost.wall)

    def _pss(self) -> float:
        return pss_bytes(self._server.pids) / 1e6

    def _add(self, metric: Metric, value: float) -> None:
        self.results.add(metric, self._clients, "", value)


def show(results: Results, clients: int, missed: int, journal: Journal) -> None:
    journal.say()
    journal.say(f"{clients:,} clients, {missed:,} events of {DATA_BYTES} bytes missed: median (lowest..highest)")
    medians = {metric: statistics.median(results.values(metric, clients, "")) for metric in chain(*_TABLE.values())}
    # Of all herds together: what a replay costs is small beside the scatter of the connects that it comes with.
    medians[REPLAYED] = (medians[MISSED] - medians[NOTHING]) / missed
    medians[RATIO] = medians[REPLAYED] / medians[LIVE]
    for title, metrics in _TABLE.items():
        journal.say()
        journal.say(title)
        for metric in metrics:
            values = results.values(metric, clients, "")
            middle, low, high = (f"{value:,.{metric.digits}f}" for value in (medians[metric], min(values), max(values)))
            verdict = ""
            if metric is RATIO:
                verdict = f"  <= {LIMIT:g}  {'PASS' if medians[RATIO] <= LIMIT else 'FAIL'}"
            journal.say(f"  {metric.title:<44} {middle:>10} {metric.unit:<5}  ({low}..{high}){verdict}")


def run(clients: int, missed: int, rounds: int, journal: Journal) -> None:
    settings = {
        "SSE_MAX_CLIENTS": str(2 * clients),  # those that left may be counted for a moment
        "SSE_HISTORY": str(max(1000, missed)),
        "SSE_HISTORY_SECONDS": "3600",
    }
    if raise_limits() < clients + 200:
        raise BenchmarkFailed(f"{clients:,} clients need more file descriptors than may be open: ulimit -n")
    with on_core(LOAD_CORE), WithChannel("replay", "auto", clients).start(settings) as server:
        try:
            bench = Bench(server, clients, missed)
            journal.note("what only warms it up")
            bench.warm_up()
            for number in range(1, rounds + 1):
                journal.note(f"round {number} of {rounds}")
                bench.round()
                journal.note(bench.said)
        except BenchmarkFailed as error:
            raise BenchmarkFailed(f"{error}\n{server.log}".strip()) from error
    show(bench.results, clients, missed, journal)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description="A herd that comes back.")
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--missed", type=int, default=100, help="events")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if min(given.clients, given.missed, given.rounds) < 1:
        parser.error("all are 1 or more")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is started is stopped in either case
    try:
        with alone():
            run(given.clients, given.missed, given.rounds, Journal())
    except BenchmarkFailed as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
