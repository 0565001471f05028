"""Frames that are delivered to many clients at once, joined for all of them once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..wire.frame import BATCH_BYTES, Frame, chunk, count_events


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

    :param frames: in order. None at all stands for the end of the streams.
    :param last: the number that their list gave to the last of them; those before it have the numbers before.
    :param when: the time of the clock that heartbeats go by.
    """

    __slots__ = ("chunk", "events", "first", "frames", "is_small", "largest", "last", "payload", "when")

    def __init__(self, frames: Sequence[Frame], last: int, when: float) -> None:
        self.frames = frames
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
