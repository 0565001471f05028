"""One stream's place in one list, and how the list's events get into the stream."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from ..errors import CloseReason
from ..streams.emitter import SseEmitter, stream_of
from ..streams.interfaces import Client, MemberList
from ..streams.outgoing import IDLE, WRITING
from ..wire.frame import Frame, without_id
from .batch import Batch


class MemberState(Enum):
    """What a member gets from its list."""

    JOINING = "joining"  #: nothing yet: it is being put in
    REPLAYING = "replaying"  #: nothing but an end: its stream reads everything from a log
    LIVE = "live"  #: every event after :attr:`Member.delivered_upto`
    ENDED = "ended"  #: nothing more: the list has ended its stream
    OVER = "over"  #: nothing more: the channel has ended, and so the stream for good


JOINING, REPLAYING, LIVE, ENDED, OVER = MemberState


class Member:
    """One stream's place in one list.

    The stream's lock guards it, but for joining and going live: these the list does under its own lock, in steps after
    each of which any other thread may look.

    It holds all that delivering to a client needs where that is quick, so that little memory is touched for each.

    :ivar delivered_upto: the number of the last event of the list that the stream has been given, while it is live.
    :ivar client: the list may write to it at once; None where it may not.
    :ivar written_at: when that was last done, by the scheduler's clock.
    :ivar joined_at: the number of the last event before it was in the list.
    :ivar uncounted: what to take from :attr:`delivered_upto`, so that it is how many events the list has given it.
    """

    __slots__ = (
        *("client", "delivered_upto", "emitter", "joined_at", "list", "lock", "state", "stream", "uncounted"),
        "written_at",
    )

    def __init__(self, emitter: SseEmitter, list: MemberList, state: MemberState = JOINING) -> None:
        self.emitter = emitter
        self.stream = stream_of(emitter)
        self.lock = self.stream.lock
        self.list = list
        self.state = state
        self.delivered_upto = 0
        self.joined_at = 0
        self.uncounted = 0
        self.client: Client | None = None
        self.written_at = 0.0

    @property
    def has_own_ids(self) -> bool:
        """Whether its client gets other bytes than all others: a bare one gets no ids."""
        return self.stream.settings.bare

    def with_ids(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Return the frames as they are written to this client, in the order in which they are."""
        return [without_id(frame) for frame in frames] if self.stream.settings.bare else frames

    @property
    def has_ended(self) -> bool:
        """Whether the list has ended the stream."""
        return self.state is ENDED or self.state is OVER

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended for good, as its channels have."""
        return self.state is OVER

    @property
    def queued_events(self) -> int:
        """How many events the list has been sent, and has not delivered to it."""
        return sum(frame is not None and not frame.is_end for _, frame in self._queued())

    @property
    def given_events(self) -> int:
        """How many events the list has given it. Nothing is counted as they are delivered."""
        return self.delivered_upto - self.uncounted

    @property
    def takes_events(self) -> bool:
        """Whether the list may give the stream events. Under its lock."""
        return self.state is LIVE

    def has_all_upto(self, number: int) -> bool:
        """Return whether the stream has been given all events of the list up to this number."""
        with self.lock:
            return self.state is LIVE and self.delivered_upto >= number

    def go_live(self, delivered_upto: int) -> None:
        """Get every event after this one from the list."""
        self.delivered_upto = self.uncounted = delivered_upto
        self.state = LIVE

    def deliver(self, batch: Batch, *, is_writer: bool) -> None:
        """Give the stream what it lacks of a batch: its writer at once, where that is idle. Only on the main loop.

        :param is_writer: this thread may write to clients that were handed off; else these get it from their queue.
        """
        stream, sleeper = self.stream, None
        with self.lock:
            if not self.takes_events or self.delivered_upto >= batch.last:
                return
            outgoing = stream.outgoing
            fits = batch.is_small and batch.largest <= stream.settings.max_pending_bytes
            if fits and outgoing.state is IDLE and (is_writer or outgoing.direct is None):
                if self.delivered_upto < batch.first:
                    payload, events = batch.payload_for(self), batch.events
                else:  # it came amid the batch, or has taken a part of it
                    rest = batch.rest_for(self)
                    payload, events = rest.payload, rest.events
                self.delivered_upto = batch.last
                self.written_at = batch.when
                sleeper = outgoing.wake(WRITING)
        if sleeper is not None:
            sleeper.wake_with(payload)
            stream.count(events, len(payload))
        else:
            self._keep(batch)

    def end(self, number: int, channel_end: Frame | None) -> None:
        """End the stream because its list does, with this number, unless that was before it joined.

        :param channel_end: the end of the channel, which ends the stream for good if it has no other that goes on; and
            which it finds by itself while it reads the log.
        """
        with self.lock:
            is_live = self.takes_events and self.delivered_upto < number
            if channel_end is None:
                self.state = ENDED if is_live or self.state is REPLAYING else self.state
            elif is_live:
                self._note_channel_end(number, channel_end)
            state = self.state
        if state is OVER:
            self.stream.end_for_good()
        elif state is ENDED:
            self.stream.end(CloseReason.COMPLETED, awaits_channels=True)

    def is_last_channel(self, channel_end: Frame) -> bool:  # noqa: ARG002 - only one with several has to know it
        """Return whether the stream has no channel that goes on after this end. Under its lock."""
        others = (each.list for each in self.stream.outgoing.members if each is not self)
        return not any(each.awaits_broker for each in others)

    def take_queued(self) -> None:
        """Give the stream now what the list has been sent, and has not delivered to it."""
        if queued := self._queued():
            self._take(queued)

    def _queued(self) -> Sequence[tuple[int, Frame | None]]:
        return self.list.queued_after(self.delivered_upto) if self.state is LIVE else []

    def _note_channel_end(self, number: int, channel_end: Frame) -> None:
        self.delivered_upto = number
        self.uncounted += 1
        if self.is_last_channel(channel_end):
            self.state = OVER

    def _keep(self, batch: Batch) -> None:
        stream, fits = self.stream, True
        with self.lock:
            if not self.takes_events or self.delivered_upto >= batch.last:
                return
            batch = batch.rest_for(self)
            self.delivered_upto = batch.last
            if stream.takes_events:
                backlog = stream.outgoing.backlog
                fits = backlog.push_all(batch.frames, len(batch.payload), stream.settings)
            sleeper = stream.outgoing.wake()
        if sleeper is not None:
            sleeper.wake()
        if not fits:
            stream.overflow()

    def _take(self, queued: Sequence[tuple[int, Frame | None]]) -> None:
        stream = self.stream
        frames: list[Frame] = []
        with self.lock:
            if not stream.takes_events:
                return
            for number, frame in queued:
                if not self.takes_events or number <= self.delivered_upto:
                    continue
                self.delivered_upto = number
                if frame is None:
                    self.uncounted += 1
                    self.state = ENDED
                elif frame.is_end:
                    self._note_channel_end(number, frame)
                else:
                    frames += self.with_ids([frame])
            outgoing = stream.outgoing
            sleeper = outgoing.wake() if frames else None
            if sleeper is not None:  # it would have been given them without asking whether they are too many
                outgoing.backlog.reserve(frames)
            fits = sleeper is not None or all(outgoing.backlog.push(frame, stream.settings) for frame in frames)
        if sleeper is not None:
            sleeper.wake()
        if not fits:
            stream.overflow()
