"""The contract between channels and whatever keeps their events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ..wire.frame import Frame
from .event_log import Bounds, Log


class Start(NamedTuple):
    """From where on a listener is told."""

    log: Log  #: what came before, as far as it is kept
    newest: int  #: all after this offset will be told


class Published(NamedTuple):
    """What became of an event."""

    id: str
    is_new: bool  #: no event was published with its key before


class Listener(Protocol):
    """Who is told what happens in one channel. One call at a time comes, from any thread; none may block or raise."""

    def started(self, start: Start) -> None:
        """It is told from now on; only where :meth:`Broker.subscribe` did not say so already.

        Once again, with another log, where the broker has lost track.
        """

    def arrived(self, frames: Sequence[Frame]) -> float | None:
        """These were published, in this order: with their offsets, and already in the log.

        Some may be told again, after an interrupt of the thread that told them: their offsets show that.

        :return: for how many seconds it would rather be told nothing more; mostly 0, or None.
        """

    @property
    def clients(self) -> int:
        """How many clients of the channel it stands for."""


class Broker(ABC):
    """Keeps the events of channels, and tells every process that listens.

    A class, or a function, that takes a URL makes one: see :data:`.GROUP`. It also takes ``prefix``, a str, which keeps
    apart what shares a broker, and ``publish_seconds``, a float, how long :meth:`publish` may take. It must not
    connect, nor start anything, before it is first used, and must work in a forked child. Every method may be called
    from any thread. The test suite of the package has a contract that every broker must fulfil.
    """

    #: Whether what is published in one process reaches the others.
    is_shared = True

    #: Stands for this process among those that share the broker.
    process = "here"

    #: Is called, from any thread, after :meth:`status` has another state. Must not block.
    changed: Callable[[], object] = staticmethod(lambda: None)

    #: What this process says of itself to whoever looks at :meth:`processes`; None where it has nothing to say. Cheap.
    about: Callable[[], Mapping[str, Any] | None] = staticmethod(lambda: None)

    @abstractmethod
    def publish(self, channel: str, frame: Frame, bounds: Bounds | None, key: str | None = None) -> Published:
        """Give the event an id, keep it, and tell whoever listens. May wait for the broker, within limits.

        :param frame: without an id.
        :param bounds: what is to be kept of the channel from now on; None leaves that as it is.
        :param key: where an event of this channel was published with the same one within 5 minutes, nothing happens.
        :return: with the event's id; with that of the first one with the key.
        :raises BrokerUnavailable: where it cannot be reached in time.
        """

    @abstractmethod
    def subscribe(self, channel: str, listener: Listener) -> Start | None:
        """Tell the listener what happens in the channel. Never waits.

        :param listener: a new one each time.
        :return: from where on, where that is known at once: it may be told before this returns. None where
            :meth:`Listener.started` will be called first.
        """

    def subscribe_first(self, channel: str, listener: Listener) -> Start | None:
        """As :meth:`subscribe`, before any other: what was missed of this channel is told before what was of others."""
        return self.subscribe(channel, listener)

    @abstractmethod
    def unsubscribe(self, channel: str, listener: Listener) -> None:
        """Tell it no more; a call may still be under way. Again is nothing. Never waits."""

    def newest(self, channel: str) -> int | None:  # noqa: ARG002 - most do not know
        """The offset of the channel's newest event, where that is known at once."""
        return None

    def look_again(self, channel: str, done: Callable[[], object]) -> None:  # noqa: ARG002 - nothing is under way
        """Call this, from any thread, once all that was published before has been told to those who listen.

        Never waits, and may call at once. It is called once in any case: where nobody listens any more, there is
        nothing left to tell. Where this broker cannot be reached, that may take a while.
        """
        done()

    def count_again(self, channel: str) -> None:  # noqa: B027 - most do not count
        """The clients of those who listen to this channel are more, or less, than before. Never waits."""

    def clients_elsewhere(self, channel: str) -> int:  # noqa: ARG002 - most know of no others
        """How many clients other processes have. May wait for the broker, within limits.

        :raises BrokerUnavailable: where it cannot be reached in time.
        """
        return 0

    def processes(self) -> list[dict[str, Any]]:
        """What other processes have said of themselves: :attr:`about`, with ``id``, ``age`` and ``channels``.

        ``id`` is a str that no two of them share, ``age`` the seconds since it was said, and ``channels`` how many
        clients each channel has there. May wait for the broker, within limits.

        :raises BrokerUnavailable: where it cannot be reached in time.
        """
        return []

    def check_writable(self) -> None:  # noqa: B027 - most brokers always are
        """Find out whether something could be published now. May wait for the broker, within limits.

        :raises BrokerUnavailable: where it could not; says what to change.
        """

    def status(self) -> dict[str, Any]:
        """How it is, for people and monitors: at least ``state``, which is ``"ok"`` or ``"degraded"``."""
        return {"state": "ok"}

    @abstractmethod
    def close(self) -> None:
        """Let go of all that it holds, also when the process exits in order. Idempotent; may wait a second.

        What is published afterwards still has to work, or raise :class:`.BrokerUnavailable`.
        """
