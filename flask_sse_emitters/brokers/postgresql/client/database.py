"""A few connections for what this process asks, and the schema, which is made at the first use."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from ....runtime.gevent_loop import is_green, unpatched
from ....runtime.locks import native_lock
from ...remote.deadline import seconds_left
from ...remote.slots import FairSemaphore
from ...remote.trouble import before_sending
from ..schema import NOT_UNDERSTOOD, VERSION, ddl, render
from .address import Address
from .connection import READ_SECONDS, Connection, connect
from .errors import NewerSchemaError, SchemaError, code_of
from .wakeups import Outgoing, Wakeups

#: So many connections are open at most, beside the one that listens.
MAX_CONNECTIONS = 8

#: Seconds after which a connection that is not used is closed, when another one is.
IDLE_SECONDS = 60.0

_FIND_VERSION = "SELECT version FROM sse.about"

#: What PostgreSQL says where there is no such table, function or schema.
_MISSING = ("42P01", "42883", "3F000")


class Database:
    """Runs statements, on a few connections. Any thread may call, and waits: see :func:`.within`.

    :param prefix: the name of the schema.
    """

    def __init__(self, address: Address, prefix: str) -> None:
        self.prefix = prefix
        self.outgoing: Outgoing | None = None  #: tells what this process has published, where it listens
        self._address = address
        self._is_ready = False
        self._lock = native_lock()
        self._local = unpatched("_thread", "_local")()  # greenlets wait in the event loop of one system thread
        self._shared: _Pool | None = None

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Run one statement, and return the rows.

        :raises psycopg.Error: where it fails, and :class:`OSError` where the database does not answer in time.
        """
        with self._pool.connection() as connection:
            return self.run_on(connection, statement, parameters)

    def run_on(self, connection: Connection, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Run one statement on this connection: see :meth:`run`. The schema is made where there is none."""
        with before_sending():
            self._ensure_schema(connection)
        try:
            return connection.fetch(render(statement, self.prefix), parameters)
        except psycopg.Error as error:
            if code_of(error) in _MISSING:
                self._is_ready = False  # it was dropped
            raise

    def connect(self, address: Address | None = None) -> Connection:
        """Open a connection of the caller's own, perhaps on another way.

        :raises psycopg.Error: where that fails, and :class:`OSError` where it takes too long.
        """
        return connect(address or self._address)

    def tell(self, positions: Mapping[str, str]) -> None:
        """Tell all processes how far channels are, after that was committed: see :class:`.Wakeups`."""
        if positions and not (self.outgoing is not None and self.outgoing.take(positions)):
            self._pool.wakeups.tell(positions)

    def close(self) -> None:
        """Close the connections that this thread can close: where threads are greenlets, its own. Idempotent."""
        pool = getattr(self._local, "pool", None) if is_green() else self._shared
        if pool is not None:
            pool.close()

    @property
    def _pool(self) -> _Pool:
        if is_green():
            pool: _Pool | None = getattr(self._local, "pool", None)
            if pool is None:
                pool = self._local.pool = _Pool(self)
            return pool
        with self._lock:
            if self._shared is None:
                self._shared = _Pool(self)
            return self._shared

    def _ensure_schema(self, connection: Connection) -> None:
        if self._is_ready:
            return
        error: psycopg.Error | None = None
        version = 0
        try:
            version = max((row[0] for row in connection.fetch(render(_FIND_VERSION, self.prefix))), default=0)
        except psycopg.Error as failed:
            if code_of(failed) not in _MISSING:
                raise
            error = failed
        if version >= NOT_UNDERSTOOD:
            raise NewerSchemaError(
                f"the schema has version {version}, and this package understands those below {NOT_UNDERSTOOD}"
            )
        if version < VERSION:
            try:
                connection.fetch(ddl(self.prefix))
            except psycopg.errors.InsufficientPrivilege as refused:
                raise SchemaError(f"{refused}") from (error or refused)
        self._is_ready = True


class _Pool:
    """Connections that threads share, those that were used last first."""

    def __init__(self, database: Database) -> None:
        self.wakeups = Wakeups(database.run)
        self._database = database
        self._slots = FairSemaphore(MAX_CONNECTIONS)
        self._lock = native_lock()
        self._idle: list[tuple[Connection, float]] = []  # and since when
        self._is_closed = False

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Give the caller a connection for itself.

        :raises TimeoutError: where there is none in time.
        """
        with self._slots.slot(seconds_left() or READ_SECONDS):
            connection = self._take()
            try:
                yield connection
            finally:
                self._put_back(connection)

    def close(self) -> None:
        """Close the connections that are idle, and from now on each one after its use. Idempotent."""
        self._is_closed = True
        with self._lock:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def _take(self) -> Connection:
        while True:
            with self._lock:
                connection = self._idle.pop()[0] if self._idle else None
            if connection is None:
                return self._database.connect()
            if not connection.has_ended():
                return connection
            connection.close()

    def _put_back(self, connection: Connection) -> None:
        now = time.monotonic()
        old = None
        with self._lock:
            is_kept = connection.is_idle and not self._is_closed
            if is_kept:
                self._idle.append((connection, now))
            if self._idle[0][1] < now - IDLE_SECONDS if self._idle else False:
                old = self._idle.pop(0)[0]
        for each in (None if is_kept else connection, old):
            if each is not None:
                each.close()
