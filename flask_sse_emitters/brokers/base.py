"""The contract between channels and the broker that keeps their events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ..types import BrokerStatus
from ..wire.event import Event
from ..wire.frame import Frame
from .event_log import Bounds, Log

#: Is published before the end of a channel whose run is dead: see :meth:`Broker.start_run`.
INTERRUPTED = Frame(Event({"reason": "interrupted"}, event="interrupted").encode(), "interrupted")


class Start(NamedTuple):
    """Where a listener starts in its channel."""

    log: Log  #: the events before, as far as they are kept
    newest: int  #: the listener receives all events after this offset


class ChannelState(NamedTuple):
    """What a broker knows of a channel at one moment."""

    epoch: str  #: of the next offset
    newest: int  #: the offset of the newest event, or of the end where that is later; 0 before the first
    oldest: int  #: the offset of the oldest that is kept of this epoch; where nothing is, that of the next
    is_complete: bool  #: the newest is the end of the channel, and nothing has begun anew
    has_run: bool  #: a run publishes to it: see :meth:`Broker.start_run`

    @classmethod
    def of(cls, log: Log) -> ChannelState:
        """Return the state of the channel with this log, as far as this process knows it."""
        with log.guard:
            return cls(log.epoch, log.newest, log.first, log.is_complete, log.has_run)

    @property
    def has_events(self) -> bool:
        """Whether events are kept that a client without an id may be given: those after the end before the last."""
        return self.oldest < self.newest + (not self.is_complete)


class Publication(NamedTuple):
    """One event that is to be published, or the end of a channel."""

    channel: str
    frame: Frame  #: without an id; :data:`.CHANNEL_END` ends the channel
    bounds: Bounds | None  #: how much is kept of the channel from now on; None leaves that as it is
    #: Where an event of this channel had the same one within 5 minutes, nothing happens. The end after such an event
    #: needs a key as well, of its own: without one, a second attempt would end what has begun since.
    key: str | None = None
    run: str | None = None  #: publish only while this run has the channel: see :meth:`Broker.start_run`


def member_frame(name: str, identity: str) -> Frame:
    """Return the event that tells who has come (``join``), or is gone (``leave``)."""
    return Frame(Event({"identity": identity}, event=name).encode(), name)


def by_channel(publications: Sequence[Publication]) -> dict[str, list[int]]:
    """Return the indexes of the publications of each channel, in their order."""
    indexes: dict[str, list[int]] = {}
    for index, publication in enumerate(publications):
        indexes.setdefault(publication.channel, []).append(index)
    return indexes


class MemberChange(NamedTuple):
    """Which identities have come to one channel in a process, and which are gone: see :meth:`Broker.tell_members`."""

    channel: str
    come: Sequence[str]
    gone: Sequence[str] = ()
    is_all: bool = False  #: those that have come are all: any other that the broker knows of this holder is gone
    is_quiet: bool = False  #: publish nothing of it
    bounds: Bounds | None = None  #: as those of :class:`Publication`


class RunLost(Exception):
    """What a run publishes is refused: it was cancelled, or is believed to be dead."""

    def __init__(self, channel: str) -> None:
        super().__init__(f"the run has lost the channel {channel!r}: it was cancelled, or has come to a standstill")


class Published(NamedTuple):
    """The result of a publish."""

    id: str
    is_new: bool  #: False where an event was published with the same key before


class Listener(Protocol):
    """Receives the events of one channel. One call at a time comes, from any thread; none may block or raise."""

    def started(self, start: Start) -> None:
        """Receive events from now on; called only where :meth:`Broker.subscribe` did not return the start itself.

        It is called once more, with another log, where the broker has lost track.
        """

    def arrived(self, frames: Sequence[Frame]) -> float | None:
        """Receive these events, in order. They have their offsets, and are in the log already.

        Some may come a second time, after an interrupt of the thread that delivered them: their offsets show that.

        :return: seconds to pause delivery for (back-pressure); mostly 0, or None.
        """

    @property
    def clients(self) -> int:
        """The number of the channel's clients that it stands for."""


