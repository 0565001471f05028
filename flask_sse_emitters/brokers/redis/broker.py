"""``redis://`` and its kin: channels that every process shares, kept in Redis or Valkey.

One script gives an event its offset, keeps it and announces it (:mod:`.scripts`). Each process subscribes to the
channels that have a client there (:mod:`.subscriber`). Where Redis cannot be reached, streams stay open, publishing is
an error, and the events that others published meanwhile arrive when it is back.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from ...runtime.calls import weakly
from ...runtime.fork import reset_after_fork
from ..base import ChannelState, Publication, Published
from ..event_ids import new_epoch
from ..event_log import Bounds
from ..listening.broker import ListeningBroker
from .asking import Asking, Members
from .connections.client import Clients
from .connections.url import Address
from .health import Health
from .messages import KeyNames, bounds_arguments, milliseconds, read_processes, read_state
from .publishing import Publishing
from .scripts.channels import CANCEL_RUN, RENEW_RUN, START_RUN, STATE
from .scripts.processes import PROCESSES, SUM, TRY_WRITE
from .subscriber import Subscriber
from .subscriber.thread import CLUSTER_LOOKUP_SECONDS, LOOKUP_SECONDS


class RedisBroker(ListeningBroker):
    """Keeps channels in Redis.

    :param url: see :class:`.Address`.
    :param prefix: of all keys and announcements.
    :param publish_seconds: how long :meth:`publish` may take, but for the lookup of a host's name.
    """

    server = "Redis"

    _subscriber: Subscriber

    def __init__(self, url: str, *, prefix: str = "sse", publish_seconds: float = 2.0) -> None:
        try:
            self._address = Address(url)
        except ValueError as error:
            raise ValueError(f"{error}: give a URL such as redis://localhost:6379/0") from error
        self._names = KeyNames(prefix, self._address.db)
        self._seconds = publish_seconds
        self._reset()
        reset_after_fork(self._reset)

    def publish_many(self, publications: Sequence[Publication]) -> list[Published | Exception]:
        """Publish several events in one round trip, but in a cluster: see :meth:`.Broker.publish_many`."""
        return self._publishing.publish_many(publications)

    def state(self, channel: str) -> ChannelState:
        """Return the state of a channel: see :meth:`.Broker.state`."""
        return self._asking.ask_of(channel, "say how far the channel is", read_state, STATE)

    def start_run(self, channel: str, run: str, seconds: float) -> bool:
        """Give the channel to a run: see :meth:`.Broker.start_run`."""
        return self._asking.ask_of(channel, "start the run", bool, START_RUN, [run, milliseconds(seconds)])

    def renew_run(self, channel: str, run: str, seconds: float) -> bool:
        """Let the run have the channel for longer: see :meth:`.Broker.renew_run`."""
        keys = self._names.keys(channel)
        return self._asking.ask("renew the run", bool, RENEW_RUN, keys, [run, milliseconds(seconds)])

    def cancel_run(self, channel: str, bounds: Bounds | None) -> bool:
        """Take the channel from its run, and end it: see :meth:`.Broker.cancel_run`."""
        return self._asking.ask_of(channel, "cancel the run", bool, CANCEL_RUN, bounds_arguments(bounds))

    def clients_elsewhere(self, channel: str) -> int:
        """Return how many clients of the channel other processes have: see :meth:`.Broker.clients_elsewhere`."""
        arguments = [self.process, self._names.process, channel]
        return self._asking.ask("count the clients", int, SUM, [self._names.processes], arguments)

    def processes(self) -> list[dict[str, Any]]:
        """Return what other processes report: see :meth:`.Broker.processes`."""
        wanted, arguments = "say what processes there are", [self.process, self._names.process]
        return self._asking.ask(wanted, read_processes, PROCESSES, [self._names.processes], arguments)

    def check_writable(self) -> None:
        """Check that an event could be published now: see :meth:`.Broker.check_writable`."""
        self._asking.ask("take a write", bool, TRY_WRITE, [self._names.probe])

    def _close_connections(self) -> None:
        self._clients.close()

    def _reset(self) -> None:
        if (before := getattr(self, "_subscriber", None)) is not None:
            before.abandon()
        self.process = new_epoch() + new_epoch()
        # The subscriber's thread keeps none of these alive, nor this broker: once it is dropped, that thread ends.
        self._health = Health(self._address.shown, weakly(self._state_changed))
        self._clients = Clients(self._address, self._names.format)
        self._subscriber = Subscriber(
            self._clients.get,
            self._names,
            self.process,
            self._health,
            weakly(self._report),
            CLUSTER_LOOKUP_SECONDS if self._address.kind == "cluster" else LOOKUP_SECONDS,
        )
        shared = self._clients, self._names, self._seconds, self._health, self._subscriber
        self._publishing, self._asking = Publishing(*shared), Asking(*shared)
        self._members = Members(self._asking, self._names, self._subscriber)
        weakref.finalize(self, self._subscriber.close).atexit = False  # at exit streams end first
