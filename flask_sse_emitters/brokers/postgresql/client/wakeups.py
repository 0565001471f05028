"""What tells the other processes that something is new, after it was committed.

PostgreSQL lets only one transaction at a time commit that has told something, in the whole cluster of databases. So
that is a transaction of its own, which does not wait for the disk, and tells all that was published meanwhile.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import psycopg

from ....runtime.locks import native_lock
from ...listening.deadline import seconds_left, within
from ...listening.slots import FairSemaphore

log = logging.getLogger("flask_sse_emitters.brokers.postgresql")

#: What a message begins with: positions of channels, something in the outbox, or a test of who hears itself.
POSITIONS, OUTBOX, TEST = "e", "o", "n"

#: PostgreSQL takes messages of less than 8,000 bytes.
MAX_MESSAGE = 7_900

#: Seconds between two messages of one process: what is published meanwhile goes into the next one.
MERGE_SECONDS = 0.002

#: Seconds that telling may take in any case, though the time to publish is nearly over.
LEAST_SECONDS = 0.5

ANNOUNCE = "SELECT sse.announce(%s::text[])"


class Wakeups:
    """Tells the positions of channels. Any thread may call, and waits for its turn.

    :param run: runs a statement.
    """

    def __init__(self, run: Callable[[str, Sequence[Any]], object]) -> None:
        self._run = run
        self._lock = native_lock()
        self._turn = FairSemaphore(1)
        self._pending: dict[str, str] = {}
        self._sent_at = 0.0

    def tell(self, positions: Mapping[str, str]) -> None:
        """Tell that these channels have come so far. Where it fails, processes find out by themselves within a second.

        :param positions: the id of the newest event of each; empty where something else than an event is new.
        """
        with self._lock:
            for channel, position in positions.items():  # of two, nobody knows here which is later
                self._pending[channel] = "" if channel in self._pending else position
        with suppress(TimeoutError), self._turn.slot(max(LEAST_SECONDS, seconds_left() or LEAST_SECONDS)):
            if not self._pending:
                return  # who had the turn before has told it
            wait = self._sent_at + MERGE_SECONDS - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            with self._lock:
                pending, self._pending = self._pending, {}
            try:
                with within(max(LEAST_SECONDS, seconds_left() or LEAST_SECONDS)):
                    self._run(ANNOUNCE, [list(messages_of(pending.items()))])
            except (psycopg.Error, OSError) as error:
                log.debug("could not tell other processes what is new: %s", error)
            self._sent_at = time.monotonic()


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
