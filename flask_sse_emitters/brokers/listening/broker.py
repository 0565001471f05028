"""What is the same for all brokers that listen: how they are subscribed to, and what they say of themselves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from ...types import BrokerStatus
from ...wire.frame import Frame
from ..base import Broker, Listener, MemberChange, Publication, Published
from ..event_log import Bounds
from ..remote.green import require_patched_sockets
from ..remote.health import Health
from .members import BaseMembers
from .thread import ListeningThread


class ListeningBroker(Broker):
    """A broker whose events are at a server, to which one thread listens for the whole process."""

    server: ClassVar[str]  #: its name

    _health: Health
    _subscriber: ListeningThread
    _members: BaseMembers

    def publish(self, channel: str, frame: Frame, bounds: Bounds | None, key: str | None = None) -> Published:
        """Publish an event: see :meth:`.Broker.publish`."""
        [published] = self.publish_many([Publication(channel, frame, bounds, key)])
        if isinstance(published, Exception):
            raise published
        return published

    def renew_members(self, holder: str, seconds: float, *, was_away: bool = False) -> str:
        """Have the members of this process count for longer: see :meth:`.Broker.renew_members`."""
        return self._members.renew(holder, seconds, was_away=was_away)

    def tell_members(self, holder: str, changes: Sequence[MemberChange]) -> list[Exception | None]:
        """Note who has come, and who is gone: see :meth:`.Broker.tell_members`."""
        return self._members.tell(holder, changes)

    def members(self, channel: str) -> list[str]:
        """Return the members of a channel: see :meth:`.Broker.members`."""
        return self._members.list(channel)

    def subscribe(self, channel: str, listener: Listener) -> None:
        """Deliver the channel's events to the listener: see :meth:`.Broker.subscribe`."""
        require_patched_sockets(self.server)
        self._subscriber.add(channel, listener)

    def subscribe_first(self, channel: str, listener: Listener) -> None:
        """Subscribe, and catch up with this channel before any other."""
        require_patched_sockets(self.server)
        self._subscriber.add(channel, listener, is_first=True)

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        """Deliver nothing more to the listener: see :meth:`.Broker.unsubscribe`."""
        self._subscriber.remove(channel, listener)

    def look_again(self, channel: str, done: Callable[[], object]) -> None:
        """Call ``done`` once all is delivered: see :meth:`.Broker.look_again`."""
        self._subscriber.sync(channel, done)

    def count_again(self, channel: str) -> None:
        """Report the number of the channel's clients, which has changed."""
        self._subscriber.count_again(channel)

    def status(self) -> BrokerStatus:
        """Return the state of the server for this process: see :meth:`.Broker.status`."""
        return self._health.status()

    def close(self) -> None:
        """End the subscriber, and close all connections that this thread can close. Idempotent; may wait a second."""
        self._subscriber.close()
        self._subscriber.await_end()
        self._close_connections()

    @abstractmethod
    def _close_connections(self) -> None:
        """Close all connections that this thread can close."""

    def _state_changed(self) -> None:
        self.changed()

    def _report(self) -> Mapping[str, Any] | None:
        return self.about()
