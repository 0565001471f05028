"""The events that the soak publishes, at an even rate, in a process of its own; their readers can predict them."""

from __future__ import annotations

import hashlib
import math
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from flask_sse_emitters import Publisher

#: Events of a channel that are kept for comparison; a client that is further behind is an error.
TAPE = 5_000

#: Seconds between two reports of a process.
REPORT_SECONDS = 1.0

#: Histograms of times have steps of 5 %.
_STEP = math.log(1.05)


def channel_name(channel: int) -> str:
    return f"soak-{channel}"


def text_of(seed: int, channel: int, number: int) -> str:
    """Return the data of an event, numbered from 1: about 100 characters that no other event has."""
    mark = hashlib.blake2b(f"{seed}/{channel}/{number}".encode(), digest_size=40).hexdigest()
    return f"{channel_name(channel)} {number} {mark}"


@dataclass(frozen=True)
class Times:
    """When each event was published, on the monotonic clock, for all processes; 0 if not yet.

    :ivar all: shared memory, channel after channel.
    :ivar most: events of a channel.
    """

    all: Any
    most: int

    def of(self, channel: int) -> MutableSequence[float]:
        """Return the times of a channel, by number of the event."""
        first = channel * (self.most + 1)
        times: Any = memoryview(self.all).cast("B").cast("d")[first : first + self.most + 1]
        return times  # type: ignore[no-any-return]


class Histogram:
    """Times in steps of 5 %, so that those of several processes can be merged."""

    def __init__(self, steps: Sequence[tuple[int, int]] = (), most: float = 0.0) -> None:
        self.steps = Counter(dict(steps))
        self.most = most

    def add(self, seconds: float) -> None:
        self.steps[int(math.log(max(seconds, 1e-6)) / _STEP)] += 1
        self.most = max(self.most, seconds)

    def merge(self, other: Histogram) -> None:
        self.steps.update(other.steps)
        self.most = max(self.most, other.most)

    def quantile(self, share: float) -> float | None:
        """Return a quantile in seconds; None without times."""
        left = share * self.steps.total()
        for step, number in sorted(self.steps.items()):
            left -= number
            if left <= 0:
                return min(math.exp((step + 0.5) * _STEP), self.most)
        return None


class Tape:
    """The bytes that a client of one channel must read; positions count from the channel's first event.

    An event is on it once it was published, according to the times.
    """

    def __init__(self, seed: int, channel: int, times: Times) -> None:
        self.times = times.of(channel)
        self.epoch: bytes | None = None  #: of the ids, once a client has got one
        self.newest = 0  #: number of the last event on it
        self._seed = seed
        self._channel = channel
        self._bytes = bytearray()
        self._begin = 0  # position of the first byte that is kept
        self._ends = [0]  # position after each kept event, and after the one before them
        self._first = 0  # number of the first of these

    def grow(self) -> None:
        """Append what was published meanwhile."""
        while self.newest + 1 < len(self.times) and self.times[self.newest + 1]:
            self.newest += 1
            text = text_of(self._seed, self._channel, self.newest)
            self._bytes += b"id: %b-%d\ndata: %b\n\n" % (self.epoch or b"", self.newest, text.encode())
            self._ends.append(self._begin + len(self._bytes))
        if len(self._ends) > 2 * TAPE:
            self._forget()

    def _forget(self) -> None:
        gone = len(self._ends) - TAPE
        del self._ends[:gone]
        self._first += gone
        del self._bytes[: self._ends[0] - self._begin]
        self._begin = self._ends[0]

    def has(self, position: int, text: bytes) -> bool:
        at = position - self._begin
        return at >= 0 and self._bytes[at : at + len(text)] == text

    def between(self, begin: int, end: int) -> bytes:
        return bytes(self._bytes[begin - self._begin : end - self._begin])

    def after(self, number: int) -> int:
        """Return the position after an event; raise LookupError if it is not on the tape (any more)."""
        if number < self._first:
            raise LookupError(number)
        return self._ends[number - self._first]

    def number_at(self, position: int) -> int:
        """Return the number of the last event that is complete at a position."""
        return self._first + bisect_right(self._ends, position) - 1


def publish(pipe: Connection, url: str, seed: int, channels: int, rate: float, seconds: float, times: Times) -> None:
    """Publish to one channel after the other, each event when it is due; then report the last id of each channel.

    The main function of a process. It sends ``{"published", "late"}`` every second, and ``{"ids"}`` at the end.
    """
    rows = [times.of(channel) for channel in range(channels)]
    ids: list[str] = [""] * channels
    with Publisher(url) as publisher:
        pipe.recv()
        began, number, report, late = time.monotonic(), 0, 0.0, Histogram()
        while (due := began + number / rate) < began + seconds:
            now = time.monotonic()
            if now < due:
                time.sleep(due - now)
            channel, count = number % channels, number // channels + 1
            rows[channel][count] = now = time.monotonic()
            late.add(now - due)
            event_id = publisher.publish(channel_name(channel), text_of(seed, channel, count))
            expected = f"{(ids[channel] or event_id).rpartition('-')[0]}-{count}"
            assert event_id == expected, f"event {count} of a channel has the id {event_id}, and not {expected}"
            ids[channel] = event_id
            number += 1
            if now > report + REPORT_SECONDS:
                report = now
                pipe.send({"published": number, "late": late})
                late = Histogram()
    pipe.send({"published": number, "late": late, "ids": ids})
