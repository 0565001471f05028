"""The replay of one client: what it has missed, read from the logs of its channels until lists bring everything.

Nothing is queued meanwhile. The client has a place in each channel's list from the beginning, and the list passes over
it. Once the client has read all that the list has ever been given from the log, its place goes live, which the list
confirms under its own lock. So no event falls between, and a backlog of any length costs a client one position a
channel.

A replay is in one of four states:

* *locating*: the position of the client is not known yet. That takes until the process knows all channels, and, if the
  client comes with an id that it does not know, until the broker has answered: another process may have been quicker.
* *reading*: the writer of the stream reads the logs whenever it has nothing else to write. Channel by channel the
  client goes live.
* *live*: lists bring everything, and the replay is not needed any more. Mostly that is so at once.
* *ended*: the stream has ended. What had arrived until then is still read, and nothing else.

Once it has read the end of every channel, it ends the stream for good.

What must be announced is a gap: a position that is not of this log, or one after which something is no longer kept. It
may also open while a slow client reads.

One thread at a time begins, prepares and takes. Any other may end it meanwhile, under the lock of the stream: so what
the end sets is read before anything that may have arrived before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NoReturn

from ...broadcast.member import Member, MemberState
from ...brokers.event_ids import Position, read_ids
from ...brokers.event_log import Log
from ...runtime.calls import Countdown
from ...runtime.scheduler import SCHEDULER
from ...streams.emitter import SseEmitter, stream_of
from ...streams.interfaces import Output
from ...streams.outgoing import NOTHING
from ...wire.frame import without_ids
from ..process_subscription import ProcessSubscription
from .cursor import Cursor, MultiChannelMember
from .locating import UNKNOWN, Arrival, KnownChannel, find_foreign, locate_new, locate_returning
from .pages import PageCache
from .reading import LogReader


class ReplayState(Enum):
    """How far a replay is: see the head of this module."""

    LOCATING = "locating"
    READING = "reading"
    LIVE = "live"
    ENDED = "ended"


class Replay:
    """The replay of one client, which is the :class:`.ReplaySource` of its stream.

    :param subscriptions: to the channels of the stream, each once.
    :param requested: the ``Last-Event-ID`` of the client; None where it has none, and begins as it arrives.
    :param pages: shared with other clients.
    :param arrivals: to each of the channels; by default it begins with what comes.
    """

    __slots__ = (
        "__weakref__",
        "_arrivals",
        "_came_at",
        "_cursor",
        "_emitter",
        "_has_gap",
        "_is_bare",
        "_known_at_end",
        "_lookup",
        "_members",
        "_newest",
        "_pages",
        "_prepared",
        "_reader",
        "_requested",
        "_stream",
        "_subscriptions",
        "_upto",
        "has_more",
    )

    def __init__(
        self,
        emitter: SseEmitter,
        subscriptions: Sequence[ProcessSubscription],
        requested: str | None,
        pages: PageCache,
        arrivals: Sequence[Arrival] = (),
    ) -> None:
        self.has_more = False
        self._emitter = emitter
        self._stream = stream_of(emitter)
        self._subscriptions = subscriptions
        self._requested = requested
        self._arrivals = arrivals or [Arrival()] * len(subscriptions)
        self._pages = pages
        self._is_bare = self._stream.settings.bare
        self._came_at = SCHEDULER.clock()
        self._cursor = Cursor(len(subscriptions))  # where the client is with what has been written
        self._members: dict[int, Member] = {}  # its places in lists that are not live yet, by channel
        self._newest: list[int] = []  # offset of each channel as the client came; empty before begin()
        self._lookup: Countdown | None = None  # over once the broker has answered
        self._has_gap: bool | None = None
        self._reader: LogReader | None = None  # from when the position is known
        self._prepared: Output | Callable[[], Output] | None = None
        self._upto: tuple[int, ...] | None = None  # where to end, once the stream has ended
        self._known_at_end: Sequence[KnownChannel] = ()  # what was known then, while the position was not

    @property
    def state(self) -> ReplayState:
        """Its state. Ended may come from another thread at any time; all others only from the calls of one."""
        if self._upto is not None:
            return ReplayState.ENDED
        if self._reader is None:
            return ReplayState.LOCATING
        return ReplayState.READING if self._members else ReplayState.LIVE

    @property
    def misses_events(self) -> bool | None:
        """Whether the client has missed something for good; None while that is not known."""
        return self._has_gap

    def begin(self) -> None:
        """Take the places of the stream in the lists of its channels, and let it read from here what they do not bring.

        The stream must be new: nothing has been sent to it.

        :raises RuntimeError: where it has begun.
        """
        if self._newest:
            _refuse("a replay begins once")
        several = len(self._subscriptions) > 1
        for index, subscription in enumerate(self._subscriptions):
            member = self._members[index] = (
                MultiChannelMember(self._emitter, subscription, self._cursor, index)
                if several
                else Member(self._emitter, subscription, MemberState.REPLAYING)
            )
            subscription.enlist(member)
            newest = subscription.newest()
            self._newest.append(UNKNOWN if newest is None else newest)
        reader = self._try_locate()
        if reader is not None and (reader.lost is None or not reader.behind(self._members, self._list_offsets())):
            head = reader.take_gap() or self._position()  # now: what lists bring once it is live comes after this
            if not self._check_over():
                self._go_live(reader)
            if head is not None:
                self._stream.prepend(head.payload, head.gap)
        if self._members:
            self._stream.replay_from(self)

    def end(self, *, is_synced: bool) -> None:
        """Give no more than what this process has received until now. Under the lock of the stream."""
        reader = self._reader
        if reader is None and is_synced:
            self._known_at_end = self._known_channels()
        logs = [channel.log for channel in self._known_at_end] if reader is None else reader.logs
        self._upto = tuple(log.newest for log in logs)

    def prepare(self) -> bool | None:
        """Read the next page. Return False where there is none yet, None where there will be none any more.

        :raises RuntimeError: before it has begun.
        """
        if not self._newest:
            _refuse("a replay begins before it is read")
        if self._prepared is not None:  # and not taken, as lists were quicker
            return True
        has_ended, reader = self.state is ReplayState.ENDED, self._reader  # in this order: see the head of this module
        if reader is None:
            reader = self._try_locate()
            if reader is None:
                return None if has_ended else False
            if reader.lost is None:
                self._prepared = self._position()
        return self._prepared is not None or self._read(reader)

    def take(self) -> Output:
        """Return what was prepared. Under the lock of the stream.

        :raises RuntimeError: where nothing is prepared.
        """
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            _refuse("nothing is prepared to be taken")
        if not isinstance(prepared, Output):
            prepared = NOTHING if self._cursor.is_over else prepared()  # lists have brought the last end meanwhile
        return prepared._replace(payload=without_ids(prepared.payload)) if self._is_bare else prepared

    def _try_locate(self) -> LogReader | None:
        """Find the position of the client. None where it cannot be known yet: the stream is notified when it may be."""
        channels = self._known_at_end
        has_ended = bool(channels) or self._upto is not None
        if not has_ended:
            for subscription in self._subscriptions:
                if subscription.log is None:
                    subscription.notify_later(self._stream)
            channels = self._known_channels()
        if not channels:
            return None
        requested = self._requested
        returns = None if requested is None else read_ids(requested, len(channels))
        positions = [arrival.newest for arrival in self._arrivals] if requested is None else returns
        if positions is not None and not has_ended and not self._look_up(positions, channels):
            return None
        if requested is None:
            location = locate_new(self._came_at, self._newest, channels, self._arrivals)
        else:
            location = locate_returning(returns, channels)
        self._has_gap = location.has_gap
        lost = (requested or "") if location.has_gap and not self._is_bare else None
        logs = [channel.log for channel in channels]
        self._reader = LogReader(logs, location.offsets, lost, self._cursor, self._pages, tells_gaps=not self._is_bare)
        self._note_ends(logs, location.offsets)
        return self._reader

    def _note_ends(self, logs: Sequence[Log], offsets: Sequence[int]) -> None:
        for index, log in enumerate(logs):
            if log.is_complete and log.newest == offsets[index]:
                self._cursor.note(index, ends=True)

    def _known_channels(self) -> Sequence[KnownChannel]:
        """Return what this process knows of the channels; nothing unless it knows all of them."""
        found = [
            KnownChannel(log, each.offset, each.start_offset)
            for each in self._subscriptions
            if (log := each.log) is not None  # read once, as it may change at any time
        ]
        return found if len(found) == len(self._subscriptions) else ()

    def _look_up(self, positions: Sequence[Position | None], channels: Sequence[KnownChannel]) -> bool:
        """Ask the broker, once, for what this process may lack. Return whether it has answered."""
        if self._lookup is None:
            foreign = find_foreign(positions, channels)
            if not foreign:
                return True
            self._lookup = Countdown(len(foreign), self._stream.notify_replay)
            for index in foreign:
                self._subscriptions[index].sync(self._lookup)
        return self._lookup.is_over

    def _read(self, reader: LogReader) -> bool | None:
        while True:
            if reader.lost is None and self._check_over():
                self._stream.end_for_good()
                return None
            has_ended = self.state is ReplayState.ENDED
            if not has_ended and reader.lost is None:
                self._go_live(reader)
            upto = self._list_offsets() if self._upto is None else self._upto
            if not upto:  # the stream has ended just before its position was found
                return None
            behind = reader.behind(self._members, upto)
            if behind or reader.lost is not None:
                is_alone = len(self._members) == len(self._subscriptions)
                self._prepared = reader.read(behind, upto, is_alone=is_alone)
                return True
            if has_ended or not self._members:
                return None
            if self._await_arrivals(reader):
                return False

    def _check_over(self) -> bool:
        with self._stream.lock:  # from then on lists bring nothing
            return self._cursor.check_over()

    def _go_live(self, reader: LogReader) -> None:
        for index, member in list(self._members.items()):
            if self._subscriptions[index].go_live(member, reader.offsets[index]):
                del self._members[index]

    def _await_arrivals(self, reader: LogReader) -> bool:
        """Have the stream notified of what arrives. Return False where something has arrived meanwhile.

        The client is ahead of this process then: another one gave it what has not arrived here.
        """
        for index in self._members:
            self._subscriptions[index].notify_later(self._stream)
        return all(reader.offsets[index] > self._subscriptions[index].offset for index in self._members)

    def _list_offsets(self) -> tuple[int, ...]:
        return tuple(subscription.offset for subscription in self._subscriptions)

    def _position(self) -> Output | None:
        """Return the position of a new client, for it to remember; None for one that came with an id."""
        remembers = self._requested is None and not self._is_bare
        return Output(self._cursor.encode(), 0) if remembers else None


def _refuse(step: str) -> NoReturn:
    raise RuntimeError(f"illegal step: {step}")
