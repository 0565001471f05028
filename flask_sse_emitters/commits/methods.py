"""The methods of :class:`.SSE` and :class:`.Publisher` that publish once a transaction has committed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ..brokers import Publication
from ..channels.names import check_key, check_name, private_name
from ..channels.publishing import encode_for_channel
from ..types import SqlSession
from .destination import Destination


class CommitMethods(ABC):
    """What they offer of this."""

    @abstractmethod
    def _destination(self) -> Destination:
        """Return where events go."""

    def publish_on_commit(
        self,
        session: SqlSession,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
    ) -> None:
        """Publish an event once the transaction of a SQLAlchemy session has committed; not if it is rolled back.

        ::

            db.session.add(order)
            sse.publish_on_commit(db.session, "orders", order.as_dict(), event="created")
            db.session.commit()

        Where the broker is PostgreSQL, and the session has the same database, the event is part of the transaction: it
        is published if and only if that commits, whatever dies when. With other brokers the commit publishes it after
        it has succeeded: see :doc:`transactions`. Call it on the thread that uses the session. What is published then
        is what ``data`` was at this call.

        :param session: of SQLAlchemy 2.0: a ``Session``, a ``scoped_session``, or Flask-SQLAlchemy's ``db.session``.
            Its transaction is begun, if it has none.
        :param channel: see :meth:`publish`, as for the other parameters.
        :raises NotInTransaction: where there is no commit to wait for, as each statement is one (``AUTOCOMMIT``).
        :raises InvalidChannel: where the name is invalid.
        :raises InvalidEvent: where the event cannot be encoded, or is named ``gap`` or ``~end``.
        :raises BrokerUnavailable: where a PostgreSQL cannot be asked at the first use which database it is. Errors of
            the session's own database are those of SQLAlchemy.
        """
        self._on_commit(session, check_name(channel), data, event, retry, key)

    def publish_to_on_commit(
        self,
        session: SqlSession,
        identity: str,
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
    ) -> None:
        """Publish an event to one reader alone once the transaction of a session has committed.

        As :meth:`publish_on_commit` and :meth:`publish_to`.

        :raises TypeError: where the identity is not a str.
        :raises ValueError: where the identity is invalid; other errors are those of :meth:`publish_on_commit`.
        """
        self._on_commit(session, private_name(identity), data, event, retry, key)

    def _on_commit(
        self, session: SqlSession, name: str, data: Any, event: str | None, retry: int | None, key: str | None
    ) -> None:
        destination = self._destination()
        destination.check_open()
        frame = encode_for_channel(data, event, retry, destination.settings)
        publication = Publication(name, frame, destination.bounds(name), check_key(key))
        from .transactions import wait_for_commit  # imports SQLAlchemy

        wait_for_commit(session, destination, publication)
