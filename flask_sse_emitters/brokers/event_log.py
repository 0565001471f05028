"""The events that are kept of one channel, bounded by count and by age."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..runtime.locks import Lock, native_lock
from ..wire.frame import BATCH_BYTES, CHANNEL_END, Frame
from .event_ids import Position, new_epoch

#: Dropped entries leave empty places at the front of the list, until they are this many and half of it.
MAX_EMPTY_PLACES = 64

#: So many former epochs of a channel are remembered: clients that come back with an older one receive a gap.
MAX_FORMER_EPOCHS = 8


class Bounds(NamedTuple):
    """How much is kept of a channel."""

    events: int  #: from 0
    seconds: float  #: 0 is for as long as the count allows


class Alias(NamedTuple):
    """An epoch whose offsets were counted beside those of a log, to which its events came later."""

    epoch: str
    shift: int  #: the log's offset of what came before its first event
    last: int  #: its last offset


class LogState(NamedTuple):
    """All that a log has, at one moment: see :class:`Log` for what is not said here. Times are of its clock."""

    epoch: str
    newest: int
    last: float
    former: Sequence[Position]
    aliases: Sequence[Alias]
    first: int
    end: int  #: the offset of the last end
    is_complete: bool
    bounds: Bounds
    frames: Sequence[Frame]  #: that are kept


class Log:
    """The newest events of one channel, bounded by count and age. Any thread may read, and none waits.

    The end of the channel has its place among them, and an offset: see :data:`.CHANNEL_END`. What follows it is in
    another epoch. Who begins anew then gets nothing from before the end, and who has not read that far still does. An
    end is no event that one may miss: the last two can be read although they are not kept any more.

    :param epoch: of its offsets.
    :param newest: the offset of the last event before it.
    :param clock: gives seconds, as ``time.monotonic`` does; what is older than the bounds say is gone at that very
        moment.
    :param last: when that event was published, by this clock; long ago where that is unknown.
    :param former: as :attr:`former`.
    :param first: as :attr:`first`, as far as it depends on what was before; 0 where that is unknown.
    :param is_complete: as :attr:`is_complete`.
    """

    #: Other epochs by which clients may know some of its events.
    aliases: Sequence[Alias] = ()

    def __init__(
        self,
        epoch: str,
        newest: int,
        clock: Callable[[], float],
        last: float = -math.inf,
        former: Sequence[Position] = (),
        first: int = 0,
        is_complete: bool = False,
    ) -> None:
        self.epoch: str = epoch
        #: Where each epoch before this one ended: its last offset. The latest comes first.
        self.former: Sequence[Position] = former
        #: Whether the newest is the end of the channel, and no other epoch has begun since.
        self.is_complete: bool = is_complete
        #: Whether a run publishes to the channel. The broker sets it, and any end ends it.
        self.has_run: bool = False
        self.guard: Lock = native_lock()  #: writers hold it
        self._clock = clock
        self._bounds = Bounds(0, 0)
        self._newest = newest
        self._last = last
        self._first = first  # the offset after the end before the last
        self._end = newest if is_complete else first - 1  # the offset of the last end
        # As plain tuples: the garbage collector stops tracking them. The last field of each is its ``at``.
        self._frames: list[tuple[bytes, str | None, int, int, float] | None] = []
        self._empty = 0  # places at its front whose events were dropped

    @classmethod
    def restore(cls, state: LogState, clock: Callable[[], float]) -> Log:
        """Make a log of what another one had."""
        log = cls(state.epoch, state.newest, clock, state.last, state.former, state.first, state.is_complete)
        log.aliases = state.aliases
        log._bounds, log._end = state.bounds, state.end
        log._frames = [(*frame,) for frame in state.frames]
        return log

    def snapshot(self) -> LogState:
        """Return all that it has. Call it with the guard held."""
        self.forget_old()
        return LogState(
            epoch=self.epoch,
            newest=self._newest,
            last=self._last,
            former=tuple(self.former),
            aliases=tuple(self.aliases),
            first=self._first,
            end=self._end,
            is_complete=self.is_complete,
            bounds=self._bounds,
            frames=[Frame._make(kept) for kept in self._frames[self._empty :] if kept is not None],
        )

    @property
    def newest(self) -> int:
        """The offset of the newest event, or end, kept or not; 0 before the first."""
        return self._newest

    @property
    def oldest(self) -> int:
        """The offset of the oldest event that is kept; where none is, that of the next."""
        with self.guard:
            return self.forget_old()

    @property
    def first(self) -> int:
        """The offset of the oldest event that is kept for who begins anew; where none is, that of the next.

        It is never before an end that something follows, or after which another epoch has begun.
        """
        with self.guard:
            return max(self.forget_old(), self._first if self.is_complete else self._end + 1)

    def position(self, offset: int) -> Position:
        """Return the id of the event with this offset, kept or not."""
        epoch = self.epoch
        for former in self.former:
            if former.offset < offset:
                break
            epoch = former.epoch
        return Position(epoch, offset)

    def find(self, position: Position) -> int | None:
        """Return the offset that a client's position stands for; None where it is not of this channel."""
        if position.epoch == self.epoch:
            return position.offset if position.offset <= self._newest else None
        for former in self.former:
            if former.epoch == position.epoch:
                return position.offset if position.offset <= min(former.offset, self._newest) else None
        for alias in self.aliases:
            if alias.epoch == position.epoch:
                return alias.shift + position.offset if position.offset <= alias.last else None
        return None

    def after(self, offset: int, upto: int, room: float = BATCH_BYTES, extra: int = 0) -> list[Frame]:
        """Return the kept events between two offsets, in order, as many as there is room for.

        Where the next one is no longer kept, the first has a later offset.

        :param offset: the events after it are wanted.
        :param upto: the last one that is wanted.
        :param room: bytes; one event is returned in any case.
        :param extra: bytes that each event takes besides its own.
        """
        taken: list[Frame] = []
        with self.guard:
            oldest = self.forget_old()
            end = self._end_after(offset)
            if max(offset, 0) < end <= upto and end < oldest:
                return [with_id(CHANNEL_END, self.position(end), -math.inf)]
            index = self._empty + max(0, offset + 1 - oldest)
            end = self._empty + max(0, min(upto, self._newest) + 1 - oldest)
            while index < end and (kept := self._frames[index]) is not None:
                frame = Frame._make(kept)
                room -= extra + len(frame.payload)
                if room < 0 and taken:
                    break
                taken.append(frame)
                index += 1
        return taken

    def before(self, when: float) -> tuple[int, bool]:
        """Return the offset of the newest event that was published before this time of the clock.

        :return: and whether that is known: else some events after it may be gone already.
        """
        with self.guard:
            offset, index = self._newest, len(self._frames)
            while index > self._empty and (kept := self._frames[index - 1]) is not None and kept[-1] >= when:
                offset, index = offset - 1, index - 1
            is_known = index > self._empty if len(self._frames) > self._empty else self._last < when
        return offset, is_known or not offset

    def append(self, frame: Frame, bounds: Bounds, now: float | None = None) -> Frame:
        """Keep one more event, and no more of all of them than these bounds say. Call it with the guard held.

        What follows an end begins another epoch. The newest is kept in any case if it is an end.

        :param now: the time of the clock, where that is known.
        :return: the event with its id and offset.
        """
        now = self._clock() if now is None else now
        stamped = self._stamp(frame, now)
        while stamped.offset != self._newest + 1:  # the garbage collector has run a finalizer, which published as well
            stamped = self._stamp(frame, now)
        return self._keep(stamped, bounds, now)

    def keep(self, frame: Frame, bounds: Bounds, at: float) -> Frame:
        """Keep an event that was published elsewhere at this time of the clock, and begin no epoch for it."""
        return self._keep(with_id(frame, self.position(self._newest + 1), at), bounds, self._clock())

    def begin_anew(self) -> None:
        """Let offsets go on in a new epoch, if the channel is complete. Call it with the guard held."""
        while self.is_complete:
            newest, epoch = self._newest, new_epoch()
            former = former_of(self)
            if newest == self._newest:  # as in append()
                self.go_on_in(epoch, former)

    def go_on_in(self, epoch: str, former: Sequence[Position]) -> None:
        """Let offsets go on in another epoch, which has begun elsewhere. Call it with the guard held.

        :param former: where all those before it ended.
        """
        self.former = former  # first: until the next line, what is known so far is found as well
        self.epoch = epoch
        self.is_complete = False

    def _stamp(self, frame: Frame, now: float) -> Frame:
        if self.is_complete:
            self.begin_anew()
        return with_id(frame, (self.epoch, self._newest + 1), now)

    def _keep(self, stamped: Frame, bounds: Bounds, now: float) -> Frame:
        if bounds != self._bounds:  # an equal one would be an object more that outlives its event
            self._bounds = bounds
        self._newest, self._last = stamped.offset, stamped.at
        self.is_complete = is_end = stamped.is_end
        if is_end:
            self.has_run = False
            self._first, self._end = self._end + 1, stamped.offset
        self._frames.append((*stamped,))
        while len(self._frames) - self._empty > bounds.events + is_end:
            self._drop_oldest()
        self.forget_old(now)
        return stamped

    def forget_old(self, now: float | None = None) -> int:
        """Drop the events that are too old now. Call it with the guard held.

        :param now: the time of the clock, where that is known.
        :return: as :attr:`oldest`.
        """
        if self._bounds.seconds:
            limit = (self._clock() if now is None else now) - self._bounds.seconds
            while self._empty < len(self._frames):
                oldest = self._frames[self._empty]
                if oldest is not None and oldest[-1] > limit:
                    break
                self._drop_oldest()
        return self._newest + 1 - (len(self._frames) - self._empty)

    def is_before_end(self, offset: int) -> bool:
        """Return whether nothing but an end follows an offset before another epoch begins, as far as that is known."""
        return offset + 1 in (self._end, self._first - 1)

    def _end_after(self, offset: int) -> int:
        """Return the offset of the end that is next, where nothing that is kept is before it; 0 where that is none."""
        if self.is_before_end(offset):
            return offset + 1
        return self._newest if self.is_complete else 0

    def _drop_oldest(self) -> None:
        self._frames[self._empty] = None
        self._empty += 1
        if self._empty >= MAX_EMPTY_PLACES and self._empty * 2 >= len(self._frames):
            del self._frames[: self._empty]
            self._empty = 0


def with_id(frame: Frame, position: tuple[str, int], at: float) -> Frame:
    """Return the frame of an event with the line of its id before it.

    :param at: when it was published, by the clock of its log.
    """
    epoch, offset = position
    line = b"id: %b-%d\n" % (epoch.encode(), offset)
    return Frame(line + frame.payload, frame.name, offset, len(line), at)


def former_of(log: Log) -> Sequence[Position]:
    """Return what :attr:`Log.former` is where another epoch begins now."""
    return (Position(log.epoch, log.newest), *log.former[: MAX_FORMER_EPOCHS - 1])
