"""What tells the other processes that something is new, after it was committed.

PostgreSQL lets only one transaction at a time commit that has told something, in the whole cluster of databases. So
that is a transaction of its own, which does not wait for the disk, and tells all that was published meanwhile.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import psycopg

from ....runtime.locks import native_lock
from ...remote.deadline import seconds_left, within
from ...remote.slots import FairSemaphore

log = logging.getLogger("flask_sse_emitters.brokers.postgresql")

#: What a message begins with: positions of channels, something in the outbox, or a test of who hears itself.
POSITIONS, OUTBOX, TEST = "e", "o", "n"

#: PostgreSQL takes messages of less than 8,000 bytes.
MAX_MESSAGE = 7_900

#: Seconds between two messages of a process that listens: what is published meanwhile goes into the next one.
MERGE_SECONDS = 0.002

#: Seconds that telling may take in any case, though the time to publish is nearly over.
LEAST_SECONDS = 0.5

ANNOUNCE = "SELECT sse.announce(%s::text[])"

#: Runs a statement.
Run = Callable[[str, Sequence[Any]], object]


class Pending:
    """Positions that are to be told. Any thread may call, and none waits."""

    def __init__(self) -> None:
        self._lock = native_lock()
        self._positions: dict[str, str] = {}

    def add(self, positions: Mapping[str, str]) -> bool:
        """Add the ids of the newest events of some channels; empty where something else than an event is new.

        :return: whether there were none before.
        """
        with self._lock:
            is_first = not self._positions
            for channel, position in positions.items():  # of two, nobody knows here which is later
                self._positions[channel] = "" if channel in self._positions else position
        return is_first

    def take(self) -> dict[str, str]:
        """Take them out."""
        with self._lock:
            positions, self._positions = self._positions, {}
        return positions

    def __bool__(self) -> bool:
        return bool(self._positions)


class Outgoing:
    """What the thread that listens tells, while it has a connection: so publishers need not wait for that.

    Any thread may :meth:`take`; all else is that thread's.

    :param wake: wakes the thread.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self.is_open = False  #: whether the thread has a connection
        self._wake = wake
        self._pending = Pending()
        self._sent_at = 0.0

    def take(self, positions: Mapping[str, str]) -> bool:
        """Tell these positions soon. Return False where the caller has to do it.

        A process that ends just then may not get to it: the others find out by themselves, within a second.
        """
        if not self.is_open:
            return False
        if self._pending.add(positions):
            self._wake()
        return True

    @property
    def due(self) -> float:
        """The time at which to :meth:`send`, by ``time.monotonic``."""
        return self._sent_at + MERGE_SECONDS if self._pending else math.inf

    def send(self, run: Run) -> dict[str, str]:
        """Tell what is pending, and return it."""
        positions = self._pending.take()
        if positions:
            self._sent_at = time.monotonic()
            run(ANNOUNCE, [messages_of(positions.items())])
        return positions


class Wakeups:
    """Tells the positions of channels. Any thread may call, and waits for its turn.

    :param run: runs a statement.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._pending = Pending()
        self._turn = FairSemaphore(1)

    def tell(self, positions: Mapping[str, str]) -> None:
        """Tell that these channels have come so far. Where it fails, all find out by themselves within a second."""
        self._pending.add(positions)
        with suppress(TimeoutError), self._turn.slot(max(LEAST_SECONDS, seconds_left() or LEAST_SECONDS)):
            pending = self._pending.take()
            if not pending:
                return  # who had the turn before has told it
            try:
                with within(max(LEAST_SECONDS, seconds_left() or LEAST_SECONDS)):
                    self._run(ANNOUNCE, [messages_of(pending.items())])
            except (psycopg.Error, OSError) as error:
                log.debug("could not tell other processes what is new: %s", error)


def messages_of(positions: Iterable[tuple[str, str]]) -> list[str]:
    """Return as few messages as tell these positions."""
    messages: list[str] = []
    parts: list[str] = []
    size = 0
    for each in positions:
        part = json.dumps(each)
        if parts and size + len(part) > MAX_MESSAGE:
            messages.append(f"{POSITIONS}[{','.join(parts)}]")
            parts, size = [], 0
        parts.append(part)
        size += len(part) + 1
    return [*messages, f"{POSITIONS}[{','.join(parts)}]"]
