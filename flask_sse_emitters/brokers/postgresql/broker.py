"""``postgresql://``: channels that every process shares, kept in PostgreSQL.

One function gives an event its offset and keeps it (:mod:`.schema`). Then all processes are told how far the channel is
(:mod:`.client.wakeups`), and those that have a client of it read what they lack (:mod:`.subscriber`). Where the
database cannot be reached, streams stay open, publishing is an error, and the events that others published meanwhile
arrive when it is back.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ...runtime.fork import reset_after_fork
from ...wire.frame import Frame
from ..base import Broker, ChannelState, Listener, Publication, Published, Start
from ..event_ids import new_epoch
from ..event_log import Bounds
from ..listening.green import require_patched_sockets
from .client.address import Address
from .client.database import Database
from .client.errors import PostgresqlHealth
from .outbox import Outbox
from .requests import Requests
from .schema import check_prefix, ddl
from .statements import COUNT_CLIENTS, LIST_PROCESSES, RENEW_RUN, TRY_WRITE, milliseconds, read_process
from .subscriber import Subscriber


class PostgresqlBroker(Broker):
    """Keeps channels in PostgreSQL.

    :param url: see :class:`.Address`.
    :param prefix: the name of the schema.
    :param publish_seconds: how long :meth:`publish` may take, but for the lookup of a host's name.
    :param listen_url: a way to the same database for the connection that listens, where that of ``url`` leads through a
        pooler that gives each transaction another session.
    """

    def __init__(
        self, url: str, *, prefix: str = "sse", publish_seconds: float = 2.0, listen_url: str | None = None
    ) -> None:
        try:
            self._address, self._listen_address = Address(url), Address(listen_url or url)
        except ValueError as error:
            raise ValueError(f"{error}: give a URL such as postgresql://user@localhost/database") from error
        self._prefix = check_prefix(prefix)
        self._seconds = publish_seconds
        self._reset()
        reset_after_fork(self._reset)

    def publish(self, channel: str, frame: Frame, bounds: Bounds | None, key: str | None = None) -> Published:
        """Publish an event: see :meth:`.Broker.publish`."""
        [published] = self.publish_many([Publication(channel, frame, bounds, key)])
        if isinstance(published, Exception):
            raise published
        return published

    def publish_many(self, publications: Sequence[Publication]) -> list[Published | Exception]:
        """Publish several events in one round trip, and one transaction: see :meth:`.Broker.publish_many`."""
        return self._requests.publish_many(publications)

    def drain(self, channels: Iterable[str]) -> None:
        """Publish what waits for these channels in the outbox, as its transaction has committed.

        :raises BrokerUnavailable: where that fails. Then a process that listens does it within a second.
        """
        self._requests.drain(channels)

    def schema(self) -> str:
        """Return the statements that make the schema, or bring it up to date; they may be run again."""
        return ddl(self._prefix)

    def state(self, channel: str) -> ChannelState:
        """Return the state of a channel: see :meth:`.Broker.state`."""
        return self._requests.state(channel)

    def start_run(self, channel: str, run: str, seconds: float) -> bool:
        """Give the channel to a run: see :meth:`.Broker.start_run`."""
        return self._requests.start_run(channel, run, seconds)

    def renew_run(self, channel: str, run: str, seconds: float) -> bool:
        """Let the run have the channel for longer: see :meth:`.Broker.renew_run`."""
        [(has_channel,)] = self._requests.ask("renew the run", RENEW_RUN, [channel, run, milliseconds(seconds)])
        return bool(has_channel)

    def cancel_run(self, channel: str, bounds: Bounds | None) -> bool:
        """Take the channel from its run, and end it: see :meth:`.Broker.cancel_run`."""
        return self._requests.cancel_run(channel, bounds)

    def subscribe(self, channel: str, listener: Listener) -> Start | None:
        """Deliver the channel's events to the listener: see :meth:`.Broker.subscribe`."""
        require_patched_sockets("PostgreSQL")
        self._subscriber.add(channel, listener)
        return None

    def subscribe_first(self, channel: str, listener: Listener) -> Start | None:
        """Subscribe, and catch up with this channel before any other."""
        require_patched_sockets("PostgreSQL")
        self._subscriber.add(channel, listener, is_first=True)
        return None

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        """Deliver nothing more to the listener: see :meth:`.Broker.unsubscribe`."""
        self._subscriber.remove(channel, listener)

    def look_again(self, channel: str, done: Callable[[], object]) -> None:
        """Call ``done`` once all is delivered: see :meth:`.Broker.look_again`."""
        self._subscriber.sync(channel, done)

    def count_again(self, channel: str) -> None:
        """Report the number of the channel's clients to the database, which has changed."""
        self._subscriber.count_again(channel)

    def clients_elsewhere(self, channel: str) -> int:
        """Return how many clients of the channel other processes have: see :meth:`.Broker.clients_elsewhere`."""
        [(count,)] = self._requests.ask("count the clients", COUNT_CLIENTS, [channel, self.process])
        return int(count)

    def processes(self) -> list[dict[str, Any]]:
        """Return what other processes report: see :meth:`.Broker.processes`."""
        rows = self._requests.ask("say what processes there are", LIST_PROCESSES, [self.process])
        return [read_process(row) for row in rows]

    def check_writable(self) -> None:
        """Check that an event could be published now: see :meth:`.Broker.check_writable`."""
        self._requests.ask("take a write", TRY_WRITE)

    def status(self) -> dict[str, Any]:
        """Return the state of the database for this process: see :meth:`.Broker.status`."""
        return self._health.status()

    def close(self) -> None:
        """End the subscriber, and close all connections that this thread can close. Idempotent; may wait a second."""
        self._subscriber.close()
        self._subscriber.await_end()
        self._database.close()

    def _reset(self) -> None:
        if (before := getattr(self, "_subscriber", None)) is not None:
            before.abandon()
        self.process = new_epoch() + new_epoch()
        # The subscriber's thread keeps none of these alive, nor this broker: once it is dropped, that thread ends.
        changed, about = _calls_of(self)
        self._health = PostgresqlHealth(self._address.shown, changed)
        self._database = Database(self._address, self._prefix)
        self._subscriber = Subscriber(self._database, self._listen_address, self.process, self._health, about)
        self._requests = Requests(self._database, self._health, self._subscriber, self._address.shown, self._seconds)
        self.outbox = Outbox(self._requests, self._prefix)
        weakref.finalize(self, self._subscriber.close).atexit = False  # at exit streams end first


def _calls_of(broker: PostgresqlBroker) -> tuple[Callable[[], None], Callable[[], Mapping[str, Any] | None]]:
    """Return calls of what the app sets, :attr:`.Broker.changed` and ``about``, that do not keep the broker alive."""
    reference = weakref.ref(broker)

    def changed() -> None:
        found = reference()
        if found is not None:
            found.changed()

    def about() -> Mapping[str, Any] | None:
        found = reference()
        return None if found is None else found.about()

    return changed, about
