"""What waits for one client, within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, takewhile

from ...config.settings import Settings
from ...wire.frame import BATCH_BYTES, Frame, count_events

#: The frames where there are none: shared, for most clients have nothing pending.
_NONE: list[Frame] = []


class Backlog:
    """Frames in order of arrival. Not thread-safe: its stream's lock guards it."""

    __slots__ = ("_begun", "_exempt_bytes", "_frames", "_offset", "_uncounted", "dropped", "size")

    def __init__(self) -> None:
        self._frames: list[Frame] = _NONE
        self._begun = b""  # a large payload, shared with other clients, that was taken up to an offset
        self._offset = 0
        self._exempt_bytes = 0  # so many of its bytes count for no bound
        self._uncounted = 0  # so many events are in it that no output has counted
        self.size = 0  #: bytes
        self.dropped = 0  #: frames, since the beginning

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def is_amid(self) -> bool:
        """Whether a part of something has been taken, and the rest has not."""
        return self._offset > 0

    @property
    def has_unnumbered(self) -> bool:
        """Whether an event is among those that wait which is of no channel, and so is not read again from its log."""
        return any(not frame.offset for frame in self._frames)

    def has_room(self, frame: Frame, settings: Settings) -> bool:
        """Return whether one more frame fits in the bounds, or nothing waits that could make room for it."""
        waiting, needed = self.size - self._exempt_bytes, len(frame.payload) - frame.body
        fits = len(self._frames) < settings.max_pending and waiting + needed <= settings.max_pending_bytes
        return fits or not waiting

    def push(self, frame: Frame, settings: Settings) -> bool:
        """Keep a frame. Return False, and do not keep it, where it goes over the bounds and those say to close.

        Its own id does not count: the bound for what is pending is as large as that for one event, which has none yet.
        """
        if settings.overflow == "coalesce":
            self._drop_namesake(frame)
        needed = len(frame.payload) - frame.body
        size = self.size - self._exempt_bytes + needed
        if len(self._frames) >= settings.max_pending or size > settings.max_pending_bytes:
            if settings.overflow != "drop_oldest":
                return False
            if needed > settings.max_pending_bytes:  # no room could ever be made
                self.dropped += 1
                return True
            self._make_room(needed, settings)
        self._keep((frame,))
        self.size += len(frame.payload)
        return True

    def push_all(self, frames: Sequence[Frame], payload_size: int, settings: Settings) -> bool:
        """Keep all frames of a batch, as :meth:`push` does each. Return False after the first that cannot be kept.

        :param payload_size: bytes that the frames have together.
        """
        count, size = len(self._frames) + len(frames), self.size - self._exempt_bytes + payload_size
        if count <= settings.max_pending and size <= settings.max_pending_bytes and settings.overflow != "coalesce":
            self._keep(frames)
            self.size += payload_size
            return True
        return all(self.push(frame, settings) for frame in frames)

    def reserve(self, frames: Sequence[Frame]) -> None:
        """Keep frames that are taken next, where nothing waits: they are not pending, and count for no bound."""
        self._begun = b"".join([frame.payload for frame in frames])
        self.size = self._exempt_bytes = len(self._begun)
        self._uncounted = count_events(frames)

    def prepend(self, payload: bytes) -> None:
        """Keep bytes that are taken before all that waits. They count for no bound; nothing has been taken yet."""
        self._begun = payload
        self.size += len(payload)
        self._exempt_bytes = len(payload)

    def keep_first(self) -> None:
        """Drop all but what was prepended."""
        self._frames = _NONE
        self.size = self._exempt_bytes

    def take(self) -> tuple[bytes, int]:
        """Remove and return the oldest bytes, as many as make one good write; ``b""`` where there are none.

        :return: with the number of events that begin with them.
        """
        events, self._uncounted = self._uncounted, 0
        if not self._begun:
            frames = self._next_frames()
            payload, events = b"".join([frame.payload for frame in frames]), count_events(frames)
            if len(payload) <= BATCH_BYTES:
                self.size -= len(payload)
                return payload, events
            self._begun = payload
        part = self._begun[self._offset : self._offset + BATCH_BYTES]
        self._offset += len(part)
        self.size -= len(part)
        self._exempt_bytes = max(0, self._exempt_bytes - len(part))
        if self._offset == len(self._begun):
            self._begun, self._offset = b"", 0
        return part, events

    def clear(self) -> None:
        """Drop everything."""
        self._frames = _NONE
        self._begun, self._offset = b"", 0
        self.size = self._exempt_bytes = self._uncounted = 0

    def _keep(self, frames: Sequence[Frame]) -> None:
        if self._frames is _NONE:
            self._frames = []
        self._frames += frames

    def _next_frames(self) -> list[Frame]:
        """Remove and return as many as fit in one batch; a larger one goes alone."""
        count = len(self._frames)
        if self.size > BATCH_BYTES:
            sizes = accumulate(len(frame.payload) for frame in self._frames)
            count = max(1, sum(1 for _ in takewhile(BATCH_BYTES.__ge__, sizes)))
        taken, self._frames = self._frames[:count], self._frames[count:] or _NONE
        return taken

    def _drop_namesake(self, frame: Frame) -> None:
        for index, older in enumerate(self._frames):
            if older.name == frame.name is not None:
                self._drop(index, index + 1)
                return

    def _make_room(self, size: int, settings: Settings) -> None:
        count, kept = 0, self.size - self._exempt_bytes
        while count < len(self._frames) and (  # what is under way stays, and the newest has its place after it
            len(self._frames) - count >= settings.max_pending or kept + size > settings.max_pending_bytes
        ):
            kept -= len(self._frames[count].payload)
            count += 1
        self._drop(0, count)

    def _drop(self, start: int, end: int) -> None:
        self.size -= sum(len(frame.payload) for frame in self._frames[start:end])
        del self._frames[start:end]
        self.dropped += end - start
