"""What a list has queued, and the frames of it that are delivered to many clients at once, joined once for all."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..wire.frame import BATCH_BYTES, Frame, chunk, count_events

if TYPE_CHECKING:
    from .member import Member


class QueuedEvent(NamedTuple):
    """One event, or an end, for those who were in the list when it was sent."""

    number: int
    frame: Frame | None  #: None ends their streams; that of a channel's end those that have no other channel
    members: tuple[Member, ...]

    @property
    def event(self) -> Frame | None:
        """The event; None where it is an end."""
        return None if self.frame is None or self.frame.is_end else self.frame


class Receiver(Protocol):
    """What a batch has to know of a member: see :class:`.Member`."""

    delivered_upto: int

    @property
    def has_own_ids(self) -> bool:
        """Whether its client gets other bytes than all others."""

    def with_ids(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Return the frames as they are written to its client."""


class Batch:
    """Frames that are delivered at once.

    :param frames: in order. None at all stands for an end.
    :param last: the number that their list gave to the last of them; those before it have the numbers before.
    :param when: the time of the clock that heartbeats go by.
    :param channel_end: what it stands for without frames; None is the end of the streams.
    """

    __slots__ = ("channel_end", "chunk", "events", "first", "frames", "is_small", "largest", "last", "payload", "when")

    def __init__(self, frames: Sequence[Frame], last: int, when: float, channel_end: Frame | None = None) -> None:
        self.frames = frames
        self.channel_end = channel_end
        self.events = count_events(frames)
        self.first = last - max(0, len(frames) - 1)
        self.last = last
        self.when = when
        self.payload = frames[0].payload if len(frames) == 1 else b"".join([frame.payload for frame in frames])
        self.chunk = chunk(self.payload)
        self.largest = max((len(frame.payload) for frame in frames), default=0)
        self.is_small = len(self.payload) <= BATCH_BYTES

    def payload_for(self, member: Receiver) -> bytes:
        """Return all of it, as it is written to this client."""
        return b"".join([each.payload for each in member.with_ids(self.frames)]) if member.has_own_ids else self.payload

    def rest_for(self, member: Receiver) -> Batch:
        """Return what this client still lacks, as it is written to it."""
        if member.delivered_upto < self.first and not member.has_own_ids:
            return self
        lacking = self.frames[max(0, member.delivered_upto + 1 - self.first) :]
        return Batch(member.with_ids(lacking), self.last, self.when)


def first_batch(outbox: deque[QueuedEvent], *, is_unmixed: bool) -> list[QueuedEvent]:
    """Return what one pass can deliver to the members of the last of it: events, or an end.

    Who joined after the first of them counts as served up to where it joined, and who has left took what was queued as
    it did. Were it only what goes to the very same members, a list whose clients come and go all the time would never
    gather anything.

    :param is_unmixed: only what goes to the very same members, as one that is taken out may lack some of it.
    """
    first = next(iter(outbox), None)
    if first is None or first.event is None:
        return [] if first is None else [first]
    room = BATCH_BYTES
    taken: list[QueuedEvent] = []
    for queued in outbox:
        if queued.event is None or (is_unmixed and queued.members is not first.members):
            break
        room -= len(queued.event.payload)
        if room < 0 and taken:
            break
        taken.append(queued)
    return taken
