"""Events that a transaction of the app leaves in the database, by a connection of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

from ...errors import BrokerUnavailable
from ...runtime.locks import native_lock
from ...runtime.scheduler import SCHEDULER
from ..base import Publication
from .requests import Requests
from .statements import TRY_LOCK, outbox_row

#: Seconds between two drains in the background: what is committed meanwhile goes into the next, at little more cost.
MERGE_SECONDS = 0.01

log = logging.getLogger("flask_sse_emitters.brokers.postgresql")


class Outbox:
    """The outbox of one process: see :class:`..outbox.Outbox`.

    :param schema: its name.
    """

    def __init__(self, requests: Requests, schema: str) -> None:
        self.schema = schema
        self._requests = requests
        self._lock = native_lock()
        self._waiting: dict[str, None] = {}  # channels that are to be drained in the background, in order
        self._is_draining = False

    def is_locked(self, number: int) -> bool:
        """Return whether a transaction in this database has this advisory lock. The schema is there afterwards."""
        [(is_free,)] = self._requests.ask("say whether a session has the same database", TRY_LOCK, [number])
        return not is_free

    def row(self, publication: Publication) -> dict[str, Any]:
        """Return the row that stands for an event, by column."""
        return outbox_row(publication)

    def drain(self, channels: Iterable[str]) -> None:
        """Publish what transactions have committed for these channels.

        :raises BrokerUnavailable: where that fails. Then a process that listens does it within a second.
        """
        self._requests.drain(channels)

    def drain_soon(self, channels: Iterable[str]) -> None:
        """Publish that in the background: all that has been committed by then, at once."""
        with self._lock:
            self._waiting.update(dict.fromkeys(channels))
            begins, self._is_draining = not self._is_draining, True
        if begins:
            SCHEDULER.run(self._drain_waiting)

    def _drain_waiting(self) -> None:
        try:
            while channels := self._take_waiting():
                self.drain(channels)
                time.sleep(MERGE_SECONDS)
        except BaseException as error:
            with self._lock:
                self._is_draining = False  # the next one begins again
            if not isinstance(error, BrokerUnavailable):
                raise
            log.warning("%s; what was committed is published by a process that listens, once it can", error)

    def _take_waiting(self) -> list[str]:
        """Return what is to be drained; where that is nothing, the next one begins again."""
        with self._lock:
            channels, self._waiting = [*self._waiting], {}
            self._is_draining = bool(channels)
            return channels
