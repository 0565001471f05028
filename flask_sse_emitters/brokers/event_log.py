"""What a channel keeps of its events, and the ids by which clients say how far they got.

An id is ``<epoch>-<offset>``. Offsets count a channel's events from 1 without a hole. The epoch is drawn at random
whenever they begin anew, so that an id of before is never taken for one of now.

Offsets may also go on under another epoch: where a broker came back that may have lost its newest events, the next one
must not get the id of a lost one. A position of a former epoch then holds up to the offset where the epoch changed.
"""

from __future__ import annotations

import math
import random
import re
import string
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..runtime.locks import native_lock
from ..wire.frame import BATCH_BYTES, Frame, numbered

#: With 5 characters of 62 and 9 digits, the ids of 8 channels have 127 bytes with their commas.
EPOCH_LENGTH = 5

#: No stream's id is longer; what a client sends beyond that is none of ours.
LONGEST_ID = 2048

#: Entries that are gone leave their places in the list, until they are this many and half of it.
GONE_KEPT = 64

_ALPHABET = string.digits + string.ascii_letters
_ID = re.compile(r"([0-9A-Za-z]{1,32})-(0|[1-9][0-9]{0,17})", re.ASCII)
_RANDOM = random.SystemRandom()


class Bounds(NamedTuple):
    """How much of a channel is kept."""

    events: int  #: from 0
    seconds: float  #: 0 is for as long as the count allows


class Position(NamedTuple):
    """How far a client got in one channel."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"


def new_epoch() -> str:
    """An epoch that no other has had, as far as chance goes."""
    return "".join(_RANDOM.choices(_ALPHABET, k=EPOCH_LENGTH))


def read_ids(text: str, count: int) -> list[Position] | None:
    """The positions in so many channels that a stream's id holds; None where it is not of this form."""
    if len(text) > LONGEST_ID:
        return None
    found = [_ID.fullmatch(part) for part in text.split(",")]
    if len(found) != count or not all(found):
        return None
    return [Position(match[1], int(match[2])) for match in found if match is not None]


class Log:
    """The newest events of one channel, bounded by count and age. Any thread may read, and none waits.

    :param epoch: of its offsets.
    :param newest: the offset of the last event before it.
    :param clock: gives seconds, as ``time.monotonic`` does; what is older than the bounds say is gone at that very
        moment.
    :param last: when that was published, by this clock; long ago where nobody knows.
    :param former: as :attr:`former`.
    """

    def __init__(
        self,
        epoch: str,
        newest: int,
        clock: Callable[[], float],
        last: float = -math.inf,
        former: Sequence[Position] = (),
    ) -> None:
        self.epoch = epoch
        #: Where each epoch before this one ended: its last offset. The latest comes first.
        self.former = former
        self.guard = native_lock()  #: whoever writes holds it
        self._clock = clock
        self._bounds = Bounds(0, 0)
        self._newest = newest
        self._last = last
        # As plain tuples: the garbage collector lets go of them, and need not look at each again. The last field is at.
        self._frames: list[tuple[bytes, str | None, int, int, float] | None] = []
        self._gone = 0  # so many at its front are no longer there

    @property
    def newest(self) -> int:
        """The offset of the newest event, kept or not; 0 before the first."""
        return self._newest

    @property
    def oldest(self) -> int:
        """The offset of the oldest event that is kept; where none is, that of the next."""
        with self.guard:
            return self.forget_old()

    def position(self, offset: int) -> Position:
        """Give the id of the event with this offset, kept or not."""
        epoch = self.epoch
        for former in self.former:
            if former.offset < offset:
                break
            epoch = former.epoch
        return Position(epoch, offset)

    def find(self, position: Position) -> int | None:
        """Give the offset that a client's position stands for; None where it is not of this channel."""
        if position.epoch == self.epoch:
            return position.offset if position.offset <= self._newest else None
        for former in self.former:
            if former.epoch == position.epoch:
                return position.offset if position.offset <= min(former.offset, self._newest) else None
        return None

    def after(self, offset: int, upto: int, room: float = BATCH_BYTES, extra: int = 0) -> list[Frame]:
        """The events after this offset that are kept, in order: none beyond the second, and as many as have room.

        Where what comes next is gone, the first has a later offset.

        :param room: bytes; one event is given in any case.
        :param extra: bytes that each event takes besides its own.
        """
        taken: list[Frame] = []
        with self.guard:
            oldest = self.forget_old()
            index = self._gone + max(0, offset + 1 - oldest)
            end = self._gone + max(0, min(upto, self._newest) + 1 - oldest)
            while index < end and (kept := self._frames[index]) is not None:
                frame = Frame._make(kept)
                room -= extra + len(frame.payload)
                if room < 0 and taken:
                    break
                taken.append(frame)
                index += 1
        return taken

    def before(self, when: float) -> tuple[int, bool]:
        """The offset of the newest event that was published before this time of the clock.

        :return: and whether that is known. Else some after it may be gone already.
        """
        with self.guard:
            offset, index = self._newest, len(self._frames)
            while index > self._gone and (kept := self._frames[index - 1]) is not None and kept[-1] >= when:
                offset, index = offset - 1, index - 1
            is_known = index > self._gone if len(self._frames) > self._gone else self._last < when
        return offset, is_known or not offset

    def append(self, frame: Frame, bounds: Bounds) -> Frame:
        """Keep one more event, and of all of them what the bounds say from now on. Under the lock.

        :return: with its id and offset.
        """
        return self.keep(frame, bounds, self._clock())

    def keep(self, frame: Frame, bounds: Bounds, at: float) -> Frame:
        """As :meth:`append`, what was published at this time. Under the lock."""
        stamped = numbered(frame, *self.position(self._newest + 1), at)
        while stamped.offset != self._newest + 1:  # the garbage collector has run a finalizer, which published as well
            stamped = numbered(frame, *self.position(self._newest + 1), at)
        if bounds != self._bounds:  # an equal one would be an object more that outlives its event
            self._bounds = bounds
        self._newest, self._last = stamped.offset, at
        self._frames.append((*stamped,))
        while len(self._frames) - self._gone > bounds.events:
            self._drop_oldest()
        self.forget_old()
        return stamped

    def forget_old(self) -> int:
        """Let go of what is too old now. Under the lock.

        :return: as :attr:`oldest`.
        """
        if self._bounds.seconds:
            limit = self._clock() - self._bounds.seconds
            while self._gone < len(self._frames):
                oldest = self._frames[self._gone]
                if oldest is not None and oldest[-1] > limit:
                    break
                self._drop_oldest()
        return self._newest + 1 - (len(self._frames) - self._gone)

    def _drop_oldest(self) -> None:
        self._frames[self._gone] = None
        self._gone += 1
        if self._gone >= GONE_KEPT and self._gone * 2 >= len(self._frames):
            del self._frames[: self._gone]
            self._gone = 0
