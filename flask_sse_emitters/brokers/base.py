"""The contract between channels and whatever keeps their events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from ..frames import Frame
from ..history import Bounds, Log


class Listener(Protocol):
    """Who is told what happens in one channel. One call at a time comes, from any thread; none may block."""

    def started(self, log: Log, newest: int) -> None:
        """All after this offset will be told from now on. What came before is in the log, as far as it is kept.

        Once again where the broker has lost track: then what is between is in the log, or gone.
        """

    def arrived(self, frames: Sequence[Frame]) -> None:
        """These were published, in this order: with their offsets, and already in the log.

        Some may be told again, after an interrupt of the thread that told them: their offsets show that.
        """


class Broker(ABC):
    """Keeps the events of channels, and tells every process that listens.

    A class, or a function, that takes a URL makes one: see :data:`.GROUP`. It must not connect, nor start anything,
    before it is first used, and must work in a forked child. Every method may be called from any thread. The test
    suite of the package has a contract that every broker must fulfil.
    """

    #: Whether what is published in one process reaches the others.
    is_shared = True

    @abstractmethod
    def publish(self, channel: str, frame: Frame, bounds: Bounds, key: str | None = None) -> str:
        """Give the event an id, keep it, and tell whoever listens. May wait for the broker, within limits.

        :param frame: without an id.
        :param bounds: what is to be kept of the channel from now on.
        :param key: where an event of this channel was published with the same one within 5 minutes, nothing happens.
        :return: the event's id; that of the first one with the key.
        :raises BrokerUnavailable: where it cannot be reached in time.
        """

    @abstractmethod
    def subscribe(self, channel: str, listener: Listener) -> None:
        """Tell the listener what happens in the channel, beginning with :meth:`Listener.started`. Never waits.

        :param listener: a new one each time.
        """

    @abstractmethod
    def unsubscribe(self, channel: str, listener: Listener) -> None:
        """Tell it no more; a call may still be under way. Again is nothing. Never waits."""

    @abstractmethod
    def close(self) -> None:
        """Let go of all that it holds."""
