"""What the functions of this package take."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict

if TYPE_CHECKING:  # modules above this one, and a package that need not be installed
    from sqlalchemy.orm import Session, scoped_session

    from ..brokers import Broker

#: Seconds, or a ``timedelta``.
Duration: TypeAlias = float | timedelta

#: What happens to an event beyond the bounds of a slow client: ``SSE_OVERFLOW``.
Overflow: TypeAlias = Literal["close", "drop_oldest", "coalesce"]

#: How a stream ends that does not end for good: ``SSE_END``.
EndForNow: TypeAlias = Literal["clean", "cut"]

#: What a worker that stops does with a stream.
Drain: TypeAlias = Literal["end", "finish"]

#: The rule of :meth:`.SSE.monitor_access`. That of :meth:`.SSE.authorizer` is :data:`flask_sse_emitters.access.Rule`.
MonitorRule: TypeAlias = Callable[[], bool]

#: What :meth:`.SSE.publish_on_commit` takes: a ``Session`` of SQLAlchemy, or a ``scoped_session``: ``db.session``.
SqlSession: TypeAlias = "Session | scoped_session[Any]"


class BrokerOptions(TypedDict, total=False):
    """The options of a broker, beside its URL; :func:`.make_broker` passes those that are not the default."""

    prefix: str  #: keeps apart apps that share a broker
    publish_seconds: float  #: how long publishing may take
    listen_url: str | None  #: only of PostgreSQL


class BrokerFactory(Protocol):
    """Makes a broker of your own, for an entry point in the group :data:`.GROUP`: a class, or a function."""

    def __call__(self, url: str, /, *, prefix: str = "sse", publish_seconds: float = 2.0) -> Broker:
        """Make the broker, and connect to nothing yet."""


class _OfFlask(Protocol):
    def iter_encoded(self) -> Iterable[bytes]: ...


class _OfHttpx(Protocol):
    def iter_bytes(self) -> Iterable[bytes]: ...


class _OfRequests(Protocol):
    def iter_content(self, chunk_size: int | None, /) -> Iterable[bytes]: ...


class _OfUrllib(Protocol):
    def read1(self) -> bytes: ...


#: What :func:`.read_events` reads: a response of Flask's test client, httpx, requests or ``urllib``, or bytes in parts.
StreamSource: TypeAlias = _OfFlask | _OfHttpx | _OfRequests | _OfUrllib | Iterable[bytes]