class Broker(ABC):
    """Keeps the events of channels, and delivers them to every process that listens.

    A class or a function that takes a URL makes one: see :data:`.GROUP`. It also takes ``prefix``, a str that keeps
    apart apps that share a broker, and ``publish_seconds``, a float, how long :meth:`publish` may take. It must not
    connect, nor start anything, before it is first used, and must work in a forked child. Every method may be called
    from any thread. The test suite of the package has a contract that every broker must fulfil.
    """

    #: Whether events that one process publishes reach the others.
    is_shared = True

    #: The id of this process among those that share the broker.
    process = "here"

    #: Called, from any thread, after the state in :meth:`status` has changed. Must not block.
    changed: Callable[[], object] = staticmethod(lambda: None)

    #: Returns what this process reports to others in :meth:`processes`; None where it has nothing to report. Cheap.
    about: Callable[[], Mapping[str, Any] | None] = staticmethod(lambda: None)

    @abstractmethod
    def publish(self, channel: str, frame: Frame, bounds: Bounds | None, key: str | None = None) -> Published:
        """Give the event an id, keep it, and deliver it to the listeners. May wait for the broker, within limits.

        :param frame: without an id.
        :param bounds: how much is kept of the channel from now on; None leaves that as it is.
        :param key: where an event of this channel was published with the same one within 5 minutes, nothing happens.
        :return: with the id of the event, or of the first one with this key.
        :raises BrokerUnavailable: where the broker cannot be reached in time.
        """

    def publish_many(self, publications: Sequence[Publication]) -> list[Published | Exception]:
        """Publish several events in one step, in their order. May wait for the broker, within limits.

        The events of one channel are kept and delivered together: no other comes between. The end of a channel that is
        complete already is not new, and has the id of the present one. Any end ends the run that has the channel.

        :return: for each what :meth:`publish` returns, or what kept it from being published: a
            :class:`.BrokerUnavailable`, or :class:`RunLost`.
        """
        raise NotImplementedError(f"{type(self).__name__} publishes one event at a time")

    def state(self, channel: str) -> ChannelState:
        """Return the state of a channel, whose epoch begins with that. May wait for the broker, within limits.

        :raises BrokerUnavailable: where the broker cannot be reached in time.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be asked for the state of a channel")

    def start_run(self, channel: str, run: str, seconds: float) -> bool:
        """Give the channel to a run, the only one that may publish with this name, for so many seconds.

        Each event that it publishes lets it have the channel for as long again. Where the channel was complete, it is
        not any more: the next epoch begins.

        A run whose time is over is dead: the next process that looks at the channel, as each does that has readers,
        publishes an event named ``interrupted`` with the data ``{"reason": "interrupted"}``, and the end.

        :param run: a name that no other run has.
        :return: False where another run has the channel.
        :raises BrokerUnavailable: where the broker cannot be reached in time.
        """
        raise NotImplementedError(f"{type(self).__name__} has no runs")

    def renew_run(self, channel: str, run: str, seconds: float) -> bool:
        """Let the run have the channel for so many seconds from now. Return False where it has lost it.

        :raises BrokerUnavailable: where the broker cannot be reached in time.
        """
        raise NotImplementedError(f"{type(self).__name__} has no runs")

    def cancel_run(self, channel: str, bounds: Bounds | None) -> bool:
        """Take the channel from its run, in whichever process that is, and end the channel. One step.

        :return: False where there is no run.
        :raises BrokerUnavailable: where the broker cannot be reached in time.
        """
        raise NotImplementedError(f"{type(self).__name__} has no runs")

    def renew_members(self, holder: str, seconds: float, *, was_away: bool = False) -> str:
        """Have the members of this process count for so many seconds from now on, and let go those of dead processes.

        A holder whose time is over is dead: it is told of as gone from all its channels, by whichever process renews
        its own next. May wait for the broker, within limits.

        :param holder: what this returned last; empty at first, and then nothing is done to others.
        :param was_away: this process could not renew in time, so others perhaps could not: they get as long again.
        :return: what stands for this process. Another one than before knows of no members, and is to be told all. It
            begins with the name of the broker's memory, and a dot: another name shows that the broker has lost all.
        :raises BrokerUnavailable: where the broker cannot be reached in time.
        """
        raise NotImplementedError(f"{type(self).__name__} knows no members: a channel cannot have members=True")

    def tell_members(self, holder: str, changes: Sequence[MemberChange]) -> list[Exception | None]:
        """Note who has come to channels in this process, and who is gone. May wait for the broker, within limits.

        In one step with it, ``join`` is published of who came to the first of all holders, and ``leave`` of who is gone
        from the last; not to a channel that is complete. What was told before may be told again.

        :return: for each what kept it from being noted, a :class:`.BrokerUnavailable`, or None.
        """
        raise NotImplementedError(f"{type(self).__name__} knows no members: a channel cannot have members=True")

    def members(self, channel: str) -> list[str]:
        """Return the identities that any living holder has of the channel, each once. May wait, within limits.

        :raises BrokerUnavailable: where the broker cannot be reached in time.
        """
        raise NotImplementedError(f"{type(self).__name__} knows no members: a channel cannot have members=True")

    @abstractmethod
    def subscribe(self, channel: str, listener: Listener) -> Start | None:
        """Deliver the channel's events to the listener. Never waits.

        :param listener: a new one each time.
        :return: where it starts, if that is known at once: events may arrive before this returns. None where
            :meth:`Listener.started` will be called first.
        """

    def subscribe_first(self, channel: str, listener: Listener) -> Start | None:
        """Subscribe as :meth:`subscribe` does, and catch up with this channel before any other."""
        return self.subscribe(channel, listener)

    @abstractmethod
    def unsubscribe(self, channel: str, listener: Listener) -> None:
        """Deliver nothing more to the listener; one call may still be under way. Idempotent; never waits."""

    def newest(self, channel: str) -> int | None:  # noqa: ARG002 - most do not know
        """Return the offset of the channel's newest event, where that is known at once."""
        return None

    def look_again(self, channel: str, done: Callable[[], object]) -> None:  # noqa: ARG002 - nothing is under way
        """Call ``done``, from any thread, once all events published before are delivered to the listeners.

        Never waits, and may call at once. It calls exactly once in any case: where nothing listens any more, there is
        nothing left to deliver. While this broker cannot be reached, that may take some time.
        """
        done()

    def count_again(self, channel: str) -> None:  # noqa: B027 - most do not count
        """Count the clients of the channel's listeners again: their number has changed. Never waits."""

    def clients_elsewhere(self, channel: str) -> int:  # noqa: ARG002 - most know of no others
        """Return how many clients of the channel other processes have. May wait for the broker, within limits.

        :raises BrokerUnavailable: where the broker cannot be reached in time.
        """
        return 0

    def processes(self) -> list[dict[str, Any]]:
        """Return what other processes report: their :attr:`about`, with ``id``, ``age`` and ``channels``.

        ``id`` is a str that no two of them share, ``age`` the seconds since the report, and ``channels`` the number of
        clients that each channel has there. May wait for the broker, within limits.

        :raises BrokerUnavailable: where the broker cannot be reached in time.
        """
        return []

    def check_writable(self) -> None:  # noqa: B027 - most brokers always are
        """Check that an event could be published now. May wait for the broker, within limits.

        :raises BrokerUnavailable: where it could not; says what to change.
        """

    def status(self) -> BrokerStatus:
        """Return the broker's state, for people and monitors: at least ``state``, ``"ok"`` or ``"degraded"``."""
        return {"state": "ok"}

    @abstractmethod
    def close(self) -> None:
        """Release all that it holds, also when the process exits in order. Idempotent; may wait a second.

        A later :meth:`publish` must still work, or raise :class:`.BrokerUnavailable`.
        """
