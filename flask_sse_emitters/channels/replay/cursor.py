"""The position of a stream in its channels, as its client has it: the ids of events."""

from __future__ import annotations

from collections.abc import Sequence

from ...broadcast.delivery import Delivery
from ...broadcast.member import LIVE, Member, MemberState
from ...brokers.event_log import Log
from ...streams.emitter import SseEmitter
from ...wire.frame import Frame


class Cursor:
    """How far one client is in each channel of its stream. Not thread-safe: the lock of the stream guards it.

    The end of a channel changes no id: it reaches no client whose stream goes on, and so the next event of another
    channel would change two. A client that comes back with the id of the event before has missed nothing.

    :ivar ids: the id that the client has of each channel.
    :ivar is_over: the stream is: all channels had ended for the client at once, and whatever comes is not for it.
    """

    __slots__ = ("_ended", "ids", "is_over")

    def __init__(self, channels: int) -> None:
        self.ids = [b""] * channels
        self.is_over = False
        self._ended = 0  # a bit for each channel of which the client has the end, and nothing after it

    @property
    def line_bytes(self) -> int:
        """The size of the line that holds all ids, which each event of several channels comes with."""
        return len(b"id: \n") + sum(map(len, self.ids)) + len(self.ids) - 1

    def check_over(self) -> bool:
        """Return whether the stream is over. It is for good, if all channels have ended for the client now."""
        self.is_over = self.is_over or self._ended == (1 << len(self.ids)) - 1
        return self.is_over

    def move(self, index: int, log: Log, offset: int) -> None:
        """Move to this offset in one channel.

        :param index: of the channel in the stream.
        :param log: of the channel.
        """
        self.move_to(index, str(log.position(offset)).encode())

    def move_to(self, index: int, channel_id: bytes, *, ends: bool = False) -> None:
        """Move to this id in one channel.

        :param ends: the channel has ended after that.
        """
        self.ids[index] = channel_id
        self.note(index, ends=ends)

    def note(self, index: int, *, ends: bool) -> None:
        """Note whether the client has the end of a channel, and nothing after it."""
        self._ended = self._ended | 1 << index if ends else self._ended & ~(1 << index)

    def with_ids(self, index: int, frame: Frame) -> Frame:
        """Move to an event of one channel, and return it with the ids of all channels; the end of one without bytes.

        What has no id, as it is not of the channel, is returned as it is.

        :param index: of the channel in the stream.
        """
        if not frame.offset:
            return frame
        self.note(index, ends=frame.is_end)
        if frame.is_end:
            return frame._replace(payload=b"", body=0)
        self.ids[index] = frame.payload[len(b"id: ") : frame.body - 1]
        line = b"id: %b\n" % b",".join(self.ids)
        return Frame(line + frame.payload[frame.body :], frame.name, frame.offset, len(line), frame.at)

    def text(self) -> str:
        """Return the ids as the client will send them back."""
        return b",".join(self.ids).decode()

    def encode(self) -> bytes:
        """Encode the ids alone.

        That is no event, but a client remembers it: so it comes back to this position even if it gets no event.
        """
        return b"id: %b\n\n" % b",".join(self.ids)


class MultiChannelMember(Member):
    """The place of a stream of several channels in the list of one of them."""

    __slots__ = ("_cursor", "_index")

    has_own_ids = True

    def __init__(self, emitter: SseEmitter, list: Delivery, cursor: Cursor, index: int) -> None:
        super().__init__(emitter, list, MemberState.REPLAYING)
        self._cursor = cursor
        self._index = index

    def with_ids(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Return the frames with the ids of all channels, in the order in which they are written to this client."""
        return super().with_ids([self._cursor.with_ids(self._index, frame) for frame in frames])

    def is_last_channel(self, channel_end: Frame) -> bool:
        """Return whether all channels of the stream have ended with this one. Under its lock."""
        self._cursor.with_ids(self._index, channel_end)
        return self._cursor.check_over()

    @property
    def takes_events(self) -> bool:
        """Whether the list may give the stream events: not once it is over, though this channel goes on."""
        return self.state is LIVE and not self._cursor.is_over
