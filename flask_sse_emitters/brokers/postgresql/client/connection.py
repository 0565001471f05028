"""Connections of psycopg each of whose steps ends at the deadline: see :mod:`...remote.deadline`."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import ConnStatus, PGconn, PollingStatus, TransactionStatus, abc

from ....runtime.fork import reset_after_fork
from ....runtime.socket_monitor import replace_with_dead_fd
from ...remote.deadline import seconds_left
from ...remote.trouble import before_sending
from .address import Address

#: Seconds that an answer may take, and connecting, where there is no deadline.
READ_SECONDS, CONNECT_SECONDS = 5.0, 2.0

_T = TypeVar("_T")

_READ, _WRITE = 1, 2  # as psycopg's generators ask for them, and are answered


class Connection(psycopg.Connection[Any]):
    """A connection of psycopg that waits no longer than the deadline, and is closed where it would.

    It waits in this module, as psycopg's own choice depends on whether gevent had patched the sockets when psycopg was
    imported. Only one thread may use it at a time.
    """

    def __del__(self, *_: Any) -> None:
        """Warn of nothing, as psycopg does: an app may be dropped with its pool. Their sockets close by themselves."""

    def wait(self, gen: PQGen[_T], *_args: Any, **_options: Any) -> _T:
        """Go through the steps of a command."""
        try:
            wanted = next(gen)
            descriptor, poll = self.pgconn.socket, select.poll()
            while True:
                ready = wait_for(poll, descriptor, int(wanted), seconds_left() or READ_SECONDS)
                wanted = gen.send(ready)
        except StopIteration as done:
            result: _T = done.value
            return result
        except BaseException:
            if not self.is_idle:  # nobody knows what comes next on it
                self.close()
            raise

    def fetch(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Run one statement, and return the rows."""
        cursor = self.execute(statement.encode(), parameters or None, binary=bool(parameters))
        return cursor.fetchall() if cursor.description else []

    @property
    def is_idle(self) -> bool:
        """Whether it can be used: it is open, and no command is under way."""
        return not self.closed and self.pgconn.transaction_status == TransactionStatus.IDLE

    def has_ended(self) -> bool:
        """Return whether the server has closed an idle connection: else it has nothing to say. Never waits."""
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN)
        return bool(poll.poll(0))

    def let_go(self) -> None:
        """Let go of the parent's socket in a forked child, where gevent may go on with a greenlet that waits for it.

        That would take an answer for which the parent waits.
        """
        with suppress(psycopg.Error):
            replace_with_dead_fd(self.pgconn.socket)


def connect(address: Address) -> Connection:
    """Connect to a server, within the deadline.

    :raises psycopg.Error: where none lets us in, and :class:`OSError` where none can be reached in time; marked as
        raised before anything was sent.
    """
    with before_sending():
        ends = time.monotonic() + (seconds_left() or CONNECT_SECONDS)
        attempts = address.attempts()
        for number, conninfo in enumerate(attempts, 1):
            share = (ends - time.monotonic()) / (len(attempts) - number + 1)
            try:
                pgconn = _begin(conninfo, time.monotonic() + share)
            except (psycopg.Error, OSError):
                if number == len(attempts):
                    raise
            else:
                break
        connection = Connection(pgconn)
        reset_after_fork(connection.let_go)
        connection.autocommit = True  # a transaction that is left open would hold up the queue of NOTIFY
        connection.prepare_threshold = None  # a pooler may give each statement another session
        return connection


def _begin(conninfo: str, ends: float) -> abc.PGconn:
    pgconn, poll = PGconn.connect_start(conninfo.encode()), select.poll()
    try:
        while True:
            status = pgconn.connect_poll() if pgconn.status != ConnStatus.BAD else PollingStatus.FAILED
            if status == PollingStatus.FAILED:
                text = pgconn.error_message.decode(errors="replace").strip()
                raise psycopg.OperationalError(text or "the connection failed")
            if status == PollingStatus.OK:
                pgconn.nonblocking = 1
                return pgconn
            wanted = _READ if status == PollingStatus.READING else _WRITE
            wait_for(poll, pgconn.socket, wanted, ends - time.monotonic())
    except BaseException:
        pgconn.finish()
        raise


def wait_for(poll: Any, descriptor: int, wanted: int, seconds: float) -> int:
    """Wait until a descriptor can be read, or written to; return which of these it can.

    :raises TimeoutError: where that takes longer than so many seconds.
    """
    poll.register(descriptor, (select.POLLIN if wanted & _READ else 0) | (select.POLLOUT if wanted & _WRITE else 0))
    ready = poll.poll(max(seconds, 0.0) * 1000) if seconds > 0 else []
    if not ready:
        raise TimeoutError("it has not answered in time")
    [(_, events)] = ready
    can_write = bool(events & select.POLLOUT) and bool(wanted & _WRITE)
    can_read = bool(wanted & _READ) and bool(events & ~select.POLLOUT)
    return (_READ if can_read else 0) | (_WRITE if can_write else 0) or wanted
