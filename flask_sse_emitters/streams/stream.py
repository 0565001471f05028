"""What lists, writers and the app do with one client's stream."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..config.settings import Settings
from ..errors import CloseReason, SseError
from ..wire.event import Event
from .ends import Pending
from .interfaces import DirectWriter, Member, Output, Producer, Registry, ReplaySource, Writer
from .machine import DRAINED, STREAMING, WAITING
from .outgoing import NOTHING
from .pending.room import Room
from .timing.timed_stream import TimedStream


class Stream(TimedStream):
    """One client's stream, whose phases are those of a :class:`.Machine`.

    Three kinds of callers see it: lists (:meth:`join`, :meth:`leave` and :meth:`overflow`, beside
    :class:`.broadcast.member.Member`), its writer (:meth:`begin` to :meth:`stall`), and the app, which also gives it
    events: see :mod:`.pending`. Every method may be called from any thread; none blocks but :meth:`wait_until`.
    """

    __slots__ = ()

    def join(self, member: Member) -> bool:
        """Take a place in a list. Return False where the stream has ended, or has a place in that list."""
        with self.lock:
            joins = self.close_reason is None and all(other.list is not member.list for other in self.outgoing.members)
            if joins:
                self.outgoing.add_member(member)
            return joins

    def leave(self, member: Member) -> None:
        """Give up a place in a list."""
        with self.lock:
            self._keep_members(tuple(other for other in self.outgoing.members if other is not member))

    def wait_until(self, condition: Callable[[], bool], until: float = math.inf) -> bool:
        """Wait until it has ended, or a condition holds: see :meth:`.Room.wait_until`."""
        with self.lock:
            self.room = room = self.room or Room(self.lock, self.scheduler)
        return room.wait_until(lambda: self.close_reason is not None or condition(), until)

    def overflow(self) -> None:
        """End it: more is pending than allowed. An end that came before still has what is pending written."""
        bounds = f"max_pending={self.settings.max_pending}, max_pending_bytes={self.settings.max_pending_bytes}"
        advice = "send(..., wait=seconds) waits until there is room"
        self._end(CloseReason.OVERFLOW, SseError(f"more events are pending than {bounds} allow: {advice}"))

    def begin(self, writer: Writer) -> None:
        """Give the client to this writer, which is going to take the first output: the end, where it was released.

        :raises RuntimeError: where the stream has a writer.
        """
        now = self.scheduler.clock()
        with self.lock:
            if self.phase is DRAINED:
                return
            self.outgoing.begin(writer)
            if self.phase is WAITING:  # else it has ended, and the writer writes what is left
                self._go(STREAMING)
            self.deadlines.begin_streaming(now)
        self.deadlines.set_timer(self)
        if self.producer is not None:
            self.producer.start()

    def take_over(self, writer: DirectWriter) -> bool:
        """Give the client to this writer in place of the one that has begun.

        :return: whether it has to take the next output. Else it is idle: it will be woken.
        :raises RuntimeError: where no writer has begun, or one has taken over.
        """
        with self.lock:
            self.outgoing.take_over(writer, self.settings.max_pending_bytes)
            has_output = bool(self.outgoing.backlog.size) or self.outgoing.replay is not None or not self.takes_events
            if not has_output:
                self.outgoing.rest(sleeps=True)
        return has_output

    def next_output(self, *, sleeps: bool = True, most: int | None = None) -> bytes | None:
        """Take what is to be written now; ``b""`` where there is nothing yet, None at the end. Only by its writer.

        :param sleeps: whether the writer waits to be woken where there is nothing. Else it asks again by itself, and
            counts as writing until then: lists keep what they have for it.
        :param most: take only what is pending, and only where that has so many bytes at most.
        """
        if most is None:
            output = self._take(sleeps)
        else:
            with self.lock:
                is_little = 0 < self.outgoing.backlog.size <= most
                output = self._note_written(self.outgoing.take_pending()) if is_little else NOTHING
        if self.room is not None:
            self.room.notify()
        if output is None:
            self._drain()
            return None
        if output.payload:
            self.count(output.events, len(output.payload), replayed=output.is_replay)
            if output.gap is not None and self.registry is not None:
                self.registry.note_gap(self, output.gap)
        return output.payload

    def produce(self, producer: Producer) -> bool:
        """Have this pull items into it from when its response begins. Return False where something does so already.

        A worker that stops lets it come to its end, unless its view has said otherwise.
        """
        with self.lock:
            if self.settings.is_produced:
                return False
            self.producer = producer
            own = {"drain": "finish", **self.settings.own, "is_produced": True}
            self.settings = self.deadlines.settings = self.settings.with_own(own)
            begins = self.outgoing.writer is not None or self.close_reason is not None
        if begins:
            producer.start()
        return True

    def stall(self) -> None:
        """Note that the writer is still at what it was given, though it was idle: the client did not take all of it."""
        now = self.scheduler.clock()
        with self.lock:
            self.outgoing.stall()
            self.deadlines.written = now

    def attach(self, settings: Settings, registry: Registry) -> None:
        """Note that a response carries it from now on, in an app with these settings.

        :raises SseError: where a response carries it already.
        """
        with self.lock:
            if self._is_attached:
                raise SseError(f"a response carries {self!r} already: make an emitter for each request")
            self._is_attached = True
            self.registry = registry
            is_new_to_app = self.settings.app_context is None
            if is_new_to_app:
                self.settings = self.deadlines.settings = settings.with_own(self.settings.own)
        if is_new_to_app:
            self.deadlines.set_timer(self)

    def prepend(self, payload: bytes, gap: str | None) -> None:
        """Have this written before all that was sent; nothing has been taken yet.

        :param gap: the id that the client came with, where this tells it of a gap.
        """
        with self.lock:
            self.outgoing.prepend(payload, gap)

    def replay_from(self, source: ReplaySource) -> None:
        """Take from this source what the client has missed."""
        with self.lock:
            if self.close_reason is None:
                self.outgoing.replay = source

    def notify_replay(self) -> None:
        """Note that the source of the replay may have more to give."""
        with self.lock:
            if self.outgoing.replay is None:
                return
            self.outgoing.replay.has_more = True
            sleeper = self.outgoing.wake()
        if sleeper is not None:
            sleeper.wake()

    def end_with_retry(self, reason: CloseReason = CloseReason.COMPLETED, *, drops_pending: bool = False) -> None:
        """End it so that its client comes back soon, at a time of its own: not at once with all others.

        :param drops_pending: do not write what has not been taken: the client may have no right to it any more.
        """
        retry = self.settings.spread_retry()
        closing = b"" if retry is None else Event(retry=retry).encode()
        pending: Pending = "drop" if drops_pending else "write"
        self.end(reason, pending=pending, closing=closing, sees=self.sees_end_for_now())

    def complete(self, *, is_final: bool) -> None:
        """End it after what is pending, and after what was published before to its channels.

        :param is_final: tell the client that this is the end for good: it does not come again, or gets nothing then.
        """
        closing = self.settings.final_block if is_final else b""
        self.end(CloseReason.COMPLETED, closing=closing, awaits_channels=True)

    def abort(self, error: BaseException) -> None:
        """Break the connection after what is pending, so that the client takes it for a part."""
        self.end(CloseReason.ERROR, error, awaits_channels=True, sees="break")

    def end_for_good(self) -> None:
        """End it because nothing more will come, and tell its client that, so that it does not come back."""
        self.end(CloseReason.COMPLETED, closing=self.settings.final_block)

    def end_by(self, when: float) -> None:
        """End it at this time of the scheduler's clock in any case, as if its lifetime were over."""
        with self.lock:
            self.deadlines.ends_by = when
        self.deadlines.set_timer(self)

    def _take(self, sleeps: bool) -> Output | None:
        outgoing = self.outgoing
        while True:
            with self.lock:
                source = outgoing.replay
                if outgoing.backlog.size:
                    return self._note_written(outgoing.take_pending())
                if source is None and self.takes_events:
                    return outgoing.rest(sleeps=sleeps)
                if source is None:
                    return self._note_written(outgoing.take_closing())
                source.has_more = False
            is_ready = source.prepare()
            with self.lock:
                if outgoing.backlog.size or outgoing.replay is None:
                    continue  # lists have been quicker, or the stream has been cut
                if is_ready:
                    output = outgoing.take_replayed(source)
                    if output.payload:  # the end of a channel alone has none
                        return self._note_written(output)
                    continue
                if is_ready is None:
                    outgoing.replay = None
                elif not source.has_more:
                    return outgoing.rest(sleeps=sleeps)

    def _note_written(self, output: Output | None) -> Output | None:
        if output is not None:
            self.deadlines.written = self.scheduler.clock()
        return output
