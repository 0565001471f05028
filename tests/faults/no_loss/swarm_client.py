"""A client of a swarm, which reconnects as a browser does, and checks everything that it gets.

It reads one or two channels, remembers its last id as a browser does, and reconnects with it. Only the next event of
each channel may follow. The data of an event are compared with what others got under its id.

What a client does is drawn for each of its connections from the seed, the client's number and the connection's, so it
repeats, however the two sides are scheduled.
"""

from __future__ import annotations

import errno
import json
import math
import random
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from tests.apps.faults.swarm import CHANNELS
from tests.faults.crowds.chunked_body import Body
from tests.faults.network.network_clients import reset_when_closed

if TYPE_CHECKING:
    from tests.faults.no_loss.swarm import Swarm

OVER = b"event: over\n"

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
        self._at_hole = (0, 0)  # its events and connections at the newest hole
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
        swarm.selector.register(peer, selectors.EVENT_WRITE, (self, self._ask))
        if swarm.is_cutting:
            self.arm()

    def arm(self) -> None:
        """Schedule the cut of its connection."""
        if self.plan.way != "age" and self._cuts < self._swarm.habits.most_cuts:
            self._swarm.later(self.plan.seconds, self, self._cut)

    def do(self, step: Callable[[], object]) -> None:
        """Take a step that is due; reconnect if the connection turns out to be lost."""
        try:
            step()
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in _AGAIN:
                raise
            how = "half-close" if self.is_leaving else f"lost by {errno.errorcode[error.errno]}"
            self._leave(how, _REFUSED * (error.errno == errno.ECONNREFUSED))

    def _ask(self) -> None:
        assert self.socket is not None
        self.socket.send(self._request)
        self._swarm.selector.modify(self.socket, selectors.EVENT_READ, (self, self._read))

    def _read(self) -> None:
        swarm = self._swarm
        assert self.socket is not None
        is_slow = self._slow_until > swarm.now and swarm.is_cutting
        data = self.socket.recv(self.plan.dice.randrange(100, 4000) if is_slow else 65_536)
        if not data or self.take(data):
            end = "age" if data else "cut by the server"
            self._leave("half-close" if self.is_leaving else end)
        elif is_slow:
            swarm.selector.unregister(self.socket)
            swarm.later(self.plan.dice.expovariate(10), self, self._read_on)

    def _read_on(self) -> None:
        if self.socket is not None:
            self._swarm.selector.register(self.socket, selectors.EVENT_READ, (self, self._read))

    def _cut(self) -> None:
        if self.socket is None or self.is_leaving or not self._swarm.is_cutting:
            return
        self._cuts += 1
        if self.plan.way == "half-close":
            self.is_leaving = True
            self._note("closes its side")
            self.socket.shutdown(socket.SHUT_WR)
        else:
            if self.plan.way == "reset":
                reset_when_closed(self.socket)
            self._leave(self.plan.way)

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
                    self.holes.append(Hole(tuple(self.ids), tuple(position), self._blocks == 2))
                    self._at_hole = self.events, self.connections
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
        history = self._swarm.habits.history
        if history is None or self._announced is not None or requested != (self.ids or [b""]):
            self.fail(f"got {gap}")
        if not len(self.channels) == len(oldest) == len(newest):
            self.fail(f"got {gap}, which is of other channels")
        kept = [offset_of(last) - offset_of(first) + 1 for first, last in zip(oldest, newest, strict=True)]
        if min(kept) < 0 or [*map(epoch_of, oldest)] != [*map(epoch_of, newest)]:
            self.fail(f"got {gap}, which contradicts itself")
        if self.ids:
            self._check_hole(gap, oldest, kept, history)
        elif max(kept) < history:
            self.fail(f"got {gap}, though all events since it connected are still kept")
        else:
            self.was_let_in = math.inf  # more events came before its first position than are kept
        self._announced = [b"%b-%d" % (epoch_of(first), offset_of(first) - 1) for first in oldest]

    def _check_hole(self, gap: dict[str, str], oldest: Sequence[bytes], kept: Sequence[int], history: int) -> None:
        news = 0
        for was, first, size in zip(self.ids, oldest, kept, strict=True):
            missed = epoch_of(was) != epoch_of(first) or offset_of(first) - offset_of(was) - 1
            if missed < 0:
                self.fail(f"got {gap}, which would repeat events")
            if missed and offset_of(first) > 1 and size < history:
                self.fail(f"got {gap}, which skips events that are still kept")
            news += missed
        if not news:
            self.fail(f"got {gap}, though nothing is missing")
        if self._at_hole == (self.events, self.connections):
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
