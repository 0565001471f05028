"""The thread that listens to PostgreSQL: see :mod:`...listening.thread`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import psycopg

from ....runtime.waiter import WakeupSocket
from ...listening.thread import LEAVE_SECONDS, ListeningThread
from ...remote.deadline import within
from ...remote.health import Health
from ..client.address import Address
from ..client.connection import CONNECT_SECONDS
from ..client.database import Database
from ..client.wakeups import Outgoing
from ..statements import LEAVE
from .hearing import Hearing
from .presence import Presence
from .session import Session

log = logging.getLogger("flask_sse_emitters.brokers.postgresql")


class Subscriber(ListeningThread):
    """Listens to PostgreSQL, on a thread that starts with the first listener. Any thread may call, and none waits.

    :param address: of the connection that listens.
    :param process: the id of this process.
    :param about: see :attr:`.Broker.about`.
    """

    _presence: Presence

    def __init__(
        self,
        database: Database,
        address: Address,
        process: str,
        health: Health,
        about: Callable[[], Mapping[str, Any] | None],
    ) -> None:
        self._database = database
        self._address = address
        self._process = process
        self._about = about
        self._hearing = Hearing(database, address.shown)
        database.outgoing = self._outgoing = Outgoing(self._wake)
        super().__init__("sse-postgresql", health, (psycopg.Error, OSError), log)

    def _make_presence(self) -> Presence:
        return Presence(self._process, self._health, self._topics, self._about, self._wake)

    @contextmanager
    def _session(self, wakeup: WakeupSocket) -> Iterator[Session]:
        with within(CONNECT_SECONDS):
            connection = self._database.connect(self._address)
        with closing(connection):
            yield Session(
                self._database,
                connection,
                wakeup,
                self._topics,
                self._presence,
                self._hearing,
                self._outgoing,
                self._health,
                self.is_stopping,
            )

    def _take_back(self) -> None:
        if self._presence.is_listed:
            with within(LEAVE_SECONDS):
                self._database.run(LEAVE, [self._process])
