"""Clients of runs that come at any time, are cut at random, and come back with their last id, as browsers do.

Each checks what it gets as it comes: all numbers in order, none twice, and one end.
"""

from __future__ import annotations

import heapq
import random
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import NoReturn

from tests.faults.crowds.chunked_body import Body
from tests.faults.network.network_clients import reset_when_closed
from tests.support.waiting import PATIENCE

#: A connection is cut at most so often.
MOST_CUTS = 4

#: What the run of a worker that was killed ends with.
INTERRUPTED = "interrupted"


@dataclass(eq=False)
class Watched:
    """A run, and what its readers know of it.

    :ivar is_short: little is kept of it: who comes late, or comes back late, may get a part, or a 204.
    """

    name: str
    count: int
    is_short: bool
    pid: int = 0  #: of the worker that runs it
    killed: float = 0.0  #: when that was killed
    is_interrupted: bool = False  #: a reader has been told so
    seen: int = 0  #: how many numbers any reader has had
    tape: dict[str, tuple[str, str]] = field(default_factory=dict)  #: the event of each id
    readers: list[Reader] = field(default_factory=list)


class Reader:
    """A client of one run, over all its connections."""

    def __init__(self, crowd: RunReaders, run: Watched, dice: random.Random, *, is_late: bool = False) -> None:
        self._crowd = crowd
        self._dice = dice
        self.run = run
        self.is_late = is_late  #: it came when all was over
        self.socket: socket.socket | None = None
        self.connections = 0
        self.next: int | None = None if run.is_short else 0  #: the number that is to follow; None is any
        self.last = ""  #: what came after all numbers
        self.is_told = False  #: that this is the end for good
        self.is_over = False  #: a 204 has told it that nothing is left
        self._id = ""
        self._body, self._text = Body(), b""

    def connect(self) -> None:
        self.connections += 1
        self._body, self._text = Body(), b""
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", self._crowd.port))
        self._crowd.selector.register(self.socket, selectors.EVENT_WRITE, (self, self._ask))
        if self.connections <= MOST_CUTS and not self.is_late and self._dice.random() < 0.7:
            self._crowd.later(self._dice.expovariate(2), self, self._cut)

    def do(self, step: Callable[[], object]) -> None:
        """Take a step; come back where the connection turns out to be lost."""
        try:
            step()
        except BlockingIOError:
            pass
        except ConnectionError:
            self._leave("lost")

    def close(self) -> None:
        if self.socket is not None:
            self._crowd.selector.unregister(self.socket)
            self.socket.close()
            self.socket = None

    def fail(self, what: str) -> NoReturn:
        raise AssertionError(
            f"reader {self.run.readers.index(self)} of {self.run.name}, on its connection {self.connections}, {what}; "
            f"next is {self.next} of {self.run.count}, the last {self.last!r}, the id {self._id!r}"
        )

    def _ask(self) -> None:
        assert self.socket is not None
        header = f"Last-Event-ID: {self._id}\r\n" if self._id else ""
        self.socket.send(f"GET /events/{self.run.name} HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode())
        self._crowd.selector.modify(self.socket, selectors.EVENT_READ, (self, self._read))

    def _read(self) -> None:
        assert self.socket is not None
        data = self.socket.recv(65_536)
        if not data:
            self._leave("ended")
            return
        if not self._body.has_begun and data.startswith(b"HTTP/1.1 204 "):
            self._take_204()
            return
        *blocks, self._text = (self._text + self._body.take(data)).split(b"\n\n")
        for block in blocks:
            self._take(block.decode())
        if self._body.is_over and self.is_told:
            self.close()
            self.connect()  # as a browser does: now it must be told that nothing is left
        elif self._body.is_over:
            self._leave("ended")

    def _take(self, block: str) -> None:
        fields = dict(line.partition(":")[::2] for line in block.split("\n"))
        if self.is_told:
            self.fail(f"got {block!r} after the end")
        self._id = fields["id"].strip() if "id" in fields else self._id
        if "data" not in fields:
            return
        name, data = fields.get("event", "").strip(), fields["data"].strip()
        self._crowd.events += 1
        if name == "~end":
            self.is_told = True
            if not (self.last or self.run.is_short):
                self.fail("was told of the end, and lacks something")
        elif name == "gap":
            self.next = None
            if not self.run.is_short:
                self.fail("got a gap")
        else:
            self._take_event(name, data)

    def _take_event(self, name: str, data: str) -> None:
        run = self.run
        if self.last or run.tape.setdefault(self._id, (name, data)) != (name, data):
            self.fail(f"got {name} {data!r}, and others got {run.tape[self._id]}")
        if name == INTERRUPTED:
            self.last = INTERRUPTED
            if not run.killed:
                self.fail("got it though its worker lives")
            if not run.is_interrupted:
                run.is_interrupted = True
                self._crowd.waited.append(time.monotonic() - run.killed)
        elif data == "[DONE]":
            self.last = data
            if self.next not in (None, run.count):
                self.fail("got the last event too early")
        elif self.next not in (None, int(data)):
            self.fail(f"got {data}")
        else:
            self.next = int(data) + 1
            run.seen = max(run.seen, self.next)

    def _take_204(self) -> None:
        if not (self.last or self.run.is_short):
            self.fail("was told that nothing is left, and lacks something")
        self.close()
        self.is_over = True

    def _cut(self) -> None:
        if self.socket is not None and not self.is_told:
            if self._dice.random() < 0.5:
                reset_when_closed(self.socket)
            self._leave("cut")

    def _leave(self, how: str) -> None:
        self._crowd.ends[how] += 1
        self.close()
        self._crowd.later(self._dice.uniform(0, 0.3), self, self.connect)


class RunReaders:
    """The readers of all runs, on one thread, in a ``with`` block."""

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.selector = selectors.DefaultSelector()
        self.readers: list[Reader] = []
        self.events = 0
        self.ends: Counter[str] = Counter()  #: of connections, before the last
        self.waited: list[float] = []  #: seconds from the kill until a reader of each run was told
        self._seed = seed
        self._timers: list[tuple[float, int, Reader, int, Callable[[], object]]] = []
        self._order = count()

    def __enter__(self) -> RunReaders:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self.readers:
            with suppress(KeyError):
                reader.close()
        self.selector.close()

    def add(self, run: Watched, *, within: float, is_late: bool = False) -> None:
        """Add a reader, which comes within so many seconds."""
        dice = random.Random(f"{self._seed}/{len(self.readers)}")
        reader = Reader(self, run, dice, is_late=is_late)
        run.readers.append(reader)
        self.readers.append(reader)
        self.later(dice.uniform(0, within), reader, reader.connect)

    def later(self, seconds: float, reader: Reader, step: Callable[[], object]) -> None:
        """Let a reader take a step later, if it still has the same connection."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), reader, reader.connections, step))

    def step(self, seconds: float = 0.0) -> None:
        """Let readers read what has come, or comes first within so many seconds."""
        while self._timers and self._timers[0][0] <= time.monotonic():
            _, _, reader, connection, step = heapq.heappop(self._timers)
            if reader.connections == connection and not reader.is_over:
                reader.do(step)
        for key, _ in self.selector.select(seconds):
            reader, step = key.data
            reader.do(step)

    def run_until(self, condition: Callable[[], object], what: str) -> None:
        """Let readers read until the condition holds; fail where none gets anything for a long time."""
        seen, deadline = -1, 0.0
        while not condition():
            if seen != self.events:
                seen, deadline = self.events, time.monotonic() + PATIENCE
            if time.monotonic() > deadline:
                waiting = [each for each in self.readers if not each.is_over]
                about = [f"{each.run.name}: {each.next}, {each.last!r}, {each.connections}" for each in waiting[:5]]
                raise AssertionError(f"waited in vain for {what}; {len(waiting)} wait: {'; '.join(about)}")
            self.step(0.02)
