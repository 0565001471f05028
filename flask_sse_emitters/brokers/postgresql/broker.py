"""``postgresql://``: channels that every process shares, kept in PostgreSQL.

One function gives an event its offset and keeps it (:mod:`.schema`). Then all processes are told how far the channel is
(:mod:`.client.wakeups`), and those that have a client of it read what they lack (:mod:`.subscriber`). Where the
database cannot be reached, streams stay open, publishing is an error, and the events that others published meanwhile
arrive when it is back.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from ...runtime.calls import weakly
from ...runtime.fork import reset_after_fork
from ..base import ChannelState, Publication, Published
from ..event_ids import new_epoch
from ..event_log import Bounds
from ..listening.broker import ListeningBroker
from .client.address import Address
from .client.database import Database
from .client.errors import PostgresqlHealth
from .members import Members
from .outbox import Outbox
from .requests import Requests
from .schema import check_prefix, ddl
from .statements import COUNT_CLIENTS, LIST_PROCESSES, RENEW_RUN, TRY_WRITE, milliseconds, read_process
from .subscriber import Subscriber


class PostgresqlBroker(ListeningBroker):
    """Keeps channels in PostgreSQL.

    :param url: see :class:`.Address`.
    :param prefix: the name of the schema.
    :param publish_seconds: how long :meth:`publish` may take, but for the lookup of a host's name.
    :param listen_url: a way to the same database for the connection that listens, where that of ``url`` leads through a
        pooler that gives each transaction another session.
    """

    server = "PostgreSQL"

    _subscriber: Subscriber

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

    def _close_connections(self) -> None:
        self._database.close()

    def _reset(self) -> None:
        if (before := getattr(self, "_subscriber", None)) is not None:
            before.abandon()
        self.process = new_epoch() + new_epoch()
        # The subscriber's thread keeps none of these alive, nor this broker: once it is dropped, that thread ends.
        self._health = PostgresqlHealth(self._address.shown, weakly(self._state_changed))
        self._database = Database(self._address, self._prefix)
        self._subscriber = Subscriber(
            self._database, self._listen_address, self.process, self._health, weakly(self._report)
        )
        self._requests = Requests(self._database, self._health, self._subscriber, self._address.shown, self._seconds)
        self.outbox = Outbox(self._requests, self._prefix)
        self._members = Members(self._requests)
        weakref.finalize(self, self._subscriber.close).atexit = False  # at exit streams end first
