"""What waits for the end of transactions of SQLAlchemy. Importing this imports SQLAlchemy.

Each event belongs to the innermost transaction, perhaps a savepoint, in which it was given. A savepoint that is
released leaves its events to the transaction around it, and one that is rolled back drops them. What the outermost
transaction has when it has committed is published once its connection is back in the pool: publishing may wait.

SQLAlchemy calls ``after_commit`` for savepoints as well, and ``after_transaction_end`` however a transaction ends:
committed, rolled back, or closed with its session.
"""

from __future__ import annotations

import secrets
from functools import lru_cache
from typing import NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import (
    BigInteger,
    Connection,
    Insert,
    LargeBinary,
    Pool,
    Text,
    column,
    event,
    func,
    insert,
    literal,
    select,
    table,
)
from sqlalchemy.exc import NotSupportedError, ProgrammingError, UnboundExecutionError
from sqlalchemy.orm import Session, SessionTransaction, scoped_session
from sqlalchemy.sql import quoted_name

from ..brokers import Publication
from ..brokers.outbox import Outbox, outbox_of
from ..errors import NotInTransaction
from .destination import Destination, Entry, publish_committed

#: Where the entries of a session are, in its ``info``.
KEY = "flask_sse_emitters"

#: Whether the connections of a pool lead to the database of an outbox; it is asked once.
_is_shared: WeakKeyDictionary[Pool, WeakKeyDictionary[Outbox, bool]] = WeakKeyDictionary()


class Waiting:
    """What waits for the transactions of one session, on its thread."""

    def __init__(self) -> None:
        self._entries: dict[SessionTransaction, list[Entry]] = {}
        self._committed: SessionTransaction | None = None

    def add(self, transaction: SessionTransaction, entry: Entry) -> None:
        """Add what is to happen once this transaction, and those around it, have committed."""
        self._entries.setdefault(transaction, []).append(entry)

    def committed(self, transaction: SessionTransaction) -> None:
        """Note that a transaction has committed, or a savepoint was released."""
        if transaction.nested:
            released = self._entries.pop(transaction, [])
            if released:
                self._entries.setdefault(_around(transaction), []).extend(released)
        else:
            self._committed = transaction

    def ended(self, transaction: SessionTransaction) -> None:
        """Publish what has waited for a transaction that has ended, if it has committed."""
        entries = self._entries.pop(transaction, None)
        if transaction is self._committed:
            self._committed = None
            publish_committed(entries or [])


class _Ready(NamedTuple):
    """The session, and its connection."""

    session: Session
    connection: Connection | None  # None where each of its tables has an engine of its own


def wait_for_commit(session: object, destination: Destination, publication: Publication) -> None:
    """Publish an event once the transaction of this session has committed: see :meth:`.SSE.publish_on_commit`."""
    ready = _begin(session)
    outbox = None if ready.connection is None else _shared_outbox(destination, ready.connection)
    if outbox is not None and ready.connection is not None:
        ready.connection.execute(_insertion(outbox.schema), outbox.row(publication))
    waiting = ready.session.info.setdefault(KEY, Waiting())
    waiting.add(_innermost(ready.session), Entry(destination, publication, outbox))


@event.listens_for(Session, "after_commit", insert=True)  # another one may raise
def _after_commit(session: Session) -> None:
    waiting = session.info.get(KEY)
    if waiting is not None:
        waiting.committed(_innermost(session))


@event.listens_for(Session, "after_transaction_end", insert=True)
def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    waiting = session.info.get(KEY)
    if waiting is not None:
        waiting.ended(transaction)


def _begin(session: object) -> _Ready:
    """Begin the session's transaction, if it has none.

    :raises NotInTransaction: where it can have none.
    """
    found = session() if isinstance(session, scoped_session) else session
    if not isinstance(found, Session):
        raise TypeError(f"events wait for the commit of a Session of SQLAlchemy, such as db.session, not of {found!r}")
    if not (found.in_transaction() or found.autobegin):
        raise NotInTransaction("this session has autobegin=False, and no transaction: call its begin() before")
    try:
        found.get_bind()
    except UnboundExecutionError:
        if not found.in_transaction():
            found.begin()
        return _Ready(found, None)
    connection = found.connection()
    if _commits_each_statement(connection):
        raise NotInTransaction(
            "this session's engine commits each statement (AUTOCOMMIT), so there is no commit to wait for: call "
            "publish() after what it follows, or take another engine"
        )
    return _Ready(found, connection)


def _commits_each_statement(connection: Connection) -> bool:
    level = connection.get_execution_options().get("isolation_level")
    if level is None:
        level = getattr(connection.dialect, "_on_connect_isolation_level", None)
    return level == "AUTOCOMMIT" or getattr(connection.connection.dbapi_connection, "autocommit", None) is True


def _innermost(session: Session) -> SessionTransaction:
    transaction = session.get_nested_transaction() or session.get_transaction()
    assert transaction is not None
    return transaction


def _around(savepoint: SessionTransaction) -> SessionTransaction:
    """Return the transaction around a savepoint, which is not merely one of a flush."""
    parent = savepoint.parent
    while parent is not None and not parent.nested and parent.parent is not None:
        parent = parent.parent
    assert parent is not None
    return parent


def _shared_outbox(destination: Destination, connection: Connection) -> Outbox | None:
    """Return the outbox of the broker, where it lies in the database of this connection."""
    outbox = outbox_of(destination.broker)
    if outbox is None:
        return None
    known = _is_shared.setdefault(connection.engine.pool, WeakKeyDictionary())
    if outbox not in known:
        known[outbox] = _is_in_database_of(connection, outbox)
    return outbox if known[outbox] else None


def _is_in_database_of(connection: Connection, outbox: Outbox) -> bool:
    """Return whether a lock that this connection takes is seen by the broker: addresses do not tell.

    It is taken in a savepoint, which is rolled back: that releases it, and an error leaves the app's transaction whole.
    """
    if connection.dialect.name != "postgresql":
        return False
    number = secrets.randbits(63)
    with connection.begin_nested() as savepoint:
        try:
            connection.execute(select(func.pg_try_advisory_xact_lock(literal(number, BigInteger()))))
            return outbox.is_locked(number)
        except (ProgrammingError, NotSupportedError):  # it has no such function: another kind of server
            return False
        finally:
            savepoint.rollback()


@lru_cache(maxsize=8)
def _insertion(schema: str) -> Insert:
    """Return the statement, which SQLAlchemy compiles once as long as it is the same object."""
    return insert(
        table(
            "outbox",
            column("channel", Text()),
            column("body", LargeBinary()),
            column("label", Text()),
            column("max_events", BigInteger()),
            column("kept_ms", BigInteger()),
            column("key", Text()),
            schema=quoted_name(schema, quote=True),
        )
    )
