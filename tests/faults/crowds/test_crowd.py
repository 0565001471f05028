"""A crowd connects at once, and disconnects at once.

``CROWD=10000 pytest tests/faults/crowds/test_crowd.py`` changes the number of clients; ``-s`` prints the measurements.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import psutil
import pytest

from benchmarks.processes import raise_limits
from flask_sse_emitters.testing import decode
from tests.faults.crowds.chunked_body import Body
from tests.faults.network.network_clients import reset_when_closed
from tests.support.client import get, post, slow_client
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

#: Clients that connect within one second to a worker that hands streams off, and to one that writes on greenlets.
CROWD = int(os.environ.get("CROWD", 2_000))
CROWD_ON_GREENLETS = CROWD // 5

#: Seconds that a busy machine may take.
SLOW_SECONDS = 150.0

#: Descriptors of a process besides those of the crowd.
OTHERS = 200


#: How a connection is lost that a busy server has not accepted.
LOST = (ConnectionResetError, ConnectionRefusedError, BrokenPipeError)


@dataclass(slots=True, eq=False)
class Visitor:
    """A client. Times are those of ``time.monotonic()``."""

    began: float
    socket: socket.socket = field(init=False)
    received: bytes = b""
    answered: float = 0.0  #: when the first byte came

    def texts(self) -> tuple[str, ...]:
        return tuple(event.data for event in decode(Body().take(self.received)))


class Crowd:
    """Clients on one thread, in a ``with`` block. What they get is decoded later: as they connect, there is no time."""

    def __init__(self, port: int) -> None:
        self.visitors: list[Visitor] = []
        self.answered = 0  #: number of clients that have got something
        self.refused = 0  #: number of connections that were lost before, and made again at once
        self._port = port
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for visitor in self.visitors:
            visitor.socket.close()
        self._selector.close()

    def come(self, number: int, within: float) -> None:
        """Connect, evenly over the time, and read meanwhile."""
        began = time.monotonic()
        for index in range(number):
            self.visitors.append(Visitor(time.monotonic()))
            self._connect(self.visitors[-1])
            if index % 50 == 0:
                self.read(0)
                while (early := began + within * index / number - time.monotonic()) > 0:
                    self.read(early)

    def read(self, seconds: float) -> None:
        """Read what has come, or comes first within this time."""
        for key, events in self._selector.select(seconds):
            visitor = key.data
            try:
                if events & selectors.EVENT_WRITE:
                    visitor.socket.send(b"GET /connect/crowd?heartbeat=3 HTTP/1.1\r\nHost: x\r\n\r\n")
                    self._selector.modify(visitor.socket, selectors.EVENT_READ, visitor)
                    continue
                data = visitor.socket.recv(65_536)
            except LOST:
                data = b""
            if not visitor.received:
                visitor.answered = time.monotonic()
                self.answered += bool(data)
            visitor.received += data
            if not data:
                self.leave([visitor])
                if not visitor.received:
                    self.refused += 1
                    self._connect(visitor)

    def read_until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
            self.read(0.05)

    def leave(self, visitors: Sequence[Visitor]) -> None:
        """Disconnect these clients, every other one with a reset."""
        for index, visitor in enumerate(visitors):
            self._selector.unregister(visitor.socket)
            if index % 2:
                reset_when_closed(visitor.socket)
            visitor.socket.close()

    def _connect(self, visitor: Visitor) -> None:
        visitor.socket = socket.socket()
        visitor.socket.setblocking(False)
        visitor.socket.connect_ex(("127.0.0.1", self._port))
        self._selector.register(visitor.socket, selectors.EVENT_WRITE, visitor)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("gevent", CROWD), ("gthread", CROWD), ("sync", CROWD), ("gevent_off", CROWD_ON_GREENLETS)],
)
def test_crowd_comes_and_goes_within_a_second_and_others_are_served(kind: str, wanted: int) -> None:
    """Thousands connect, get an event, and disconnect; streams that were open before get their events all the while."""
    number = min(wanted, raise_limits() - OTHERS)  # each client takes a descriptor here, and one in the server
    env = {"CONFIG": json.dumps({"SSE_MAX_CLIENTS": 2 * CROWD})}
    with (
        ThreadPoolExecutor() as pool,
        Server(kind, "tests.apps.faults.crowd:app", env=env, arguments=["--worker-connections", "20000"]) as server,
        Crowd(server.port) as crowd,
        ExitStack() as stack,
    ):
        paths = ["/connect/old", "/connect/old", "/connect/quiet?heartbeat=0.2"]
        others = [stack.enter_context(slow_client(server, path, buffer=65_536)) for path in paths]
        records = [pool.submit(_record, other) for other in others]
        until(lambda: get(server, "/state")["lists"] == {"old": 2, "quiet": 1}, "the others to be there")
        before = get(server, "/state")
        post(server, "/tick/old?every=0.02")
        crowd.come(number, within=0.8)
        crowd.read_until(lambda: crowd.answered == number, "all to be answered", SLOW_SECONDS)
        began = min(visitor.began for visitor in crowd.visitors)
        came = max(visitor.answered for visitor in crowd.visitors)
        there = get(server, "/state")
        assert there["lists"]["crowd"] == number

        sent = time.monotonic()
        assert post(server, "/send/crowd", "to all") == {"reached": number}
        crowd.read_until(lambda: all(b"to all" in each.received for each in crowd.visitors), "the event", SLOW_SECONDS)
        reached = time.monotonic()
        assert Counter(visitor.texts() for visitor in crowd.visitors) == {("welcome", "to all"): number}

        stay, half = crowd.visitors[:20], number // 2
        leaving = time.monotonic()
        crowd.leave(crowd.visitors[20:half])
        amid = post(server, "/send/crowd", "amid")["reached"]
        crowd.leave(crowd.visitors[half:])
        until(lambda: _disconnects_are_counted(server, crowd, 20, number - 20), "all disconnects", SLOW_SECONDS)
        left = time.monotonic()
        assert 20 <= amid <= number
        crowd.read_until(lambda: all(b"amid" in each.received for each in stay), "the event amid the disconnects")
        assert {each.texts() for each in stay} == {("welcome", "to all", "amid")}
        crowd.leave(stay)
        until(lambda: _disconnects_are_counted(server, crowd, 0, number), "the last disconnects to be counted")
        most = before["descriptors"] + 2
        until(lambda: get(server, "/state")["descriptors"] <= most, "the descriptors to be closed")
        ends = get(server, "/state")["ends"]["crowd"]
        assert number <= ends.pop("DISCONNECTED") <= number + crowd.refused
        assert not ends
        post(server, "/tick/old?every=0")
        assert _busy_for(before["pid"], 0.5) < 0.25
        assert "Traceback" not in server.log
        assert not any(record.done() for record in records), "the others are still connected"
        for other in others:
            other.shutdown(socket.SHUT_RDWR)
        *busy, quiet = (record.result() for record in records)
    ticks = [
        [(when, int(tick)) for when, data in record for tick in re.findall(rb"data: (\d+)", data)] for record in busy
    ]
    size = (there["uss"] - before["uss"]) / number
    pauses = {
        "while they came": _longest_pause(ticks, began, came),
        "with the event": _longest_pause(ticks, sent, reached),
        "while they left": _longest_pause(ticks, leaving, left),
    }
    print(  # noqa: T201 - measurements
        f"\n{kind}: {number} clients; answered after {came - began:.2f} s, given an event in {reached - sent:.2f} s, "
        f"counted out {left - leaving:.2f} s after they left; {size / 1000:.1f} kB a client; pauses of others:",
        ", ".join(f"{seconds:.2f} s {when}" for when, seconds in pauses.items()),
    )
    for of_stream in ticks:
        assert [tick for _, tick in of_stream] == list(range(len(of_stream))), "each event once, and in order"
    assert any(began < when < came for when, data in quiet if data.endswith(b":\n\n\r\n")), "heartbeats go on"
    assert pauses["while they came"] < max(1.0, (came - began) / 3)
    if kind != "gevent_off":
        assert size < 10_000
        assert there["greenlets"] < 100
        assert there["threads"] < 230, "no more than gunicorn has for requests"


def _record(stream: socket.socket) -> list[tuple[float, bytes]]:
    """Return what comes until the socket is shut down, and when."""
    record = []
    with suppress(ConnectionResetError):  # with which the server may answer the shutdown
        while data := stream.recv(65_536):
            record.append((time.monotonic(), data))
    return record


def _disconnects_are_counted(server: Server, crowd: Crowd, there: int, ended: int) -> bool:
    """A client whose connection was reset and made again may have had a stream before."""
    found = get(server, "/counts/crowd")
    in_time = ended <= found["ended"] <= ended + crowd.refused
    return in_time and (found["clients"], found["listed"]) == (there + 3, there)


def _longest_pause(ticks: list[list[tuple[float, int]]], begin: float, end: float) -> float:
    """Return the longest pause of any of these streams, as far as it lies within ``begin`` and ``end``."""
    times = [[begin, *(when for when, _ in each if begin < when < end), end] for each in ticks]
    return max(after - before for each in times for before, after in itertools.pairwise(each))


def _busy_for(pid: int, seconds: float) -> float:
    """Return the seconds of processor time that a process takes meanwhile."""
    process = psutil.Process(pid)
    began = sum(process.cpu_times()[:2])
    time.sleep(seconds)
    return float(sum(process.cpu_times()[:2]) - began)
